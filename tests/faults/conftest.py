"""
A cluster behind an API, a gate before it, and an agent's source that follows it.

With ``OUTGATE_TEST_APISERVER`` (a kubeconfig) the API is that one; else the lab's, in
this process.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from faults.follower import Agent
from faults.gate import Gate
from faults.world import World
from outgate.kubeapi.server import ApiServer
from outgate.source.client import Client
from outgate.source.connection import Connection
from outgate.source.kubeconfig import load
from outgate.source.kubernetes import KubernetesSource
from outgate.source.timing import Timing

FAST = Timing(
    first_wait=0.02,
    longest_wait=0.1,
    missing=0.2,
    missing_wait=0.05,
    short_watch=0.01,
    confirm=0.5,
    open_watch=1.0,
    list_limit=10.0,
    stream_idle=1.0,
    idle=60.0,
    probe=60.0,
)
"""As patient as a test can be: what must not happen by chance is far away."""


@asynccontextmanager
async def serve_api() -> AsyncIterator[Connection]:
    """Serve an API of its own on loopback."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = ApiServer()
    await server.start([listening])
    try:
        yield Connection(f"http://127.0.0.1:{listening.getsockname()[1]}")
    finally:
        await server.stop()


@pytest.fixture
async def upstream() -> AsyncIterator[Connection]:
    """Return the API server behind the gate."""
    kubeconfig = os.environ.get("OUTGATE_TEST_APISERVER")
    if kubeconfig:
        yield load(Path(kubeconfig))
        return
    async with serve_api() as connection:
        yield connection


@pytest.fixture
async def world(upstream: Connection) -> AsyncIterator[World]:
    """Return a cluster behind the API, made directly, not through the gate."""
    async with Client(upstream) as client:
        world = World(client)
        await world.make()
        yield world
        await world.remove()


@pytest.fixture
async def gate(upstream: Connection) -> AsyncIterator[Gate]:
    """Return the gate, open."""
    async with Gate(upstream) as gate:
        yield gate


@asynccontextmanager
async def following(
    connection: Connection, world: World, timing: Timing = FAST
) -> AsyncIterator[Agent]:
    """Follow the cluster through *connection* as the agent of the first node."""
    async with Client(connection) as client:
        source = KubernetesSource(client, world.node, timing=timing)
        task = asyncio.create_task(source.run())
        try:
            yield Agent(source, world.node)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def agent(gate: Gate, world: World) -> AsyncIterator[Agent]:
    """Return an agent behind the gate that has listed everything."""
    async with following(Connection(gate.url), world) as agent:
        await agent.until_complete()
        yield agent
