"""
The controller's composition root: the cluster and agents' reports in, status out.

One leads and writes, any number stand by with everything known already.  Nothing of
the datapath depends on it: without a controller agents choose gateways by Node objects
alone, and policies show no status.
"""

import asyncio
import signal
import socket
import time
import uuid
from collections.abc import Collection, Coroutine
from typing import Any

import structlog

from outgate.controller.config import ControllerConfig
from outgate.controller.election import TIMES, Election, Times
from outgate.controller.events import Events
from outgate.controller.freshness import Freshness
from outgate.controller.lease import Lease
from outgate.controller.reports import Reports
from outgate.controller.server import Numbers, serving
from outgate.controller.statuses import Statuses
from outgate.controller.watching import watch_status
from outgate.controller.writer import StatusWriter
from outgate.source.client import Client
from outgate.source.informer import Informer
from outgate.source.kubeconfig import load
from outgate.source.kubernetes import KubernetesSource
from outgate.source.peer import Peer
from outgate.telemetry.events import Event
from outgate.telemetry.logs import configure_logs

log = structlog.get_logger()

LOOK_SECONDS = 1.0
"""How often it is looked who has fallen silent; changes are taken at once."""


class Controller:
    """One controller behind *client*, under a name of its own."""

    def __init__(
        self,
        client: Client,
        config: ControllerConfig,
        identity: str,
        times: Times = TIMES,
        freshness: Freshness | None = None,
    ) -> None:
        self._config = config
        self._freshness = freshness or Freshness()
        self._statuses = Statuses(self._freshness)
        self._source = KubernetesSource(client, None)
        self._peer = Peer(client)
        self._reports = Reports(client, self._peer, self._statuses, self._freshness)
        self._lease = Lease(client, config.lease_namespace, Election(identity, times))
        self._events = Events(client, identity)
        self._writer = StatusWriter(
            client, lambda: self._lease.is_leader, self._events.tell
        )
        self._informers: tuple[Informer[Any], ...] = (
            self._reports.informer,
            *watch_status(client, self._peer, self._writer.observe),
        )
        self._ready: dict[str, str] = {}
        self._identity = identity

    @property
    def is_leader(self) -> bool:
        """Return whether this controller writes."""
        return self._lease.is_leader

    async def run(self, stop: asyncio.Event) -> None:
        """Run until *stop* is set."""
        address = self._config.metrics_address
        async with serving(address, self.numbers, self.why_not_ready):
            log.info(Event.CONTROLLER_STARTED, instance=self._identity)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work) for work in self._works()]
                await stop.wait()
                for task in tasks:
                    task.cancel()
            self._peer.close()
        log.info(Event.CONTROLLER_STOPPED)

    def _works(self) -> list[Coroutine[Any, Any, None]]:
        return [
            self._source.run(),
            *(informer.run() for informer in self._informers),
            self._peer.follow(self._interrupt),
            self._lease.run(),
            self._follow_lease(),
            self._writer.run(),
            self._events.run(),
            self._follow_cluster(),
        ]

    def _interrupt(self, reason: str) -> None:
        for informer in self._informers:
            informer.interrupt(reason)

    async def _follow_lease(self) -> None:
        while True:
            await self._lease.wait_changed()
            self._writer.wake()

    async def _follow_cluster(self) -> None:
        while not (self._source.is_listed and self._reports.informer.is_listed):
            # Before that every policy looks as if it had no pods and no agents.
            await self._wait()
        while True:
            started = time.monotonic()
            await self._look(started)
            # Never more than half of the time, however large the cluster is.
            await asyncio.sleep(time.monotonic() - started)
            await self._wait()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._source.wait_changed()
        except TimeoutError:
            pass

    async def _look(self, now: float) -> None:
        self._statuses.change(self._source.take_changes(), now)
        await self._reports.look(now)
        for key in self._statuses.take_concerned():
            status = self._statuses.judge(key, time.monotonic())
            self._writer.want(key, status)
            if status is None:
                self._ready.pop(key, None)
            else:
                self._ready[key] = str(status.ready)
            await asyncio.sleep(0)
        if self._lease.is_leader and self._source.is_complete:
            await self._reports.sweep(now)

    def numbers(self) -> Numbers:
        """Return every count, for metrics."""
        counts = self._writer.counts
        found: Collection[str] = self._ready.values()
        return Numbers(
            is_leader=self._lease.is_leader,
            written=counts.written,
            conflicts=counts.conflicts,
            failed=counts.failed,
            events=self._events.written,
            refused_events=self._events.refused,
            failing=len(self._writer.failures),
            policies={ready: list(found).count(ready) for ready in set(found)},
        )

    def why_not_ready(self) -> tuple[str, ...]:
        """Return what is missing until this controller could lead."""
        reasons = [f"{kind}: {error}" for kind, error in self._source.errors.items()]
        if not self._source.is_listed:
            reasons.append("the cluster has not been listed yet")
        if not self._reports.informer.is_listed:
            reasons.append("agents' reports have not been listed yet")
        if self._lease.error:
            reasons.append(f"lease: {self._lease.error}")
        return tuple(reasons)


async def run_controller(config: ControllerConfig) -> None:
    """
    Run a controller until SIGTERM or SIGINT.

    Errors: an OutgateError when it cannot start.
    """
    configure_logs(config.log_format)
    identity = f"{socket.gethostname()}_{uuid.uuid4()}"
    connection = load(config.kubeconfig, config.context)
    async with Client(connection) as client:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await Controller(client, config, identity).run(stop)
