"""
Connections that break in every way: no row that is right goes, what changes arrives.
"""

from dataclasses import replace
from unittest import mock

import pytest

from faults.claims import arrives
from faults.conftest import FAST, following
from faults.follower import Agent
from faults.gate import Gate, status, watch_at
from faults.world import World
from outgate.source.connection import Connection


async def test_api_down_at_the_start_is_waited_for(gate: Gate, world: World) -> None:
    await gate.close()
    async with following(Connection(gate.url), world) as agent:
        error = await agent.until_failing("pods")
        assert not agent.source.is_listed
        assert "Connect" in error
        await gate.open()
        await agent.until_complete()
        await arrives(agent, world)


async def test_api_down_later_removes_nothing(
    gate: Gate, world: World, agent: Agent
) -> None:
    await gate.close()
    await agent.until_failing("pods")
    assert not agent.source.is_complete
    await gate.open()
    await arrives(agent, world)


async def test_deletion_while_the_api_was_down_is_found(
    gate: Gate, world: World, agent: Agent
) -> None:
    await gate.close()
    await agent.until_failing("pods")
    await world.remove_pod("web-0")
    assert not agent.removed
    await gate.open()
    await agent.until(lambda: world.key("web-0") not in agent.pods)

    assert world.key("web-1") in agent.pods


async def test_watch_cut_in_the_middle_of_an_object_loses_no_change(
    gate: Gate, world: World, agent: Agent
) -> None:
    gate.halve_next = "/pods"
    await arrives(agent, world)

    assert not gate.halve_next, "the watch was cut"


async def test_slow_api_is_waited_for(gate: Gate, world: World) -> None:
    """Bytes trickle; as long as objects come, nothing is given up."""
    gate.delay = 0.002
    async with following(Connection(gate.url), world) as agent:
        await agent.until_complete()
        gate.delay = 0
        await arrives(agent, world)


async def test_watch_that_trickles_without_end_is_let_go(
    gate: Gate, world: World
) -> None:
    """Bytes come, but never an object: the watch is opened anew."""
    timing = replace(FAST, idle=0.3)
    async with following(Connection(gate.url), world, timing) as agent:
        await agent.until_complete()
        gate.delay = 0.2
        await world.label_pod("web-0", tier="front")
        gate.cut("/pods")
        await agent.until_failing("pods")
        gate.delay = 0
        await arrives(agent, world)


async def test_half_open_connection_is_noticed_by_its_silence(
    gate: Gate, world: World
) -> None:
    """Nothing passes, nothing ends: the server is asked, and does not answer."""
    timing = replace(FAST, probe=0.2, open_watch=0.2)
    async with following(Connection(gate.url), world, timing) as agent:
        await agent.until_complete()
        gate.freeze()
        await world.add_pod("unseen")
        error = await agent.until_failing("pods")
        assert "the server fell silent" in error or "no answer" in error
        gate.thaw()
        await arrives(agent, world)
        assert world.key("unseen") in agent.pods


async def test_watch_that_hangs_behind_a_living_proxy_is_opened_anew(
    gate: Gate, world: World
) -> None:
    """Other requests are answered; only this connection is dead."""
    timing = replace(FAST, idle=0.3, probe=60)
    async with following(Connection(gate.url), world, timing) as agent:
        await agent.until_complete()
        gate.freeze()
        key = await world.add_pod("unseen")
        gate.thaw_new()
        await agent.until(lambda: key in agent.pods)
        assert not agent.removed


async def test_server_that_asks_for_time_is_left_alone(
    gate: Gate, world: World, agent: Agent
) -> None:
    fault = gate.fail(watch_at("/pods"), status(429, Retry_After="1"), times=1)
    gate.cut("/pods")
    await agent.until(lambda: "fault 429" in agent.source.errors.get("pods", ""))
    before = len(gate.requests)
    await agent.until(lambda: "pods" not in agent.source.errors)
    asked = [r for r in gate.requests[before:] if watch_at("/pods")(r)]

    assert fault.hits == 1
    assert len(asked) == 1, "one try after the wait, none during it"
    await arrives(agent, world)


@pytest.mark.parametrize("code", [401, 403, 404, 429, 500, 503, 504])
async def test_server_that_refuses_for_a_while_removes_nothing(
    gate: Gate, world: World, agent: Agent, code: int
) -> None:
    fault = gate.fail(lambda _: True, status(code))
    gate.cut()
    await agent.until_failing("pods")
    await agent.while_looking(lambda: fault.hits > 20)
    assert not agent.source.is_complete
    gate.repair()
    await arrives(agent, world)


async def test_wall_clock_that_jumps_changes_nothing(
    gate: Gate, world: World, agent: Agent
) -> None:
    with mock.patch("time.time", return_value=4e9):
        await arrives(agent, world)
        gate.cut()
        await agent.until_failing("pods")
    with mock.patch("time.time", return_value=0.0):
        await agent.until_complete()
        await world.label_pod("web-0", tier="front")
        key = world.key("web-0")
        await agent.until(lambda: agent.pods[key].labels.get("tier") == "front")

    assert not agent.removed
