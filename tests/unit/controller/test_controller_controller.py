"""Whole controllers against a whole API on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from outgate.agent import reporter
from outgate.controller import controller as module
from outgate.controller.config import load_config
from outgate.controller.controller import Controller
from outgate.controller.election import Times
from outgate.controller.freshness import Freshness
from outgate.source.client import Client, Connection
from outgate.state.entries import Seconds
from unit.controller.api import until, until_read
from unit.controller.cluster import (
    EGRESS,
    GATEWAYS,
    NAT,
    Agent,
    gateway_policy,
    make_node,
    make_pod,
)

QUICK = Times(Seconds(1.0), Seconds(0.6), Seconds(0.05))
PATIENCE = Seconds(0.5)


class World:
    """Three nodes of which two may be gateways, one pod, and their agents."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.agents = {
            name: Agent(client, name, f"192.0.2.{number}")
            for number, name in enumerate(("n1", "n2", "n3"), 1)
        }

    async def build(self) -> None:
        for name, agent in self.agents.items():
            labels = EGRESS if name != "n1" else {}
            await make_node(self.client, name, agent.address, labels)
        await make_pod(self.client, "web-1", "n1", "10.0.1.7")

    async def report(self) -> None:
        """Let agents report as fast as they are looked at."""
        while True:
            for agent in self.agents.values():
                await agent.look()
            await asyncio.sleep(0.02)

    async def apply(self, policy: dict[str, Any], path: str = GATEWAYS) -> Any:
        made = await self.client.request("POST", path, body=policy)
        return {**made, "kind": policy["kind"]}

    async def until(
        self,
        claim: Callable[[dict[str, Any]], object],
        name: str = "web",
        path: str = GATEWAYS,
    ) -> dict[str, Any]:
        """Return the status of a policy once *claim* holds of it."""
        found = await until_read(
            self.client, f"{path}/{name}", lambda o: claim(o.get("status") or {})
        )
        return dict(found["status"])


@pytest.fixture
async def world(
    client: Client, crds: None, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(reporter, "RENEW_SECONDS", 0.1)
    world = World(client)
    await world.build()
    task = asyncio.create_task(world.report())
    yield world
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Running:
    """A controller in a task of its own, with a connection of its own."""

    def __init__(self, controller: Controller, task: asyncio.Task[None]) -> None:
        self.controller = controller
        self.task = task

    async def die(self) -> None:
        """End as ``kill -9`` does: the Lease stays as it is."""
        self.controller._lease._release = _nothing  # type: ignore[method-assign]
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def _nothing() -> None:
    return None


@asynccontextmanager
async def running(url: str, name: str) -> AsyncIterator[Running]:
    config = load_config({"lease-namespace": "kube-system"}, {})
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(Connection(url)))
        controller = Controller(client, config, name, QUICK, Freshness(PATIENCE))
        stop = asyncio.Event()
        task = asyncio.create_task(controller.run(stop))
        yield Running(controller, task)
        stop.set()
        await asyncio.gather(task, return_exceptions=True)


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


def is_ready(status: dict[str, Any]) -> bool:
    return bool(status.get("summary", {}).get("ready") == "True")


def has_egress_ip(status: dict[str, Any]) -> bool:
    return bool(status.get("summary", {}).get("egressIPs", "-") != "-")


async def test_controller_tells_what_became_of_a_policy(url: str, world: World) -> None:
    policy = await world.apply(gateway_policy())
    async with running(url, "a"):
        status = await world.until(lambda s: s.get("gateways"))
        assert ("False", "Pending") == conditions(status)["Programmed"]
        for name in ("n1", "n2"):
            world.agents[name].program(policy)
        status = await world.until(is_ready)

    assert 1 == status["observedGeneration"]
    assert 1 == status["matchedPods"]
    assert {
        "Accepted": ("True", "Valid"),
        "GatewaySelected": ("True", "Selected"),
        "EgressIPReady": ("True", "Ready"),
        "Programmed": ("True", "Programmed"),
    } == conditions(status)
    assert [
        {
            "node": "n2",
            "usable": True,
            "selected": True,
            "reason": "Usable",
            "egressIPs": ["192.0.2.2"],
            "interface": "eth0",
            "tunnelEndpoint": "192.0.2.2",
        }
    ] == status["gateways"]
    assert {
        "ready": "True",
        "reason": "-",
        "gateways": "n2",
        "egressIPs": "192.0.2.2",
    } == status["summary"]


async def test_controller_fills_the_columns_of_kubectl_get(
    url: str, world: World
) -> None:
    policy = await world.apply(gateway_policy())
    for name in ("n1", "n2"):
        world.agents[name].program(policy)
    async with running(url, "a"), aiohttp.ClientSession() as session:
        await world.until(is_ready)
        table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        async with session.get(f"{url}{GATEWAYS}", headers=table) as answer:
            found = await answer.json()

    columns = [c["name"] for c in found["columnDefinitions"] if not c["priority"]]
    row = dict(zip(columns, found["rows"][0]["cells"], strict=False))
    del row["AGE"]
    assert {
        "Name": "web",
        "READY": "True",
        "REASON": "-",
        "GATEWAYS": "n2",
        "EGRESS-IPS": "192.0.2.2",
        "PODS": 1,
    } == row


async def test_controller_moves_pods_from_an_agent_that_fell_silent(
    url: str, world: World
) -> None:
    await world.apply(gateway_policy())
    async with running(url, "a"):
        await world.until(has_egress_ip)
        world.agents["n2"].is_alive = False
        status = await world.until(
            lambda s: (
                s["summary"]["gateways"] == "n3"
                and s["summary"]["egressIPs"] == "192.0.2.3"
            )
        )
        found = [(g["node"], g["usable"], g["reason"]) for g in status["gateways"]]
        assert [("n2", False, "AgentSilent"), ("n3", True, "Usable")] == found

        world.agents["n2"].is_alive = True
        await world.until(lambda s: s["summary"]["gateways"] == "n2")


async def test_controllers_write_one_at_a_time(url: str, world: World) -> None:
    await world.apply(gateway_policy())
    async with running(url, "a") as one:
        await until(lambda: one.controller.is_leader)
        async with running(url, "b") as other:
            await world.until(has_egress_ip)
            await until(lambda: other.controller.why_not_ready() == ())

            assert not other.controller.is_leader
            assert 0 == other.controller.numbers().written
            assert 0 < one.controller.numbers().written


async def test_controller_that_died_is_replaced(url: str, world: World) -> None:
    async with running(url, "a") as one, running(url, "b") as other:
        await until(lambda: one.controller.is_leader or other.controller.is_leader)
        leader, heir = (one, other) if one.controller.is_leader else (other, one)
        await world.apply(gateway_policy())
        await world.until(lambda s: s)
        await leader.die()
        await world.apply(gateway_policy("later"))
        await world.until(lambda s: s, "later")

        assert heir.controller.is_leader


async def test_controller_shows_a_bad_policy_and_what_stays_in_force(
    url: str, world: World
) -> None:
    """Some APIs admit what we cannot use: an older CRD had no such rule."""
    await world.apply(gateway_policy(interface="eth0"))
    async with running(url, "a"):
        await world.until(has_egress_ip)
        await world.client.request(
            "PATCH",
            f"{GATEWAYS}/web",
            body={"spec": {"destinationCIDRs": ["203.0.113.1/24"]}},
            content_type="application/merge-patch+json",
        )
        status = await world.until(lambda s: s["observedGeneration"] == 2)

    accepted = next(c for c in status["conditions"] if c["type"] == "Accepted")
    assert ("False", "Invalid") == (accepted["status"], accepted["reason"])
    assert "spec.destinationCIDRs[0]" in accepted["message"]
    assert "generation 1 stays in force" in accepted["message"]
    assert "n2" == status["summary"]["gateways"]
    assert ("False", "Invalid") == (
        status["summary"]["ready"],
        status["summary"]["reason"],
    )


async def test_controller_tells_changes_as_events(url: str, world: World) -> None:
    nat = {
        "apiVersion": "cilium.io/v2alpha1",
        "kind": "CiliumEgressNATPolicy",
        "metadata": {"name": "nat"},
        "spec": {
            "egress": [{"podSelector": {"matchLabels": {"app": "web"}}}],
            "destinationCIDRs": ["203.0.113.0/24"],
            "egressSourceIP": "198.51.100.99",
        },
    }
    await world.apply(nat, NAT)
    async with running(url, "a"):
        status = await world.until(lambda s: s, "nat", NAT)
        assert ("False", "NoMatchingNode") == conditions(status)["GatewaySelected"]
        found = await until_read(
            world.client,
            "/api/v1/events",
            lambda o: any(e["reason"] == "NoMatchingNode" for e in o["items"]),
        )

    event = next(e for e in found["items"] if e["reason"] == "NoMatchingNode")
    assert "Warning" == event["type"]
    assert "198.51.100.99" in event["message"]
    assert "CiliumEgressNATPolicy" == event["involvedObject"]["kind"]


async def test_controller_deletes_reports_of_nodes_that_are_gone(
    url: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outgate.controller.reports.ORPHAN_SECONDS", 0.2)
    await until_read(world.client, reporter.PATH, lambda o: len(o["items"]) == 3)
    world.agents["n3"].is_alive = False
    await world.client.request("DELETE", "/api/v1/nodes/n3")
    async with running(url, "a"):
        found = await until_read(
            world.client, reporter.PATH, lambda o: len(o["items"]) < 3
        )

    assert ["n1", "n2"] == [item["metadata"]["name"] for item in found["items"]]
