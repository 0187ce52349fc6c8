"""
The API server at the other end: is it alive, and is it the same cluster?

What it is: one question for all kinds, the uid of namespace kube-system, asked before
the first request, after each lost connection, and when the server has said nothing at
all for a while.  Every cluster has that namespace, and none has another's uid.  While
it cannot be answered nothing is listed or watched, so that what another cluster says
(an address that moved, a storage made anew) never takes part in anything.

The answer also tells the newest version there is.  If we have seen a newer one, the
server's storage was restored from a backup; it would accept a watch from the future and
say nothing until its count has caught up, so everything must be listed anew.

What it is not: a judge of objects; ``shrink`` judges lists.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec

from outgate.errors import SourceError
from outgate.source.client import Client
from outgate.source.timing import DEFAULT_TIMING, Timing
from outgate.source.watch import as_number

PATH = "/api/v1/namespaces"
PARAMS = {"fieldSelector": "metadata.name=kube-system", "limit": "1"}


class _Metadata(msgspec.Struct, gc=False):
    name: str = ""
    uid: str = ""


class _Namespace(msgspec.Struct, gc=False):
    metadata: _Metadata


class _ListMetadata(msgspec.Struct, rename="camel", gc=False):
    resource_version: str = ""


class _Namespaces(msgspec.Struct, gc=False):
    metadata: _ListMetadata
    items: list[_Namespace] | None = None


class Peer:
    """
    The server behind *client*; informers that share it ask once, not each.

    *restores* counts how often it turned out to have lost its past.
    """

    def __init__(self, client: Client, timing: Timing = DEFAULT_TIMING) -> None:
        self._client = client
        self._timing = timing
        self.restores = 0
        self._uid = ""
        self._order = -1
        self._is_proven = False
        self._asking: asyncio.Task[None] | None = None
        self._heard_at = time.monotonic()

    def hear(self, order: int = -1) -> None:
        """Note that the server said something; *order* is a version as a number."""
        self._heard_at = time.monotonic()
        self._order = max(self._order, order)

    def doubt(self) -> None:
        """Ask again before the next request."""
        self._is_proven = False

    async def verify(self) -> None:
        """
        Return once the server has shown that it is alive and the one it was.

        Errors: ``SourceError`` when it is not, or does not answer.
        """
        if self._is_proven:
            return
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="peer")
            self._asking.add_done_callback(self._forget)
        await asyncio.shield(self._asking)

    async def follow(self, on_silence: Callable[[str], None]) -> None:
        """Ask when nothing was heard for long; tell *on_silence* why if in vain."""
        while True:
            silent = time.monotonic() - self._heard_at
            if silent < self._timing.probe:
                await asyncio.sleep(self._timing.probe - silent)
                continue
            self.doubt()
            restores = self.restores
            try:
                await self.verify()
            except SourceError as e:
                on_silence(f"the server fell silent: {e}")
            if restores != self.restores:
                on_silence("the server lost its past: everything is listed anew")
            self.hear()

    def close(self) -> None:
        """Let go of a question that nobody waits for any more."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> None:
        limit, seen = self._timing.open_watch, self._order
        raw = await self._client.fetch(PATH, PARAMS, seconds=limit, idle=limit)
        try:
            answer = msgspec.json.decode(raw, type=_Namespaces)
        except msgspec.DecodeError as e:
            raise SourceError(f"namespace kube-system: {e}") from e
        found = [n.metadata for n in answer.items or ()]
        uids = [n.uid for n in found if n.name == "kube-system"]
        uid = uids[0] if uids else ""
        if self._uid and uid != self._uid:
            raise SourceError(
                "another cluster answers at this address: namespace kube-system"
                f" has uid {uid or '(none)'}, it had {self._uid}; nothing is taken from"
                " it. If the cluster was made anew on purpose, restart this process"
            )
        order = as_number(answer.metadata.resource_version)
        if -1 < order < seen:
            self.restores += 1
            self._order = order
        self._uid = uid
        self._is_proven = True
        self.hear(order)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # each of those who wait has it; nobody may be left
