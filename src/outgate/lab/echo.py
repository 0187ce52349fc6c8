"""
The server outside the cluster: it answers with the address it saw.

What this is: ``python -m outgate.lab.echo VERSION...``, HTTP on port 80 and UDP on
port 7, for the IP versions named (4, 6).

==============================  ====================================================
request                         answer
==============================  ====================================================
``GET /``                       the client's address and a newline
``GET /tuple``                  ``address:port`` and a newline
``GET /download?bytes=N``       N bytes, always the same ones
``GET /sha256?bytes=N``         the SHA-256 of those, in hex, and a newline
``POST /sha256``                the SHA-256 of the request's body, in hex, and a newline
``GET /hold?seconds=S``         ``address:port`` after S seconds
a UDP datagram to port 7        ``address:port`` and a newline
==============================  ====================================================

What this is not: part of the product.  It knows nothing of the lab either; any
number of connections may be open at once.  An IPv6 address with a port stands in
brackets.
"""

import asyncio
import hashlib
import socket
import sys
from collections.abc import Iterable, Iterator
from typing import cast

from aiohttp import web

CHUNK = hashlib.shake_256(b"outgate lab").digest(1 << 20)
MAX_SECONDS = 600.0
EVERY_ADDRESS = {"4": "0.0.0.0", "6": "::"}


def chunks(count: int) -> Iterator[memoryview]:
    """The *count* bytes of a download, in pieces."""
    whole = memoryview(CHUNK)
    while count > 0:
        yield whole[:count]
        count -= len(CHUNK)


def _peer(request: web.Request) -> tuple[str, int]:
    assert request.transport is not None
    address, port = request.transport.get_extra_info("peername")[:2]
    return address, port


def tuple_text(address: str, port: int) -> str:
    """
    A line that names an address and a port.

    >>> tuple_text("192.0.2.1", 80) + tuple_text("2001:db8::1", 80)
    '192.0.2.1:80\\n[2001:db8::1]:80\\n'
    """
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}\n"


def _byte_count(request: web.Request) -> int:
    text = request.query.get("bytes", "")
    if not text.isdecimal():
        raise web.HTTPBadRequest(text=f"bytes: {text!r} is not a number\n")
    return int(text)


async def answer_address(request: web.Request) -> web.Response:
    return web.Response(text=f"{_peer(request)[0]}\n")


async def answer_tuple(request: web.Request) -> web.Response:
    return web.Response(text=tuple_text(*_peer(request)))


async def answer_later(request: web.Request) -> web.Response:
    try:
        seconds = float(request.query.get("seconds", "1"))
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"seconds: {error}\n") from error
    await asyncio.sleep(min(seconds, MAX_SECONDS))
    return await answer_tuple(request)


async def answer_digest(request: web.Request) -> web.Response:
    count = _byte_count(request)

    def digest() -> str:
        total = hashlib.sha256()
        for chunk in chunks(count):
            total.update(chunk)
        return total.hexdigest()

    return web.Response(text=f"{await asyncio.to_thread(digest)}\n")


async def answer_digest_of_upload(request: web.Request) -> web.Response:
    total = hashlib.sha256()
    async for chunk in request.content.iter_any():
        total.update(chunk)
    return web.Response(text=f"{total.hexdigest()}\n")


async def answer_download(request: web.Request) -> web.StreamResponse:
    count = _byte_count(request)
    response = web.StreamResponse(headers={"Content-Length": str(count)})
    response.content_type = "application/octet-stream"
    await response.prepare(request)
    for chunk in chunks(count):
        await response.write(chunk)
    await response.write_eof()
    return response


class UdpEcho(asyncio.DatagramProtocol):
    """Answers each datagram with its sender's address and port."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(tuple_text(*addr[:2]).encode(), addr)


def application() -> web.Application:
    """The HTTP side."""
    app = web.Application()
    app.router.add_get("/", answer_address)
    app.router.add_get("/tuple", answer_tuple)
    app.router.add_get("/hold", answer_later)
    app.router.add_get("/download", answer_download)
    app.router.add_get("/sha256", answer_digest)
    app.router.add_post("/sha256", answer_digest_of_upload)
    return app


def udp_socket(host: str, port: int) -> socket.socket:
    """A bound socket; one for every IPv6 address leaves IPv4 to another."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    bound.bind((host, port))
    bound.setblocking(False)
    return bound


async def serve(
    versions: Iterable[str], http_port: int = 80, udp_port: int = 7
) -> None:
    """Serve on every address of the IP *versions* until cancelled."""
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    for version in versions:
        host = EVERY_ADDRESS[version]
        datagrams = udp_socket(host, udp_port)
        await loop.create_datagram_endpoint(UdpEcho, sock=datagrams)
        site = web.TCPSite(runner, host, http_port, backlog=1024, reuse_address=True)
        await site.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]))
