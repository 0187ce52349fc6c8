"""
HTTP to a Kubernetes API server: requests, and lines of a watch.

What it is: the only importer of aiohttp's client, and the one place where its
errors become ``SourceError``.

What it is not: it knows no kinds, keeps no objects and never retries: ``watch``
decides when to ask again, callers of single requests decide for themselves.
"""

import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from outgate.errors import SourceError
from outgate.source.connection import ClientCertificate, Connection
from outgate.source.credentials import Credentials
from outgate.source.proxies import choose_proxy

__all__ = ["MERGE_PATCH", "Client", "ClientCertificate", "Connection"]

CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 60.0

DEAD_PEER_SECONDS = 30
"""How long a host may not acknowledge anything before its connections are dead."""

READ_BUFFER = 256 * 1024
"""Bytes of one answer that may wait for us, before its server is made to wait."""

MERGE_PATCH = "application/merge-patch+json"
"""The content type of a patch that names what changes (RFC 7386)."""


class Client:
    """One session with one API server; an asynchronous context manager."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._credentials = Credentials(connection)
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None

    async def __aenter__(self) -> Self:
        self._credentials.check()
        self._proxy = self._connection.proxy or choose_proxy(
            self._connection.server, os.environ
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, socket_factory=open_socket),
            # Bytes are cheaper than packing them on one side and unpacking here.
            headers={"Accept-Encoding": "identity"},
            read_bufsize=READ_BUFFER,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> Any:
        """
        Send one request and return its answer: JSON decoded, other types as text.

        Shape: *body* of ``bytes`` is sent as it is, anything else as JSON; None
        sends no body.  An empty answer is None.

        Errors: ``SourceError`` on anything but 2xx, with the server's own message
        and the status; status 0 when there was no answer at all.
        """
        encoded = body if isinstance(body, bytes) else None
        if body is not None and encoded is None:
            encoded = msgspec.json.encode(body)
        headers = {"Content-Type": content_type} if encoded is not None else {}
        limits = aiohttp.ClientTimeout(
            total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS
        )
        async with self._open(
            method, path, params, limits, data=encoded, headers=headers
        ) as response:
            raw = await response.read()
            if not raw:
                return None
            if response.content_type != "application/json":
                return raw.decode(errors="replace")
        try:
            return msgspec.json.decode(raw)
        except msgspec.DecodeError as e:
            raise SourceError(f"{method} {path}: answer is no JSON: {e}") from e

    async def fetch(
        self,
        path: str,
        params: Mapping[str, str],
        *,
        seconds: float = REQUEST_SECONDS,
        idle: float = REQUEST_SECONDS,
    ) -> bytes:
        """
        Return the undecoded answer to a GET, for typed decoding of large lists.

        It must be whole after *seconds*, and the server not silent for *idle* of them.
        """
        limits = aiohttp.ClientTimeout(
            total=seconds, sock_connect=min(CONNECT_SECONDS, seconds), sock_read=idle
        )
        async with self._open("GET", path, params, limits) as response:
            return await response.read()

    async def stream(
        self, path: str, params: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        """Yield the lines of a watch; ``watch`` without the news of its opening."""
        async with self.watch(path, params) as batches:
            async for lines in batches:
                for line in lines:
                    yield line

    @asynccontextmanager
    async def watch(
        self, path: str, params: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        """
        Open a watch; inside, the server has accepted it and its lines can be read.

        Shape: lines come as many at once as have arrived, without their line ends, and
        may have any length.  A last piece without a line end was cut in the middle: it
        is left out.

        Errors: ``SourceError`` when the server refuses or breaks off.  How long it may
        be silent is the caller's to say.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        async with self._open("GET", path, params, limits) as response:
            yield _lines(response)

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        limits: aiohttp.ClientTimeout,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        session = self._session
        if session is None:
            raise RuntimeError("the client is used outside of its context")
        token = await self._credentials.token()
        try:
            for is_last in (False, True):
                async with session.request(
                    method,
                    self._connection.server.rstrip("/") + path,
                    params=params,
                    data=data,
                    headers={**_authorization(token), **(headers or {})},
                    timeout=limits,
                    ssl=await self._credentials.tls() or True,
                    server_hostname=self._connection.server_name,
                    proxy=self._proxy,
                    allow_redirects=False,
                ) as response:
                    if 200 <= response.status < 300:
                        yield response
                        return
                    error = await _refused(f"{method} {path}", response)
                if is_last or error.status != HTTPStatus.UNAUTHORIZED:
                    raise error
                if not await self._credentials.renew(token):
                    raise error
                token = await self._credentials.token()
        except aiohttp.ClientPayloadError as e:
            raise SourceError(f"{method} {path}: the answer was cut short") from e
        except TimeoutError as e:
            raise SourceError(f"{method} {path}: no answer in time") from e
        except (aiohttp.ClientError, OSError) as e:
            reason = str(e) or type(e).__name__
            raise SourceError(f"{method} {path}: {reason}") from e


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    pieces: list[bytes] = []
    async for chunk in response.content.iter_any():
        head, *more = chunk.split(b"\n")
        pieces.append(head)
        if more:
            lines = [b"".join(pieces), *more[:-1]]
            pieces = [more[-1]]
            yield [line for line in lines if line]


def open_socket(
    address: tuple[int, int, int, str, tuple[Any, ...]],
) -> socket.socket:
    """
    Return a socket that tells when the host at its other end is gone.

    Without this a watch, which only reads, waits for ever for a host that lost power:
    keepalive asks while nothing is sent, the user timeout counts what is not
    acknowledged (tcp(7)).
    """
    family, kind, protocol, _, _ = address
    opened = socket.socket(family, kind, protocol)
    every = DEAD_PEER_SECONDS // 6
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, DEAD_PEER_SECONDS // 2)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    opened.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_SECONDS * 1000
    )
    return opened


def _authorization(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


async def _refused(what: str, response: aiohttp.ClientResponse) -> SourceError:
    """Return the error that an answer other than 2xx means."""
    reason = _refusal(await response.read(), response.reason)
    wait = retry_after(response.headers, time.time())
    message = f"{what}: {response.status}: {reason}"
    return SourceError(message, response.status, wait)


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """
    Return for how many seconds a server wants to be left alone, 0 if it did not say.

    Shape: ``Retry-After`` is seconds or a date (RFC 9110, section 10.2.3).  A date is
    taken against the server's own ``Date``, because clocks differ; *now* (seconds of
    the wall clock) serves where that is missing.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    wanted = _read_date(text)
    if wanted is None:
        return 0.0
    told = _read_date(headers.get("Date", ""))
    return max(0.0, wanted.timestamp() - (told.timestamp() if told else now))


def _read_date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None


def _refusal(raw: bytes, reason: str | None) -> str:
    """Return the message of a Kubernetes Status, else the start of the answer."""
    try:
        status = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        status = None
    if isinstance(status, dict) and isinstance(status.get("message"), str):
        return str(status["message"])
    return raw[:200].decode(errors="replace").strip() or reason or "refused"
