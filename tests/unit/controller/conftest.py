"""A whole API on loopback, in this process, and a client of it."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from outgate.kubeapi.server import ApiServer
from outgate.source.client import Client, Connection
from unit.controller.api import CRD_PATH

CRDS = Path(__file__).parents[3] / "deploy" / "crds"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    server = ApiServer()
    sock = socket.create_server(("127.0.0.1", 0))
    await server.start([sock])
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    await server.stop()


@pytest.fixture
async def client(url: str) -> AsyncIterator[Client]:
    async with Client(Connection(url)) as client:
        yield client


@pytest.fixture
async def crds(client: Client) -> None:
    """The CRDs as they are shipped."""
    for file in sorted(CRDS.glob("*.yaml")):
        crd = yaml.safe_load(file.read_text())
        await client.request("POST", CRD_PATH, body=crd)
