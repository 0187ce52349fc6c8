"""The server on the wire, for clients other than kubectl."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import aiohttp
import pytest

from kubectl.driver import start_server
from outgate.kubeapi.backend import BackendError, ExecRequest, ExecSession, LogRequest
from outgate.kubeapi.server import ApiServer

CONFIGS = "/api/v1/namespaces/default/configmaps"


async def started(server: ApiServer) -> str:
    sock = socket.create_server(("127.0.0.1", 0))
    await server.start([sock])
    return f"http://127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    server = ApiServer(history=10)
    async with aiohttp.ClientSession(await started(server)) as session:
        yield session
    await server.stop()


async def make(client: aiohttp.ClientSession, name: str) -> dict[str, Any]:
    async with client.post(CONFIGS, json={"metadata": {"name": name}}) as answer:
        assert answer.status == 201
        made: dict[str, Any] = await answer.json()
        return made


async def read(client: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    async with client.get(path) as answer:
        return answer.status, await answer.json()


async def test_watch_gets_a_change_at_once(client: aiohttp.ClientSession) -> None:
    _, listed = await read(client, CONFIGS)
    version = listed["metadata"]["resourceVersion"]
    async with client.get(f"{CONFIGS}?watch=1&resourceVersion={version}") as watch:
        await make(client, "a")
        line = await asyncio.wait_for(watch.content.readline(), 2)

    event = json.loads(line)
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")


async def test_watch_ends_at_its_timeout(client: aiohttp.ClientSession) -> None:
    query = "watch=1&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion=0"
    async with client.get(f"{CONFIGS}?{query}") as watch:
        lines = [json.loads(line) async for line in watch.content]

    assert [line["type"] for line in lines] == ["BOOKMARK"]


async def test_watch_of_a_forgotten_version_is_410(
    client: aiohttp.ClientSession,
) -> None:
    first = await make(client, "first")
    for number in range(25):
        await make(client, f"n{number}")
    version = first["metadata"]["resourceVersion"]
    async with client.get(f"{CONFIGS}?watch=1&resourceVersion={version}") as watch:
        event = json.loads(await watch.content.readline())

    assert (event["type"], event["object"]["reason"]) == ("ERROR", "Expired")


async def test_list_continued_too_late_is_410(client: aiohttp.ClientSession) -> None:
    await make(client, "a")
    await make(client, "b")
    _, page = await read(client, f"{CONFIGS}?limit=1")
    for number in range(20):
        await make(client, f"n{number}")
        await read(client, f"{CONFIGS}?limit=1")
    token = page["metadata"]["continue"]
    status, body = await read(client, f"{CONFIGS}?limit=1&continue={token}")

    assert (status, body["reason"]) == (410, "Expired")


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/apis/apps/v1/deployments", 404),
        ("GET", f"{CONFIGS}/missing", 404),
        ("PATCH", CONFIGS, 405),
        ("POST", f"{CONFIGS}/a", 405),
        ("GET", "/openapi/v2", 404),
        ("GET", f"{CONFIGS}?fieldSelector=data.x=1", 400),
        ("GET", f"{CONFIGS}?labelSelector=a=b=c", 400),
        ("GET", f"{CONFIGS}?limit=many", 400),
    ],
)
async def test_refusal_is_a_status(
    client: aiohttp.ClientSession, method: str, path: str, code: int
) -> None:
    async with client.request(method, path) as answer:
        body = await answer.json()

    assert (answer.status, body["kind"], body["code"]) == (code, "Status", code)


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("application/json", b"{", 400),
        ("application/json", b"[]", 400),
        ("application/json", b'{"kind":"Pod","apiVersion":"v1"}', 400),
        ("text/plain", b"{}", 415),
        ("application/yaml", b"metadata: {name: from-yaml}", 201),
    ],
)
async def test_body_is_read_by_its_type(
    client: aiohttp.ClientSession, content_type: str, body: bytes, code: int
) -> None:
    headers = {"Content-Type": content_type}
    async with client.post(CONFIGS, data=body, headers=headers) as answer:
        assert answer.status == code


async def test_binding_gives_a_pod_its_node_once(
    client: aiohttp.ClientSession,
) -> None:
    pods = "/api/v1/namespaces/default/pods"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}
    await client.post(pods, json=pod)
    binding = {"target": {"kind": "Node", "name": "n1"}}
    codes = []
    for _ in range(2):
        async with client.post(f"{pods}/p/binding", json=binding) as answer:
            codes.append(answer.status)
    _, bound = await read(client, f"{pods}/p")

    assert codes == [201, 409]
    assert bound["spec"]["nodeName"] == "n1"
    assert bound["status"]["conditions"][0]["type"] == "PodScheduled"


class QuietBackend:
    """Its one log line is followed by silence; ``is_closed`` tells of the end."""

    def __init__(self) -> None:
        self.is_closed = asyncio.Event()

    async def exec(self, request: ExecRequest) -> ExecSession:
        raise BackendError("nothing runs here")

    async def logs(self, request: LogRequest) -> AsyncIterator[bytes]:
        try:
            yield b"hello\n"
            await asyncio.Event().wait()
        finally:
            self.is_closed.set()


async def test_followed_log_ends_with_its_client() -> None:
    backend = QuietBackend()
    server = ApiServer(backend=backend)
    pods = "/api/v1/namespaces/default/pods"
    spec = {"nodeName": "n1", "containers": [{"name": "c"}]}
    async with aiohttp.ClientSession(await started(server)) as client:
        await client.post(pods, json={"metadata": {"name": "p"}, "spec": spec})
        log = await client.get(f"{pods}/p/log?follow=true")
        assert await log.content.readline() == b"hello\n"
        log.close()
        await asyncio.wait_for(backend.is_closed.wait(), 2)
    await server.stop()


async def test_token_is_asked_of_everything_but_health() -> None:
    server = ApiServer(token="secret")
    async with aiohttp.ClientSession(await started(server)) as client:
        wrong = {"Authorization": "Bearer other"}
        right = {"Authorization": "Bearer secret"}
        codes = []
        for path, headers in (
            ("/readyz", {}),
            ("/version", {}),
            ("/api", {}),
            ("/api/v1/nodes", wrong),
            ("/api/v1/nodes", right),
        ):
            async with client.get(path, headers=headers) as answer:
                codes.append(answer.status)
    await server.stop()

    assert codes == [200, 200, 401, 401, 200]


async def test_stop_ends_open_watches() -> None:
    server = ApiServer()
    async with aiohttp.ClientSession(await started(server)) as client:
        watch = await client.get("/api/v1/nodes?watch=1")
        await asyncio.wait_for(server.stop(), 5)
        assert await watch.content.read() == b""


def _call(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=5) as answer:
        return json.load(answer)


def test_killed_server_comes_back_as_it_was(journal: Path) -> None:
    first = start_server(journal)
    made = _call(first.url + CONFIGS, {"metadata": {"name": "kept"}})
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(5)
    second = start_server(journal)
    try:
        found = _call(f"{second.url}{CONFIGS}/kept")
        later = _call(second.url + CONFIGS, {"metadata": {"name": "later"}})
    finally:
        second.stop()

    assert found == made
    versions = [int(one["metadata"]["resourceVersion"]) for one in (made, later)]
    assert versions[1] == versions[0] + 1
