"""
HTTP to a Kubernetes API server: requests, and lines of a watch.

What it is: the only importer of aiohttp's client, and the one place where its
errors become ``SourceError``.

What it is not: it knows no kinds, keeps no objects and never retries: ``watch``
decides when to ask again, callers of single requests decide for themselves.
"""

import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from outgate.errors import ConfigError, SourceError
from outgate.source.connection import ClientCertificate, Connection

__all__ = ["Client", "ClientCertificate", "Connection"]

CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 60.0

IDLE_SECONDS = 150.0
"""A watch silent for longer is half-open: it must be longer than its timeoutSeconds."""


class Client:
    """One session with one API server; an asynchronous context manager."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | bool = True

    @property
    def connection(self) -> Connection:
        """Return where this client speaks to."""
        return self._connection

    async def __aenter__(self) -> Self:
        if self._connection.server.startswith("https:"):
            self._tls = tls_context(self._connection)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), auto_decompress=True
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

    async def fetch(self, path: str, params: Mapping[str, str]) -> bytes:
        """Return the undecoded answer to a GET, for typed decoding of large lists."""
        limits = aiohttp.ClientTimeout(
            total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS
        )
        async with self._open("GET", path, params, limits) as response:
            return await response.read()

    async def stream(
        self, path: str, params: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        """Yield the lines of a watch; ``watch`` without the news of its opening."""
        async with self.watch(path, params) as lines:
            async for line in lines:
                yield line

    @asynccontextmanager
    async def watch(
        self, path: str, params: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """
        Open a watch; inside, the server has accepted it and its lines can be read.

        Shape: lines come without their line ends and may have any length.  A last
        piece without a line end was cut in the middle: it is left out.

        Errors: ``SourceError`` when the server refuses, breaks off, or is silent
        for ``IDLE_SECONDS``.
        """
        limits = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=IDLE_SECONDS
        )
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
        if self._session is None:
            raise RuntimeError("the client is used outside of its context")
        try:
            async with self._session.request(
                method,
                self._connection.server.rstrip("/") + path,
                params=params,
                data=data,
                headers={**self._credentials(), **(headers or {})},
                timeout=limits,
                ssl=self._tls,
                server_hostname=self._connection.server_name,
                allow_redirects=False,
            ) as response:
                if not 200 <= response.status < 300:
                    reason = _refusal(await response.read(), response.reason)
                    status = response.status
                    raise SourceError(f"{method} {path}: {status}: {reason}", status)
                yield response
        except aiohttp.ClientPayloadError as e:
            raise SourceError(f"{method} {path}: the answer was cut short") from e
        except TimeoutError as e:
            raise SourceError(f"{method} {path}: no answer in time") from e
        except (aiohttp.ClientError, OSError) as e:
            reason = str(e) or type(e).__name__
            raise SourceError(f"{method} {path}: {reason}") from e

    def _credentials(self) -> dict[str, str]:
        token = self._connection.token
        if self._connection.token_file is not None:
            try:
                token = self._connection.token_file.read_text().strip()
            except OSError as e:
                path = self._connection.token_file
                raise SourceError(f"read token file {path}: {e.strerror}") from e
        return {"Authorization": f"Bearer {token}"} if token else {}


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    pieces: list[bytes] = []
    async for chunk in response.content.iter_any():
        head, *rest = chunk.split(b"\n")
        pieces.append(head)
        for start in rest:
            line = b"".join(pieces)
            pieces = [start]
            if line:
                yield line


def tls_context(connection: Connection) -> ssl.SSLContext:
    """Return how to check the server's certificate and which one we show."""
    try:
        context = ssl.create_default_context(
            cafile=connection.ca_file, cadata=connection.ca_data
        )
        if connection.client_certificate is not None:
            _load_certificate(context, connection.client_certificate)
    except (OSError, ValueError) as e:
        raise ConfigError(f"certificates for {connection.server}: {e}") from e
    if connection.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_certificate(context: ssl.SSLContext, own: ClientCertificate) -> None:
    """Show *own* to the server; OpenSSL reads it from a file only, so make one."""
    with tempfile.NamedTemporaryFile("w", prefix="outgate-") as file:
        file.write(f"{own.certificate}\n{own.key}")
        file.flush()
        context.load_cert_chain(file.name)


def _refusal(raw: bytes, reason: str | None) -> str:
    """Return the message of a Kubernetes Status, else the start of the answer."""
    try:
        status = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        status = None
    if isinstance(status, dict) and isinstance(status.get("message"), str):
        return str(status["message"])
    return raw[:200].decode(errors="replace").strip() or reason or "refused"
