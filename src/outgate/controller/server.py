"""
The controller's answers over HTTP: health for the kubelet, numbers for Prometheus.

``/healthz``, ``/readyz`` say "ok" or why not (503); ``/metrics`` is Prometheus text.
A controller that stands by is as ready as the one that leads.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from outgate.errors import ConfigError
from outgate.settings import HostPort
from outgate.telemetry.metrics import CONTENT_TYPE

LEADER = "outgate_controller_leader"
"""1 while this controller writes status, 0 while it stands by."""

WRITES = "outgate_controller_status_writes"
"""Writes of status by ``outcome`` (ok, conflict, failed)."""

EVENTS = "outgate_controller_events"
"""Kubernetes Events by ``outcome`` (ok, failed)."""

POLICIES = "outgate_controller_policies"
"""Policies by ``ready`` (True, False, Unknown), as their status says."""

FAILING = "outgate_controller_failing_writes"
"""Policies and kinds whose status cannot be written now."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Everything that is counted, at one moment; *policies* is by readiness."""

    is_leader: bool
    written: int
    conflicts: int
    failed: int
    events: int
    refused_events: int
    failing: int
    policies: dict[str, int]


class _NumbersCollector(Collector):
    def __init__(self, numbers: Numbers) -> None:
        self._now = numbers

    def collect(self) -> Iterable[Metric]:
        now = self._now
        yield GaugeMetricFamily(LEADER, "1 while it writes.", float(now.is_leader))
        writes = CounterMetricFamily(WRITES, "Status writes.", labels=["outcome"])
        writes.add_metric(["ok"], now.written)
        writes.add_metric(["conflict"], now.conflicts)
        writes.add_metric(["failed"], now.failed)
        yield writes
        events = CounterMetricFamily(EVENTS, "Events.", labels=["outcome"])
        events.add_metric(["ok"], now.events)
        events.add_metric(["failed"], now.refused_events)
        yield events
        policies = GaugeMetricFamily(POLICIES, "Policies.", labels=["ready"])
        for ready, count in sorted(now.policies.items()):
            policies.add_metric([ready], count)
        yield policies
        yield GaugeMetricFamily(FAILING, "Writes that fail.", float(now.failing))


def exposition(numbers: Numbers) -> bytes:
    """Return *numbers* as Prometheus text, always in the same order."""
    registry = CollectorRegistry()
    registry.register(_NumbersCollector(numbers))
    return generate_latest(registry)


@asynccontextmanager
async def serving(
    address: HostPort | None,
    numbers: Callable[[], Numbers],
    why_not_ready: Callable[[], tuple[str, ...]],
) -> AsyncIterator[None]:
    """
    Serve on *address*, if any, until the context ends.

    Errors: ConfigError when the address cannot be used.
    """

    async def alive(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(request: web.Request) -> web.Response:
        reasons = why_not_ready()
        text = "".join(f"{reason}\n" for reason in reasons) or "ok\n"
        return web.Response(text=text, status=503 if reasons else 200)

    async def metrics(request: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE}
        return web.Response(body=exposition(numbers()), headers=headers)

    application = web.Application()
    application.router.add_get("/healthz", alive)
    application.router.add_get("/readyz", ready)
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    try:
        await runner.setup()
        if address is not None:
            try:
                await web.TCPSite(runner, address.host or None, address.port).start()
            except OSError as error:
                raise ConfigError(f"metrics-address: {error}") from error
        yield
    finally:
        await runner.cleanup()
