"""Silence of agents, as the API itself confirms it."""

from dataclasses import replace
from typing import Any

import pytest

from outgate.agent.reporter import PATH
from outgate.controller import reports as module
from outgate.controller.freshness import PATIENCE, Freshness
from outgate.controller.reports import Reports
from outgate.controller.statuses import Statuses
from outgate.errors import SourceError
from outgate.policy.health import Life
from outgate.policy.model import (
    ClusterChanges,
    EgressPolicy,
    GatewayOnNodes,
    Node,
)
from outgate.policy.reports import NodeReport
from outgate.policy.selectors import Selector
from outgate.source.client import Client
from outgate.source.peer import Peer
from outgate.state.entries import NodeName, PolicyId

N1 = NodeName("n1")
POLICY = EgressPolicy(
    kind="CiliumEgressGatewayPolicy",
    name="p",
    uid="u",
    created="",
    id=PolicyId(1),
    rules=(),
    destinations=(),
    gateways=(GatewayOnNodes(Selector(())),),
)
HELD = NodeReport(N1, True, renew_time="2026-01-02T03:04:05.000000Z")


class Deaf:
    """An informer whose watch is open and brings nothing."""

    def __init__(self) -> None:
        self.is_complete = True
        self.items: dict[str, Any] = {}

    def get(self, key: str) -> NodeReport | None:
        return HELD if key == N1 else None


class Clock:
    """A steady clock that stands still until told."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class World:
    """One candidate gateway whose report changed last at 1000."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self.client = client
        self.clock = clock
        self.freshness = Freshness()
        statuses = Statuses(self.freshness)
        changes = ClusterChanges(nodes={N1: Node(N1)}, policies={"k/p": POLICY})
        statuses.change(changes, clock.now)
        self.reports = Reports(client, Peer(client), statuses, self.freshness)
        self.informer = Deaf()
        self.reports.informer = self.informer  # type: ignore[assignment]
        statuses.report(N1, HELD, clock.now)

    async def write(self, report: NodeReport) -> None:
        body = {
            "apiVersion": "outgate.io/v1alpha1",
            "kind": "EgressNode",
            "metadata": {"name": report.node},
        }
        made = await self.client.request("POST", PATH, body=body)
        made["status"] = report.to_json()
        await self.client.request("PUT", f"{PATH}/{report.node}/status", body=made)

    async def life_when_late(self) -> Life:
        """Return what is told of the node once its time is over."""
        self.clock.now += PATIENCE + 1
        await self.reports.look(self.clock.now)
        return self.freshness.life(N1, self.clock.now)


@pytest.fixture
async def world(client: Client, crds: None, monkeypatch: pytest.MonkeyPatch) -> World:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return World(client, clock)


async def test_agent_that_the_api_calls_alive_is_not_silent(world: World) -> None:
    """The watch lags behind: a gateway must not lose its pods by that."""
    await world.write(replace(HELD, renew_time="2026-01-02T03:04:10.000000Z"))

    assert Life.FRESH == await world.life_when_late()


async def test_agent_that_the_api_knows_nothing_new_of_is_silent(world: World) -> None:
    await world.write(HELD)

    assert Life.SILENT == await world.life_when_late()


async def test_agent_whose_report_is_gone_is_silent(world: World) -> None:
    assert Life.SILENT == await world.life_when_late()


async def test_nobody_is_silent_while_the_api_does_not_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*args: Any, **kwargs: Any) -> Any:
        raise SourceError("GET: 503: busy", 503)

    monkeypatch.setattr(world.client, "fetch", refuse)

    assert Life.FRESH == await world.life_when_late()


async def test_nobody_is_silent_while_reports_do_not_reach_us(world: World) -> None:
    world.informer.is_complete = False
    await world.reports.look(world.clock.now)

    assert Life.FRESH == await world.life_when_late()
