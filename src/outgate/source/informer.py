"""
One kind of objects, kept current: the machine of ``watch`` driven with ``client``.

What it is: a task that lists and watches one path with one selector, and tells which
keys changed.  Large lists are taken in small bites, so that the event loop goes on.

What it is not: a place where anything is decided about lists, errors or versions.

Who calls it: ``kubernetes`` for the cluster; the controller for what agents report.
"""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Mapping, Set
from http import HTTPStatus
from typing import Generic, TypeVar

from outgate.errors import SourceError
from outgate.source.answers import (
    Failure,
    FetchPage,
    OpenWatch,
    Page,
    Stored,
    StreamList,
    Wait,
)
from outgate.source.client import Client
from outgate.source.interface import KindStatistics
from outgate.source.peer import Peer
from outgate.source.timing import DEFAULT_TIMING, Timing
from outgate.source.watch import Held, Reflection
from outgate.source.wire import Kind

T = TypeVar("T")

PAGE_SIZE = 500
"""Objects of one page, as many as ``kubectl`` asks for."""

BITE = 100
"""Objects decoded before others have their turn: about 2 ms."""

OnChange = Callable[[Collection[str]], None]


class Informer(Generic[T]):
    """
    The objects of *kind* that *selector* (query parameters) selects, by key.

    *on_change* is called with the keys of items that came, changed or went, and with
    none when only ``is_listed`` or what is wrong changed.  *peer* is asked before each
    request that follows a lost connection.  *anchors* as in ``Reflection``.
    """

    def __init__(
        self,
        client: Client,
        kind: Kind[T],
        on_change: OnChange,
        *,
        selector: Mapping[str, str] | None = None,
        anchors: Set[str] = frozenset(),
        peer: Peer | None = None,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        self.kind = kind
        self._client = client
        self._on_change = on_change
        self._selector = dict(selector or {})
        self._peer = peer or Peer(client, timing)
        self._timing = timing
        self._reflection: Reflection[T] = Reflection(
            timing, may_be_missing=kind.may_be_missing, anchors=anchors
        )
        self._restores = self._peer.restores
        self._path = kind.path
        self._told = (False, "")
        self._silence: asyncio.Timeout | None = None
        self._silence_reason = ""

    def get(self, key: str) -> T | None:
        """Return the object of that key."""
        held = self._reflection.items.get(key)
        return None if held is None else held.value

    @property
    def items(self) -> Mapping[str, Held[T]]:
        """Return all objects, by key; not to be kept."""
        return self._reflection.items

    @property
    def is_listed(self) -> bool:
        """Return whether a full list came, ever."""
        return self._reflection.is_listed

    @property
    def is_complete(self) -> bool:
        """Return whether that is so, and all is well."""
        return self._reflection.is_complete

    def statistics(self) -> KindStatistics:
        """Return how it fares."""
        reflection = self._reflection
        return KindStatistics(
            kind=self.kind.name,
            objects=len(reflection.items),
            is_listed=reflection.is_listed,
            lists=reflection.lists,
            watches=reflection.watches,
            events=reflection.events,
            failures=reflection.failures,
            error=reflection.error,
        )

    async def run(self) -> None:
        """Keep the objects current until cancelled; failures are state, not raised."""
        while True:
            try:
                await self._take_step()
            except SourceError as e:
                self._peer.doubt()
                self._fail(Failure(e.status, str(e), e.retry_after))
            self._note(())

    def interrupt(self, reason: str) -> None:
        """Let go of a watch that is open: its server is known not to answer."""
        self._expire(0)
        self._silence_reason = reason

    async def _take_step(self) -> None:
        step = self._reflection.next_step(time.monotonic())
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
            return
        if self._reflection.is_listed and not isinstance(step, OpenWatch):
            self._peer.doubt()
        await self._peer.verify()
        if self._restores != self._peer.restores:
            self._restores = self._peer.restores
            self._reflection.list_anew()
            return
        match step:
            case FetchPage(token):
                await self._fetch_page(token)
            case StreamList():
                # No version: the server answers as of now, never from an old cache.
                await self._follow(
                    {
                        "sendInitialEvents": "true",
                        "resourceVersionMatch": "NotOlderThan",
                    }
                )
            case OpenWatch(version):
                await self._follow({"resourceVersion": version})

    async def _fetch_page(self, token: str) -> None:
        params = {**self._selector, "limit": str(PAGE_SIZE)}
        if token:
            params["continue"] = token
        timing = self._timing
        raw = await self._client.fetch(
            self._path, params, seconds=timing.list_limit, idle=timing.stream_idle
        )
        page = self.kind.read_page(raw)
        items: list[Stored[T]] = []
        for start in range(0, len(page.items), BITE):
            items += self.kind.decode_items(page.items[start : start + BITE])
            await asyncio.sleep(0)
        whole = Page(tuple(items), page.resource_version, page.continue_token)
        now, seed = time.monotonic(), random.random()
        self._note(self._reflection.receive_page(whole, now, seed))
        self._peer.hear(self._reflection.order)

    async def _follow(self, params: Mapping[str, str]) -> None:
        """Read a watch or a streamed list until it ends, breaks, or falls silent."""
        reflection = self._reflection
        lifetime = self._timing.watch_lifetime * (1 + random.random())
        asked = {
            **self._selector,
            **params,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, round(lifetime))),
        }
        self._silence_reason = f"no answer for {self._timing.open_watch:g} s"
        try:
            async with asyncio.timeout(self._timing.open_watch) as self._silence:
                async with self._client.watch(self._path, asked) as batches:
                    opened = time.monotonic()
                    reflection.receive_opened(opened)
                    self._peer.hear()
                    self._silence_reason = ""
                    self._listen(opened)
                    async for lines in batches:
                        self._listen(opened)
                        for start in range(0, len(lines), BITE):
                            if not self._take_lines(lines[start : start + BITE]):
                                return
                            await asyncio.sleep(0)
        except TimeoutError as e:
            if self._silence_reason:
                reason = f"GET {self._path}: {self._silence_reason}"
                raise SourceError(reason) from e
            if not reflection.is_watching:
                reflection.refuse_streams()
                return
        finally:
            self._silence = None
        reflection.receive_end(time.monotonic(), random.random())

    def _listen(self, opened: float) -> None:
        """Say until when the server may be silent."""
        self._note(())
        limit = self._timing.idle
        if not self._reflection.is_watching:
            left = opened + self._timing.list_limit - time.monotonic()
            limit = min(self._timing.stream_idle, left)
        self._expire(limit)

    def _expire(self, seconds: float) -> None:
        """Let go of what is open after so long, if it is not being let go of."""
        silence = self._silence
        if silence is not None and not silence.expired() and not self._silence_reason:
            silence.reschedule(asyncio.get_running_loop().time() + seconds)

    def _take_lines(self, lines: Collection[bytes]) -> bool:
        """Take some lines of a watch; return whether to read on."""
        reflection = self._reflection
        changed: list[str] = []
        now, seed = time.monotonic(), random.random()
        try:
            for line in lines:
                event = self.kind.decode_event(line)
                if isinstance(event, Failure):
                    self._fail(event)
                else:
                    changed += reflection.receive_event(event, now, seed)
                if not reflection.is_open:
                    return False
        finally:
            self._note(changed)
            self._peer.hear(reflection.order)
        return True

    def _fail(self, failure: Failure) -> None:
        kind = self.kind
        if failure.status == HTTPStatus.NOT_FOUND and kind.former_path:
            is_former = self._path == kind.former_path
            self._path = kind.path if is_former else kind.former_path
        self._reflection.receive_failure(failure, time.monotonic(), random.random())

    def _note(self, keys: Collection[str]) -> None:
        health = (self._reflection.is_listed, self._reflection.error or "")
        if keys or health != self._told:
            self._told = health
            self._on_change(keys)
