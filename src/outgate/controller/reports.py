"""
What agents say, from the API to ``statuses``: renewed, silent, or gone.

A node is called silent only when the API itself says so: watches may lag behind, and
a gateway must not lose its pods because this process is badly connected.  Reports of
nodes that are no more are deleted by the controller that leads.
"""

import asyncio
import time
from collections.abc import Collection, Iterable
from http import HTTPStatus

import msgspec
import structlog

from outgate.controller.freshness import Freshness
from outgate.controller.statuses import Statuses
from outgate.controller.watching import EGRESS_NODES
from outgate.errors import SourceError
from outgate.source.client import Client
from outgate.source.informer import Informer
from outgate.source.peer import Peer
from outgate.state.entries import NodeName
from outgate.telemetry.events import Event

log = structlog.get_logger()

ASK_SECONDS = 2.0
ORPHAN_SECONDS = 60.0
"""How long a node must be gone before its report goes."""


class Reports:
    """Follows EgressNodes; *look* brings what happened into *statuses*."""

    def __init__(
        self,
        client: Client,
        peer: Peer,
        statuses: Statuses,
        freshness: Freshness,
    ) -> None:
        self._client = client
        self._statuses = statuses
        self._freshness = freshness
        self.informer = Informer(client, EGRESS_NODES, self._note, peer=peer)
        self._changed: set[str] = set()
        self._was_listed = False
        self._orphans: dict[str, float] = {}

    def _note(self, keys: Collection[str]) -> None:
        self._changed.update(keys)

    async def look(self, now: float) -> None:
        """Take what changed since the last call, and who has fallen silent."""
        changed, self._changed = self._changed, set()
        for key in changed:
            report = self.informer.get(key)
            is_old = not self._was_listed
            self._statuses.report(NodeName(key), report, now, is_old=is_old)
        self._was_listed = True
        if self.informer.is_complete:
            self._freshness.resume(now)
        else:
            self._freshness.hold(now)
        await self._ask(sorted(self._freshness.doubtful(now)))
        self._statuses.note_time(self._freshness.take_turned(time.monotonic()))

    async def _ask(self, nodes: Iterable[NodeName]) -> None:
        """Ask the API itself of nodes that are about to be called silent."""
        for node in nodes:
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    raw = await self._client.fetch(f"{EGRESS_NODES.path}/{node}", {})
                    _, report = EGRESS_NODES.decode(raw)
            except (SourceError, msgspec.DecodeError, TimeoutError) as error:
                if (
                    not isinstance(error, SourceError)
                    or error.status != HTTPStatus.NOT_FOUND
                ):
                    # Who cannot hear must not say that the others are silent.
                    self._freshness.defer(time.monotonic())
                    return
            else:
                self._freshness.note(node, report.renew_time, time.monotonic())

    async def sweep(self, now: float) -> None:
        """Delete reports of nodes that have been gone for long; for the leader."""
        gone = {k for k in self.informer.items if not self._statuses.has_node(k)}
        self._orphans = {key: self._orphans.get(key, now) for key in gone}
        for key, since in self._orphans.items():
            if now - since < ORPHAN_SECONDS:
                continue
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    await self._client.request("DELETE", f"{EGRESS_NODES.path}/{key}")
            except (SourceError, TimeoutError):
                return  # the next look tries again
            log.info(Event.REPORT_SWEPT, node=key)
