"""
Pods as processes and namespaces: make them, look at them, take them away.

What this is: the effects behind ``lifecycle``'s steps, and ``observe``, which reads
everything from disk and ``/proc`` each time; nothing is remembered, so a restarted
control plane finds the pods as they are.
What this is not: decisions, or the API.

Errors: LabError with what the CNI plugin or the kernel said; the step is tried again.
"""

import asyncio
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from outgate.lab import cni
from outgate.lab.errors import LabError
from outgate.lab.holders import read_holder, read_host, sandbox_command
from outgate.lab.lifecycle import (
    ContainerState,
    Exited,
    ObservedPod,
    Running,
    SandboxState,
)
from outgate.lab.network import COMPLETE_CHECKSUMS, inside_network, pod_sysctls
from outgate.lab.process import ProcessId, is_alive, send_signal
from outgate.lab.records import find_record, read_record, write_record
from outgate.lab.runs import (
    ExitRecord,
    PodFolder,
    PodRecord,
    RunRecord,
    RunSpec,
    SandboxRecord,
)
from outgate.lab.sandbox import Kind, SandboxSpec
from outgate.lab.settings import LabSettings, StateFolder
from outgate.lab.topology import Topology
from outgate.lab.waiting import has_ended, run_program, wait_ended
from outgate.lab.workload import Container, Workload, hosts_text

KILLED = 128 + signal.SIGKILL


class Runtime:
    """The pods of all nodes of one lab."""

    def __init__(
        self, topology: Topology, settings: LabSettings, folder: StateFolder
    ) -> None:
        self._topology = topology
        self._settings = settings
        self._folder = folder

    def pod_folder(self, uid: str) -> PodFolder:
        return PodFolder(self._folder.pods / uid)

    def records(self) -> list[PodRecord]:
        """Every pod that has something on this machine."""
        paths = self._folder.pods.glob("*/pod.json")
        return [read_record(path, PodRecord) for path in paths]

    def observe(self, uid: str) -> ObservedPod:
        """Look at one pod; a pod that was never started is all absent."""
        folder = self.pod_folder(uid)
        sandbox = find_record(folder.sandbox, SandboxRecord)
        containers: dict[str, ContainerState] = {}
        previous: dict[str, Exited] = {}
        for name in folder.containers():
            *earlier, attempt = folder.attempts(name)
            state = self._observe_run(folder, name, attempt)
            if state is not None:
                containers[name] = state
            if earlier and isinstance(
                last := self._observe_run(folder, name, earlier[-1]), Exited
            ):
                previous[name] = last
        return ObservedPod(
            sandbox=_sandbox_state(sandbox),
            addresses=_addresses(sandbox),
            created_at=sandbox.created_at if sandbox else 0.0,
            containers=containers,
            previous=previous,
        )

    def _observe_run(
        self, pod: PodFolder, name: str, attempt: int
    ) -> ContainerState | None:
        folder = pod.run(name, attempt)
        run = find_record(folder.run, RunRecord)
        ended = find_record(folder.exit, ExitRecord)
        if run is None:
            return None
        if ended is None and is_alive(run.shim):
            return Running(attempt, run.started_at)
        ended = find_record(folder.exit, ExitRecord)
        if ended is None:
            ended = ExitRecord(KILLED, time.time())
            write_record(folder.exit, ended)
        return Exited(attempt, ended.code, run.started_at, ended.finished_at)

    def processes(self, uid: str) -> set[ProcessId]:
        """The processes whose end changes what ``observe`` sees."""
        folder = self.pod_folder(uid)
        sandbox = find_record(folder.sandbox, SandboxRecord)
        found = {sandbox.process} if sandbox else set()
        for name in folder.containers():
            for attempt in folder.attempts(name)[-1:]:
                run = find_record(folder.run(name, attempt).run, RunRecord)
                if run is not None:
                    found.add(run.shim)
        return {process for process in found if is_alive(process)}

    def holder(self, uid: str) -> ProcessId:
        """The process that holds the namespaces of a pod that has some."""
        return read_record(self.pod_folder(uid).sandbox, SandboxRecord).process

    async def make_sandbox(self, workload: Workload) -> None:
        """Make the pod's namespaces and cable them."""
        folder = self.pod_folder(workload.uid)
        record = PodRecord(
            workload.namespace,
            workload.name,
            workload.uid,
            workload.node,
            workload.uses_host_network,
        )
        write_record(folder.pod, record)
        spec = SandboxSpec(
            kind=Kind.HOST_POD if workload.uses_host_network else Kind.POD,
            hostname=workload.hostname,
            scratch=str(self._folder.scratch),
            node=read_host(self._folder, workload.node).pid,
            sysctls=pod_sysctls(self._topology),
        )
        output, errors = await run_program(sandbox_command(spec))
        process = read_holder(output, errors, workload.hostname)
        sandbox = SandboxRecord(process, time.time())
        write_record(folder.sandbox, sandbox)
        result: dict[str, Any] = {}
        if not workload.uses_host_network:
            result = await self._cable(workload, record, process)
        write_record(folder.sandbox, replace(sandbox, cni_result=result))

    async def _cable(
        self, workload: Workload, record: PodRecord, holder: ProcessId
    ) -> dict[str, Any]:
        requested = tuple(
            address
            for address in workload.requested_ips
            if address.version in self._topology.versions
        )
        attachment = replace(self._attachment(record, holder.pid), requested=requested)
        configuration = self._configuration(record.node)
        result: dict[str, Any] = await cni.add(attachment, configuration)
        if self._settings.has_xdp:
            await run_program(inside_network(holder.pid, COMPLETE_CHECKSUMS))
        addresses = cni.addresses_of(result)
        _write_hosts(holder, hosts_text(workload, addresses, self._topology))
        return result

    def _attachment(self, record: PodRecord, pod_holder: int) -> cni.Attachment:
        return cni.Attachment(
            namespace=record.namespace,
            name=record.name,
            uid=record.uid,
            node_holder=read_host(self._folder, record.node).pid,
            pod_holder=pod_holder,
        )

    def _configuration(self, node: str) -> dict[str, Any]:
        return cni.network_configuration(
            self._settings.network,
            self._topology.node(node).pod_networks,
            self._settings.pod_mtu,
            self._folder.networks / node,
        )

    async def start_container(
        self, uid: str, container: Container, attempt: int
    ) -> None:
        """Start a container; one without a command is its sandbox's own holder."""
        pod = self.pod_folder(uid)
        sandbox = read_record(pod.sandbox, SandboxRecord)
        folder = pod.run(container.name, attempt)
        folder.root.mkdir(parents=True, exist_ok=True)
        spec = RunSpec(
            sandbox.process.pid,
            container.command,
            dict(container.environment),
            container.working_folder,
        )
        write_record(folder.spec, spec)
        if container.command:
            shim = [sys.executable, "-I", "-m", "outgate.lab.shim"]
            await run_program([*shim, str(folder.root)])
        else:
            holder = sandbox.process
            write_record(folder.run, RunRecord(holder, holder, time.time()))
        pod.forget_old_runs(container.name)

    async def check_cable(self, uid: str) -> None:
        """Ask the CNI plugin whether an adopted pod's cable is as it left it."""
        folder = self.pod_folder(uid)
        record = read_record(folder.pod, PodRecord)
        sandbox = read_record(folder.sandbox, SandboxRecord)
        if sandbox.cni_result:
            attachment = self._attachment(record, sandbox.process.pid)
            configuration = self._configuration(record.node)
            await cni.check(attachment, configuration, sandbox.cni_result)

    async def tear_down(self, uid: str, grace_seconds: float) -> None:
        """End the containers, gracefully first, then take the namespaces away."""
        folder = self.pod_folder(uid)
        record = find_record(folder.pod, PodRecord)
        sandbox = find_record(folder.sandbox, SandboxRecord)
        if record is None or sandbox is None:
            return
        runs = list(self._live_runs(folder, sandbox))
        await asyncio.gather(*(_end(run, grace_seconds) for run in runs))
        send_signal(sandbox.process, signal.SIGKILL)
        await wait_ended(sandbox.process)
        if not record.uses_host_network:
            attachment = self._attachment(record, 0)
            await cni.delete(attachment, self._configuration(record.node))
        folder.sandbox.unlink(missing_ok=True)

    def _live_runs(
        self, folder: PodFolder, sandbox: SandboxRecord
    ) -> Iterable[RunRecord]:
        for name in folder.containers():
            for attempt in folder.attempts(name)[-1:]:
                run = find_record(folder.run(name, attempt).run, RunRecord)
                if run is not None and run.container != sandbox.process:
                    yield run

    def forget(self, uid: str) -> None:
        """Remove the pod's records and logs."""
        shutil.rmtree(self.pod_folder(uid).root, ignore_errors=True)

    def find_holder(self, namespace: str, name: str) -> tuple[PodFolder, ProcessId]:
        """The pod called *name* and the holder of its namespaces."""
        for record in self.records():
            if (record.namespace, record.name) == (namespace, name):
                folder = self.pod_folder(record.uid)
                sandbox = find_record(folder.sandbox, SandboxRecord)
                if sandbox is not None and is_alive(sandbox.process):
                    return folder, sandbox.process
        raise LabError(f"pod {namespace}/{name} does not run")


async def _end(run: RunRecord, grace_seconds: float) -> None:
    """Ask a container to end, then make it."""
    asked = grace_seconds > 0 and send_signal(run.container, signal.SIGTERM)
    if asked and await has_ended(run.shim, grace_seconds):
        return
    send_signal(run.container, signal.SIGKILL)
    await wait_ended(run.shim)


def _write_hosts(holder: ProcessId, text: str) -> None:
    Path(f"/proc/{holder.pid}/root/etc/hosts").write_text(text)


def _sandbox_state(sandbox: SandboxRecord | None) -> SandboxState:
    if sandbox is None:
        return SandboxState.ABSENT
    if sandbox.cni_result is None or not is_alive(sandbox.process):
        return SandboxState.BROKEN
    return SandboxState.READY


def _addresses(sandbox: SandboxRecord | None) -> tuple[str, ...]:
    if sandbox is None or not sandbox.cni_result:
        return ()
    return tuple(str(address) for address in cni.addresses_of(sandbox.cni_result))
