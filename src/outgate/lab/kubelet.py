"""
The kubelets of all nodes: one loop per pod, each look, decide, act, report.

What this is: ``PodWorker`` runs ``lifecycle.next_step`` on what the API and the
runtime say until nothing is left to do; ``Kubelet`` keeps a worker for each pod that
is bound to a node or still has something on this machine.
What this is not: decisions (``lifecycle``) or effects (``runtime``).

Pods are removed from the machine only when a complete list of the API lacks them.
"""

import asyncio
import time
from collections.abc import Collection
from typing import Any, assert_never

from outgate.errors import SourceError
from outgate.lab.errors import LabError
from outgate.lab.events import post_event
from outgate.lab.informer import Informer
from outgate.lab.lifecycle import (
    MakeSandbox,
    Remove,
    SandboxState,
    StartContainer,
    Step,
    TearDown,
    Wait,
    next_step,
)
from outgate.lab.podstatus import pod_status
from outgate.lab.probes import Probes
from outgate.lab.process import ProcessId
from outgate.lab.runtime import Runtime
from outgate.lab.topology import Topology
from outgate.lab.waiting import wait_ended
from outgate.lab.workload import Workload, parse_workload
from outgate.source.client import MERGE_PATCH, Client

MAX_RETRY_SECONDS = 16.0
FAILURE_REASONS = {
    MakeSandbox: "FailedCreatePodSandBox",
    StartContainer: "FailedStart",
    TearDown: "FailedKillPod",
    Remove: "FailedKillPod",
    Wait: "FailedSync",
}


class PodWorker:
    """Brings one pod to what the API asks; ends when both have forgotten it."""

    def __init__(
        self, uid: str, pods: Informer, runtime: Runtime, topology: Topology
    ) -> None:
        self._uid = uid
        self._pods = pods
        self._runtime = runtime
        self._topology = topology
        self._changed = asyncio.Event()
        self._failures = 0
        self._told: set[str] = set()
        self._watched: dict[ProcessId, asyncio.Task[None]] = {}
        self._probes = Probes(self.poke)
        self._is_adopted = bool(runtime.processes(uid))

    def poke(self) -> None:
        """Look again."""
        self._changed.set()

    async def run(self, client: Client) -> None:
        """Work until the pod is gone."""
        try:
            if self._is_adopted:
                await self._check_adopted(client)
            while await self._round(client):
                pass
        finally:
            self._probes.stop()
            for task in self._watched.values():
                task.cancel()

    async def _check_adopted(self, client: Client) -> None:
        pod = self._pods.objects.get(self._uid)
        try:
            await self._runtime.check_cable(self._uid)
        except LabError as error:
            if pod is not None:
                workload = parse_workload(pod)
                await post_event(client, workload, "NetworkNotReady", str(error))

    async def _round(self, client: Client) -> bool:
        """One look and one step; False when the pod is gone for good."""
        self._changed.clear()
        pod = self._pods.objects.get(self._uid)
        if pod is None:
            await self._runtime.tear_down(self._uid, 0)
            self._runtime.forget(self._uid)
            return False
        workload = parse_workload(pod)
        observed = self._runtime.observe(self._uid)
        if observed.sandbox is SandboxState.READY:
            holder = self._runtime.holder(self._uid)
            self._probes.follow(workload, observed, holder.pid)
        step = next_step(workload, observed, time.time())
        try:
            await self._take(step, workload, client)
            self._failures = 0
        except (LabError, SourceError) as error:
            await self._note_failure(client, workload, step, error)
        await self._report(client, pod, workload)
        return True

    async def _take(self, step: Step, workload: Workload, client: Client) -> None:
        match step:
            case MakeSandbox():
                await self._tell_ignored(client, workload)
                await self._runtime.make_sandbox(workload)
            case StartContainer(name, attempt):
                container = next(c for c in workload.containers if c.name == name)
                await self._runtime.start_container(self._uid, container, attempt)
            case TearDown():
                await self._runtime.tear_down(self._uid, workload.grace_seconds)
            case Remove():
                await self._runtime.tear_down(self._uid, workload.grace_seconds)
                await delete_for_good(client, workload)
                await self._sleep(MAX_RETRY_SECONDS)
            case Wait(until):
                await self._sleep(None if until is None else until - time.time())
            case _:
                assert_never(step)

    async def _sleep(self, seconds: float | None) -> None:
        """Sleep until something changes, a process of the pod ends, or time is up."""
        for process in self._runtime.processes(self._uid) - self._watched.keys():
            self._watched[process] = asyncio.create_task(self._watch(process))
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _watch(self, process: ProcessId) -> None:
        await wait_ended(process)
        self._watched.pop(process, None)
        self.poke()

    async def _tell_ignored(self, client: Client, workload: Workload) -> None:
        if workload.ignored and "ignored" not in self._told:
            self._told.add("ignored")
            names = ", ".join(workload.ignored)
            message = f"the lab does not act on {names}"
            await post_event(client, workload, "IgnoredByLab", message)

    async def _note_failure(
        self, client: Client, workload: Workload, step: Step, error: Exception
    ) -> None:
        """Show the failure once per text, and wait before the next attempt."""
        if str(error) not in self._told:
            self._told.add(str(error))
            await post_event(client, workload, FAILURE_REASONS[type(step)], str(error))
        pause = min(2.0**self._failures, MAX_RETRY_SECONDS)
        self._failures += 1
        await self._sleep(pause)

    async def _report(
        self, client: Client, pod: dict[str, Any], workload: Workload
    ) -> None:
        """Write the status if it is not what the API holds already."""
        if self._uid not in self._pods.objects:
            return
        observed = self._runtime.observe(self._uid)
        former = pod.get("status") or {}
        host = tuple(map(str, self._topology.node(workload.node).addresses))
        not_ready = self._probes.not_ready(workload.containers)
        status = pod_status(workload, observed, host, former, time.time(), not_ready)
        if all(former.get(key) == value for key, value in status.items()):
            return
        path = f"{_path(workload)}/status"
        body = {"metadata": {"uid": self._uid}, "status": status}
        try:
            answer = await client.request(
                "PATCH", path, body=body, content_type=MERGE_PATCH
            )
        except SourceError as error:
            if error.status not in (404, 409):
                self.poke()
                await asyncio.sleep(1.0)
            return
        if self._uid in self._pods.objects:
            self._pods.objects[self._uid] = answer


async def delete_for_good(client: Client, workload: Workload) -> None:
    """Tell the API that nothing of a deleted pod is left; errors: SourceError."""
    body = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": workload.uid},
    }
    try:
        await client.request("DELETE", _path(workload), body=body)
    except SourceError as error:
        if error.status not in (404, 409):
            raise


def _path(workload: Workload) -> str:
    return f"/api/v1/namespaces/{workload.namespace}/pods/{workload.name}"


class Kubelet:
    """A worker for each pod of the lab's nodes."""

    def __init__(
        self, client: Client, pods: Informer, runtime: Runtime, topology: Topology
    ) -> None:
        self._client = client
        self._pods = pods
        self._runtime = runtime
        self._topology = topology
        self._nodes = {node.name for node in topology.nodes}
        self._workers: dict[str, PodWorker] = {}
        self._changed = asyncio.Event()
        pods.on_change(self._note)

    def _note(self, uids: Collection[str]) -> None:
        for uid in uids:
            if uid in self._workers:
                self._workers[uid].poke()
        self._changed.set()

    async def run(self) -> None:
        """Keep the workers; a bug in one of them ends the control plane."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._pods.is_complete:
                    self._employ(group)

    def _employ(self, group: asyncio.TaskGroup) -> None:
        bound = {
            uid
            for uid, pod in self._pods.objects.items()
            if pod["spec"].get("nodeName") in self._nodes
        }
        present = {record.uid for record in self._runtime.records()}
        for uid in (bound | present) - self._workers.keys():
            worker = PodWorker(uid, self._pods, self._runtime, self._topology)
            self._workers[uid] = worker
            group.create_task(self._work(uid, worker))

    async def _work(self, uid: str, worker: PodWorker) -> None:
        try:
            await worker.run(self._client)
        finally:
            del self._workers[uid]
