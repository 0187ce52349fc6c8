"""The client against a real HTTP server on loopback: answers, errors, long lines."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from aiohttp import web

from outgate.errors import SourceError
from outgate.source.client import Client, Connection, open_socket, retry_after


async def _echo(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "method": request.method,
            "query": dict(request.query),
            "type": request.content_type,
            "body": (await request.read()).decode(),
            "authorization": request.headers.get("Authorization"),
        }
    )


async def _refuse(request: web.Request) -> web.Response:
    return web.json_response({"message": "pods is forbidden"}, status=403)


async def _private(request: web.Request) -> web.Response:
    is_right = request.headers.get("Authorization") == "Bearer new"
    return web.Response(text="ok", status=200 if is_right else 401)


async def _lines(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"first":1}\n{"sec')
    await asyncio.sleep(0)
    await response.write(b'ond":"' + b"x" * 300_000 + b'"}\n{"cut')
    return response


async def _cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"first":1}\n{"sec')
    assert request.transport is not None
    request.transport.close()
    return response


async def _text(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _moved(request: web.Request) -> web.Response:
    raise web.HTTPFound("/echo")


@pytest.fixture
async def server() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/echo", _echo)
    app.router.add_get("/refuse", _refuse)
    app.router.add_get("/private", _private)
    app.router.add_get("/lines", _lines)
    app.router.add_get("/cut", _cut)
    app.router.add_get("/text", _text)
    app.router.add_get("/moved", _moved)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_request_sends_parameters_body_and_token(server: str) -> None:
    async with Client(Connection(server, token="secret")) as client:
        answer = await client.request(
            "PATCH",
            "/echo",
            params={"fieldManager": "x"},
            body={"a": 1},
            content_type="application/merge-patch+json",
        )

    assert answer == {
        "method": "PATCH",
        "query": {"fieldManager": "x"},
        "type": "application/merge-patch+json",
        "body": '{"a":1}',
        "authorization": "Bearer secret",
    }


async def test_request_reads_the_token_file_again_each_time(
    server: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    async with Client(Connection(server, token_file=token)) as client:
        token.write_text("one\n")
        first = await client.request("GET", "/echo")
        token.write_text("two\n")
        second = await client.request("GET", "/echo")

    assert (first["authorization"], second["authorization"]) == (
        "Bearer one",
        "Bearer two",
    )


async def test_request_refused_for_its_token_is_made_again_with_the_new_one(
    server: str, tmp_path: Path
) -> None:
    """A file may be replaced within one tick of its clock; the server knows better."""
    token = tmp_path / "token"
    token.write_text("old")
    async with Client(Connection(server, token_file=token)) as client:
        with pytest.raises(SourceError, match="401"):
            await client.request("GET", "/private")
        before = token.stat()
        token.write_text("new")
        os.utime(token, ns=(before.st_atime_ns, before.st_mtime_ns))

        assert await client.request("GET", "/private") == "ok"


async def test_connections_notice_a_host_that_is_gone(server: str) -> None:
    made: list[socket.socket] = []

    def make(address: Any) -> socket.socket:
        made.append(open_socket(address))
        return made[-1]

    with mock.patch("outgate.source.client.open_socket", make):
        async with Client(Connection(server)) as client:
            await client.request("GET", "/echo")
            (own,) = made

            assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


async def test_request_returns_other_types_as_text(server: str) -> None:
    async with Client(Connection(server)) as client:
        assert await client.request("GET", "/text") == "ok"


async def test_request_refused_raises_the_servers_message(server: str) -> None:
    async with Client(Connection(server)) as client:
        with pytest.raises(SourceError, match="403: pods is forbidden") as caught:
            await client.request("GET", "/refuse")

    assert caught.value.status == 403


async def test_request_never_follows_a_redirect(server: str) -> None:
    """A token must not travel to wherever an answer points."""
    async with Client(Connection(server, token="secret")) as client:
        with pytest.raises(SourceError) as caught:
            await client.request("GET", "/moved")

    assert caught.value.status == 302


async def test_request_without_a_server_raises_status_0() -> None:
    async with Client(Connection("http://127.0.0.1:1")) as client:
        with pytest.raises(SourceError) as caught:
            await client.request("GET", "/echo")

    assert caught.value.status == 0


async def test_stream_yields_whole_lines_of_any_length(server: str) -> None:
    lines = []
    async with Client(Connection(server)) as client:
        async for line in client.stream("/lines", {}):
            lines.append(line)

    assert [len(line) for line in lines] == [11, 300_013]


async def test_stream_cut_short_says_so(server: str) -> None:
    """The server's process dies: what came whole counts, the end is an error."""
    async with Client(Connection(server)) as client:
        lines = client.stream("/cut", {})

        assert await anext(lines) == b'{"first":1}'
        with pytest.raises(SourceError, match="the answer was cut short"):
            await anext(lines)


def test_connection_never_shows_its_token() -> None:
    assert "secret" not in repr(Connection("https://api", token="secret"))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "soon"}, 0),
        ({"Retry-After": "-7"}, 0),
        (
            {
                "Retry-After": "Fri, 02 Jan 2026 03:04:15 GMT",
                "Date": "Fri, 02 Jan 2026 03:04:05 GMT",
            },
            10,
        ),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(
    headers: dict[str, str], seconds: float
) -> None:
    """A date counts from the server's own clock: ours may be wrong."""
    assert retry_after(headers, now=10) == seconds
