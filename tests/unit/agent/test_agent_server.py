import asyncio
import http.client
import socket
from pathlib import Path

import pytest

from outgate.agent.config import load_config
from outgate.agent.server import Answers, serving

ANSWERS = Answers(
    status=dict,
    entries=dict,
    policies=dict,
    metrics=lambda: b"outgate_up 1\n",
    why_not_alive=tuple,
    why_not_ready=tuple,
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def metrics(host: str, port: int) -> bytes:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.mark.parametrize("given", ["", "[::1]", "127.0.0.1"])
async def test_metrics_are_answered_at_the_address_that_is_set(
    tmp_path: Path, given: str
) -> None:
    """Without a host: at all addresses, so that a node with IPv6 alone answers too."""
    port = free_port()
    flags = {
        "node": "n",
        "status-socket": str(tmp_path / "agent.sock"),
        "metrics-address": f"{given}:{port}",
    }
    async with serving(load_config(flags, {}), ANSWERS):
        for host in [given.strip("[]")] if given else ["127.0.0.1", "::1"]:
            found = await asyncio.to_thread(metrics, host, port)

            assert found == b"outgate_up 1\n"
