"""
A gate in front of an API server, where tests break the connection of those behind it.

What it is: a reverse proxy on loopback that a source takes for its API server: each
answer passes here and can be refused, replaced, cut, delayed, repeated or frozen.  What
is behind it is a real API, the lab's or a kube-apiserver, that knows nothing of this.

What it is not: a checker of anything; it trusts what is behind it.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

import aiohttp
from aiohttp import web

from outgate.source.connection import Connection
from outgate.source.credentials import tls_context

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Matches = Callable[[web.Request], bool]

THAWED = web.RequestKey("thawed", asyncio.Event)


@dataclass
class Fault:
    """What is done to the next *times* requests that it *matches*."""

    matches: Matches
    answer: Answer
    times: int = 1_000_000
    hits: int = 0


@dataclass
class Stream:
    """A watch that is open: its request, and the lines that passed."""

    request: web.Request
    response: web.StreamResponse
    passed: list[bytes] = field(default_factory=list)

    async def send(self, line: bytes) -> None:
        """Say something that the server did not say."""
        await self.response.write(line + b"\n")

    def abort(self) -> None:
        """Reset the connection."""
        if self.request.transport is not None:
            self.request.transport.abort()


class Gate:
    """
    A gate before *upstream*; *tls* makes it speak HTTPS.
    """

    def __init__(self, upstream: Connection, tls: ssl.SSLContext | None = None) -> None:
        self.upstream = upstream
        self.tls = tls
        self.faults: list[Fault] = []
        self.streams: list[Stream] = []
        self.requests: list[web.Request] = []
        self.port = 0
        self.delay = 0.0
        self.halve_next = ""
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Return what a source is told of its API server."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._thawed.set()
        await self.close()
        if self._session is not None:
            await self._session.close()

    async def open(self) -> None:
        """Listen, on the same port as before."""
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._respond)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Reset all connections and refuse new ones, as a host does that reboots."""
        if self._runner is not None:
            for stream in self.streams:
                stream.abort()
            await self._runner.cleanup()
            self._runner = None
        self.streams.clear()

    def freeze(self) -> None:
        """Pass nothing on, end nothing, and accept who comes: half-open connections."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Pass on everything again."""
        self._thawed.set()

    def thaw_new(self) -> None:
        """Pass on what connects from now on; what is open stays frozen for ever."""
        self._thawed = asyncio.Event()
        self._thawed.set()

    def cut(self, path: str = "") -> None:
        """Reset the watches of *path*."""
        for stream in self.watches(path):
            stream.abort()

    def watches(self, path: str) -> list[Stream]:
        """Return the open watches whose path ends so."""
        return [s for s in self.streams if s.request.path.endswith(path)]

    def fail(self, matches: Matches, answer: Answer, times: int = 1_000_000) -> Fault:
        """Answer what *matches* with *answer* instead."""
        fault = Fault(matches, answer, times)
        self.faults.append(fault)
        return fault

    def repair(self) -> None:
        """Forget all faults."""
        self.faults.clear()

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        thawed = self._thawed
        request[THAWED] = thawed
        await thawed.wait()
        for fault in self.faults:
            if fault.hits < fault.times and fault.matches(request):
                fault.hits += 1
                return await fault.answer(request)
        return await self._forward(request)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        async with self._ask(request) as answer:
            passed = ("Content-Type", "Retry-After", "Date")
            headers = {k: v for k, v in answer.headers.items() if k in passed}
            response = web.StreamResponse(status=answer.status, headers=headers)
            await response.prepare(request)
            if "watch" not in request.query or answer.status != 200:
                async for chunk in answer.content.iter_any():
                    await self._pass(request, response, chunk)
                return response
            stream = Stream(request, response)
            self.streams.append(stream)
            try:
                async for line in _lines(answer):
                    await self._pass_line(stream, line)
            finally:
                with suppress(ValueError):
                    self.streams.remove(stream)
            return response

    @asynccontextmanager
    async def _ask(self, request: web.Request) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None
        upstream = self.upstream
        tls = tls_context(upstream, None) if upstream.server[:6] == "https:" else True
        token = upstream.token
        async with self._session.request(
            request.method,
            upstream.server + request.path_qs,
            data=await request.read(),
            headers={
                "Content-Type": request.content_type,
                **({"Authorization": f"Bearer {token}"} if token else {}),
            },
            ssl=tls,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            yield answer

    async def _pass_line(self, stream: Stream, line: bytes) -> None:
        if self.halve_next and stream.request.path.endswith(self.halve_next):
            self.halve_next = ""
            await stream.response.write(line[: len(line) // 2])
            stream.abort()
            raise ConnectionResetError
        stream.passed.append(line)
        await self._pass(stream.request, stream.response, line + b"\n")

    async def _pass(
        self, request: web.Request, response: web.StreamResponse, chunk: bytes
    ) -> None:
        await request[THAWED].wait()
        if not self.delay:
            await response.write(chunk)
            return
        for start in range(0, len(chunk), 64):
            await asyncio.sleep(self.delay)
            await response.write(chunk[start : start + 64])


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in answer.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def status(code: int, message: str = "", **headers: str) -> Answer:
    """Return an answer that is a Kubernetes Status."""

    async def answer(_: web.Request) -> web.StreamResponse:
        body = {"kind": "Status", "code": code, "message": message or f"fault {code}"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(body, status=code, headers=named)

    return answer


def text(body: bytes) -> Answer:
    """Return an answer that is well as far as HTTP goes."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    return answer


def at(path: str) -> Matches:
    """Match requests whose path ends so."""
    return lambda request: request.path.endswith(path)


def watch_at(path: str) -> Matches:
    """Match watches of a path, not lists, streamed ones neither."""
    return lambda r: (
        r.path.endswith(path)
        and "watch" in r.query
        and "sendInitialEvents" not in r.query
    )


def list_at(path: str) -> Matches:
    """Match lists of a path, streamed ones too; not the question of ``peer``."""
    return lambda r: (
        r.path.endswith(path)
        and ("watch" not in r.query or "sendInitialEvents" in r.query)
        and "metadata.name" not in r.query.get("fieldSelector", "")
    )
