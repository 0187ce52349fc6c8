"""A node's report against a whole API on loopback."""

import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml

from outgate.agent import reporter as module
from outgate.agent.reporter import PATH, Reporter
from outgate.kubeapi.server import ApiServer
from outgate.policy.reports import NodeReport, PolicyReport
from outgate.source.client import Client, Connection
from outgate.state.entries import InterfaceIndex, NodeName
from outgate.state.facts import Link, NodeFacts

CRD = Path(__file__).parents[3] / "deploy" / "crds" / "egressnodes.yaml"
CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
LINKS = (
    Link("eth0", InterfaceIndex(2), addresses=(ip_address("192.0.2.1"),)),
    Link("veth1", InterfaceIndex(3), kind="veth", peer_elsewhere=True),
)
REPORT = NodeReport(
    node=NodeName("n1"),
    is_ready=True,
    version="1",
    facts=NodeFacts(LINKS, "eth0"),
    policies={"u1": PolicyReport("CiliumEgressNATPolicy", "p", 3, True)},
)


class Clock:
    """A steady clock that stands still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Node:
    """One node, its report of the moment, and the writer of it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.report = REPORT
        self.is_candidate = False
        self.reporter = Reporter(client, lambda: self.report, lambda: self.is_candidate)

    async def status(self) -> dict[str, Any]:
        found = await self.client.request("GET", f"{PATH}/n1")
        return dict(found["status"])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    server = ApiServer()
    sock = socket.create_server(("127.0.0.1", 0))
    await server.start([sock])
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    async with Client(Connection(url)) as client:
        yield client
    await server.stop()


@pytest.fixture
async def node(client: Client, clock: Clock) -> Node:
    await client.request("POST", CRD_PATH, body=yaml.safe_load(CRD.read_text()))
    return Node(client)


async def test_reporter_makes_the_object_that_is_not_there(node: Node) -> None:
    await node.reporter.look()

    status = await node.status()
    assert status["renewTime"].endswith("Z")
    assert {"ipv4": "eth0"} == status["defaultRoute"]
    assert ["eth0"] == [link["name"] for link in status["interfaces"]]
    assert [("p", 3, True)] == [
        (p["name"], p["generation"], p["programmed"]) for p in status["policies"]
    ]


async def test_reporter_writes_nothing_while_nothing_changes(
    node: Node, clock: Clock
) -> None:
    await node.reporter.look()
    before = await node.status()
    clock.now += 60
    await node.reporter.look()

    assert before == await node.status()
    assert 1 == node.reporter.statistics().written


async def test_reporter_renews_while_the_node_is_a_candidate(
    node: Node, clock: Clock
) -> None:
    node.is_candidate = True
    await node.reporter.look()
    before = await node.status()
    clock.now += module.RENEW_SECONDS
    await node.reporter.look()

    after = await node.status()
    assert before["renewTime"] < after.pop("renewTime")
    assert after == {k: v for k, v in before.items() if k != "renewTime"}


async def test_reporter_of_an_agent_that_starts_waits_until_it_is_ready(
    node: Node, clock: Clock
) -> None:
    """A restart moves no pods: what the last agent said stands for a while."""
    node.report = replace(REPORT, is_ready=False, message="no round has ended")
    await node.reporter.look()
    assert 0 == node.reporter.statistics().written

    clock.now += module.START_SECONDS
    await node.reporter.look()
    assert not (await node.status())["ready"]


async def test_reporter_says_what_changed(node: Node, clock: Clock) -> None:
    await node.reporter.look()
    node.report = replace(REPORT, is_ready=False, message="no reconcile round yet")
    clock.now += 1
    await node.reporter.look()

    status = await node.status()
    assert (False, "no reconcile round yet") == (status["ready"], status["message"])


async def test_reporter_names_a_default_route_that_is_gone(
    node: Node, clock: Clock
) -> None:
    await node.reporter.look()
    node.report = replace(REPORT, facts=NodeFacts(LINKS))
    clock.now += 1
    await node.reporter.look()

    assert {} == (await node.status()).get("defaultRoute", {})


async def test_reporter_repeats_itself_now_and_then(node: Node, clock: Clock) -> None:
    """Somebody may have deleted the object; nothing tells the agent so."""
    await node.reporter.look()
    await node.client.request("DELETE", f"{PATH}/n1")
    clock.now += module.REPEAT_SECONDS
    await node.reporter.look()

    assert (await node.status())["ready"]


async def test_reporter_writes_all_when_only_life_was_to_be_told(
    node: Node, clock: Clock
) -> None:
    node.is_candidate = True
    await node.reporter.look()
    await node.client.request("DELETE", f"{PATH}/n1")
    clock.now += module.RENEW_SECONDS
    await node.reporter.look()

    assert (await node.status())["ready"]


async def test_reporter_without_the_crd_waits_and_says_why(
    client: Client, clock: Clock
) -> None:
    node = Node(client)
    await node.reporter.look()
    state = node.reporter.statistics()
    assert 1 == state.failed
    assert "egressnodes.yaml" in (state.error or "")

    await client.request("POST", CRD_PATH, body=yaml.safe_load(CRD.read_text()))
    await node.reporter.look()
    assert 0 == node.reporter.statistics().written, "it waits before it tries again"
    clock.now += module.LONGEST_WAIT
    await node.reporter.look()
    assert None is node.reporter.statistics().error
    assert (await node.status())["ready"]
