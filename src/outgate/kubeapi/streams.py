"""
Answers that last: watches and followed logs.

What it is: the asyncio side of a watch (wake, take, write, bookmark, give up at the
deadline) and of a log.
What it is not: which lines to send; ``watch`` knows that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

from aiohttp import web

from outgate.kubeapi.backend import BackendError
from outgate.kubeapi.protocol import ListOptions
from outgate.kubeapi.status import ApiError
from outgate.kubeapi.watch import Watch

_BOOKMARK_SECONDS = 10.0
_LONGEST_SECONDS = 3600


class Waiter:
    """One that waits for changes of one resource."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.is_closing = False

    def wake(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Whether something changed within *seconds*, or since the last call."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Wakeups:
    """Who waits for changes of which resource; level-triggered."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Waiter]] = {}

    def notify(self, resource: str) -> None:
        for waiter in self._waiting.get(resource, ()):
            waiter.wake()

    def close(self) -> None:
        """Wake everybody, to end."""
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.is_closing = True
                waiter.wake()

    @contextmanager
    def waiter(self, resource: str) -> Iterator[Waiter]:
        waiter = Waiter()
        waiters = self._waiting.setdefault(resource, set())
        waiters.add(waiter)
        try:
            yield waiter
        finally:
            waiters.discard(waiter)


async def serve_watch(
    request: web.Request,
    watch: Watch,
    resource: str,
    options: ListOptions,
    wakeups: Wakeups,
) -> web.StreamResponse:
    """Send the lines of *watch* until the deadline, an error, or the client's end."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    with wakeups.waiter(resource) as waiter, suppress(ConnectionResetError):
        lines = watch.start()
        await response.prepare(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (options.timeout_seconds or _LONGEST_SECONDS)
        while True:
            if lines:
                await response.write(b"".join(lines))
            left = deadline - loop.time()
            if watch.is_over or waiter.is_closing or left <= 0 or _is_gone(request):
                break
            is_changed = await waiter.wait(min(left, _BOOKMARK_SECONDS))
            lines = watch.take()
            if not is_changed and options.bookmarks and not watch.is_over:
                lines.append(watch.bookmark())
        await response.write_eof()
    return response


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


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
        reason = "BadRequest" if error.code == 400 else "InternalError"
        raise ApiError(error.code, reason, error.message) from error
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response
