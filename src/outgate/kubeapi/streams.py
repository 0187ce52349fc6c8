"""
Answers that last: watches and followed logs.

What it is: the asyncio side of a watch (wake, take, write, bookmark, give up at the
deadline) and of a log.
What it is not: which lines to send; ``watch`` knows that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import web

from outgate.kubeapi.backend import BackendError
from outgate.kubeapi.protocol import ListOptions
from outgate.kubeapi.status import ApiError
from outgate.kubeapi.watch import Watch

_BOOKMARK_SECONDS = 10.0
_LONGEST_SECONDS = 3600


class Wakeups:
    """Who waits for changes of which resource; level-triggered."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self.is_closing = False

    def notify(self, resource: str) -> None:
        for event in self._waiting.get(resource, ()):
            event.set()

    def close(self) -> None:
        """Wake everybody, to end."""
        self.is_closing = True
        for resource in self._waiting:
            self.notify(resource)

    def register(self, resource: str) -> asyncio.Event:
        event = asyncio.Event()
        self._waiting.setdefault(resource, set()).add(event)
        return event

    def forget(self, resource: str, event: asyncio.Event) -> None:
        self._waiting[resource].discard(event)


async def serve_watch(
    request: web.Request,
    watch: Watch,
    resource: str,
    options: ListOptions,
    wakeups: Wakeups,
) -> web.StreamResponse:
    """Send the lines of *watch* until the deadline, an error, or the client's end."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    event = wakeups.register(resource)
    try:
        first = watch.start()
        await response.prepare(request)
        await _follow(request, response, watch, first, options, event, wakeups)
        with suppress(ConnectionResetError):
            await response.write_eof()
    finally:
        wakeups.forget(resource, event)
    return response


async def _follow(
    request: web.Request,
    response: web.StreamResponse,
    watch: Watch,
    lines: list[bytes],
    options: ListOptions,
    event: asyncio.Event,
    wakeups: Wakeups,
) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + (options.timeout_seconds or _LONGEST_SECONDS)
    while True:
        with suppress(ConnectionResetError):
            if lines:
                await response.write(b"".join(lines))
        left = deadline - loop.time()
        is_gone = request.transport is None or request.transport.is_closing()
        if watch.is_over or wakeups.is_closing or is_gone or left <= 0:
            return
        is_changed = await _wait(event, min(left, _BOOKMARK_SECONDS))
        lines = watch.take()
        if not is_changed and options.bookmarks and not watch.is_over:
            lines.append(watch.bookmark())


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Whether something changed within *seconds*."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    event.clear()
    return True


async def serve_log(
    request: web.Request, chunks: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Pass a log on; an error before its first byte is still a Status."""
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    try:
        async for chunk in chunks:
            if not response.prepared:
                await response.prepare(request)
            await response.write(chunk)
    except ConnectionResetError:
        return response
    except BackendError as error:
        if response.prepared:
            return response
        raise ApiError(error.code, "InternalError", error.message) from error
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response
