"""``outgate controller`` as a process of its own, against an API on loopback."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from outgate.kubeapi.server import ApiServer
from outgate.source.client import Client, Connection

LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/outgate-controller"
RUN = "from outgate.cli.main import run; run()"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    server = ApiServer()
    sock = socket.create_server(("127.0.0.1", 0))
    await server.start([sock])
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    await server.stop()


def kubeconfig(url: str, folder: Path) -> Path:
    file = folder / "kubeconfig"
    context = {"cluster": "c", "user": "u"}
    text = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": context}],
        "current-context": "c",
    }
    file.write_text(yaml.safe_dump(text))
    return file


async def start(*words: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN, "controller", *words, stdout=PIPE, stderr=PIPE
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


async def get(address: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(address) as answer:
        return answer.status, await answer.text()


async def holder(client: Client) -> Any:
    return (await client.request("GET", LEASE))["spec"]["holderIdentity"]


async def test_controller_leads_tells_how_it_is_and_lets_go(
    url: str, tmp_path: Path
) -> None:
    port = free_port()
    process = await start(
        *("--kubeconfig", str(kubeconfig(url, tmp_path))),
        *("--lease-namespace", "kube-system"),
        *("--metrics-address", f"127.0.0.1:{port}"),
    )
    try:
        async with asyncio.timeout(30):
            assert process.stderr is not None
            while b"leader_won" not in await process.stderr.readline():
                pass
        async with Client(Connection(url)) as client:
            assert socket.gethostname() in await holder(client)
            status, numbers = await get(f"http://127.0.0.1:{port}/metrics")
            assert 200 == status
            assert "outgate_controller_leader 1.0" in numbers
            assert (200, "ok\n") == await get(f"http://127.0.0.1:{port}/healthz")

            os.kill(process.pid, signal.SIGTERM)
            async with asyncio.timeout(10):
                assert 0 == await process.wait()
            assert not await holder(client)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_controller_names_a_wrong_setting(tmp_path: Path) -> None:
    process = await start("--lease-namespace", "Not A Name")
    _, said = await process.communicate()

    assert 1 == process.returncode
    assert "--lease-namespace: 'Not A Name' is no name of a namespace" in said.decode()
