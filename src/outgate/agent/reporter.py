"""
Tells the cluster what this node observes of itself: its EgressNode.

What it is: one object per node, written when what it would say has changed, at most
once a second, and renewed while the node may be asked to be a gateway, so that a dead
agent is noticed.

What it is not: needed for traffic.  A report that cannot be written is state and is
tried again; rows in the kernel do not wait for it.

Who calls it: the agent, with a function that makes the report of the moment.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import structlog

from outgate.errors import SourceError
from outgate.policy.reports import NodeReport
from outgate.source.client import MERGE_PATCH, Client
from outgate.telemetry.events import Event

log = structlog.get_logger()

PATH = "/apis/outgate.io/v1alpha1/egressnodes"

LOOK_SECONDS = 1.0
"""How often the report is looked at, and so how often it is written at most."""

RENEW_SECONDS = 5.0
"""How often a candidate gateway says that it lives."""

REPEAT_SECONDS = 600.0
"""How often all is written again, should somebody have changed or deleted it."""

START_SECONDS = 15.0
"""How long an agent that has just started may be silent until it is ready: what it was
before it restarted goes on in the kernel, and its pods need not leave."""

WRITE_SECONDS = 5.0
"""A write that takes longer has failed: the next sign of life is due."""

LONGEST_WAIT = 30.0
"""Between two attempts while the API refuses."""

MEND = "; install the CRD: kubectl apply -f deploy/crds/egressnodes.yaml"


@dataclass(frozen=True, slots=True)
class ReporterState:
    """How reporting fares; *error* is why the last write failed, None if it did not."""

    written: int
    failed: int
    error: str | None


class Reporter:
    """
    Keeps the EgressNode of one node true.

    *report* gives what to say now (its renew_time is ours to fill in), *is_candidate*
    whether the node may be asked to be a gateway.
    """

    def __init__(
        self,
        client: Client,
        report: Callable[[], NodeReport],
        is_candidate: Callable[[], bool],
    ) -> None:
        self._client = client
        self._report = report
        self._is_candidate = is_candidate
        self._said: dict[str, Any] = {}
        self._started_at = time.monotonic()
        self._said_at = 0.0
        self._written_at = 0.0
        self._retry_at = 0.0
        self._attempts = 0
        self._written = 0
        self._failed = 0
        self._error: str | None = None

    def statistics(self) -> ReporterState:
        """Return how reporting fares."""
        return ReporterState(self._written, self._failed, self._error)

    async def run(self) -> None:
        """Report until cancelled; failures are state, not raised."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Write the report if it is due."""
        now = time.monotonic()
        if now < self._retry_at:
            return
        report = self._report()
        is_starting = not self._written and now - self._started_at < START_SECONDS
        if is_starting and not report.is_ready:
            return
        said = _status(replace(report, renew_time=""))
        body = self._due(said, now)
        if body is None:
            return
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self._write(report, body)
        except TimeoutError:
            self._fail("no answer in time")
        except SourceError as error:
            mend = MEND if error.status == HTTPStatus.NOT_FOUND else ""
            self._fail(f"{error}{mend}")
        else:
            if len(body) > 1:
                self._said, self._said_at = said, now
            self._written_at = now
            self._written += 1
            self._attempts, self._error = 0, None

    def _due(self, status: dict[str, Any], now: float) -> dict[str, Any] | None:
        """Return the status to write: all of it, a sign of life, or nothing."""
        if status != self._said or now - self._said_at >= REPEAT_SECONDS:
            return {**status, "renewTime": _wall()}
        if self._is_candidate() and now - self._written_at >= RENEW_SECONDS:
            return {"renewTime": _wall()}
        return None

    async def _write(self, report: NodeReport, status: dict[str, Any]) -> None:
        try:
            await self._patch(report, status)
        except SourceError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            await self._create(report)
            await self._patch(report, _status(replace(report, renew_time=_wall())))

    async def _patch(self, report: NodeReport, status: dict[str, Any]) -> None:
        await self._client.request(
            "PATCH",
            f"{PATH}/{report.node}/status",
            params={"fieldManager": "outgate-agent"},
            body={"status": status},
            content_type=MERGE_PATCH,
        )

    async def _create(self, report: NodeReport) -> None:
        body = {
            "apiVersion": "outgate.io/v1alpha1",
            "kind": "EgressNode",
            "metadata": {"name": report.node},
        }
        try:
            await self._client.request("POST", PATH, body=body)
        except SourceError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise

    def _fail(self, error: str) -> None:
        self._failed += 1
        self._attempts += 1
        if self._error is None:
            log.warning(Event.REPORT_REFUSED, error=error)
        self._error = error
        wait = min(LOOK_SECONDS * 2.0 ** min(self._attempts, 16), LONGEST_WAIT)
        self._retry_at = time.monotonic() + wait
        # What the API holds is unknown now: a write may have arrived all the same.
        self._said = {}


def _status(report: NodeReport) -> dict[str, Any]:
    """Return the status as a merge patch: a route that is gone must be named."""
    status: dict[str, Any] = dict(report.to_json())
    routes: Mapping[str, str] = status["defaultRoute"]
    status["defaultRoute"] = {"ipv4": None, "ipv6": None, **routes}
    return status


def _wall() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
