"""
Answers that are wrong in every way: no row that is right goes, what changes arrives.
"""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from faults.claims import arrives
from faults.conftest import following, serve_api
from faults.follower import Agent
from faults.gate import Answer, Gate, list_at, status, text, watch_at
from faults.world import NETWORKS, World
from outgate.policy.model import EgressPolicy
from outgate.source.client import Client
from outgate.source.connection import Connection

EXPIRED = (
    b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired",'
    b'"message":"too old resource version"}}'
)
NO_STREAMS = status(422, "sendInitialEvents is forbidden")


def _is_stream(request: web.Request) -> bool:
    return "sendInitialEvents" in request.query


def shrunk(*items: Any, version: int = 10**9) -> Answer:
    """Return a list that is whole and well-formed and holds only *items*."""
    metadata = {"resourceVersion": str(version)}
    listed = json.dumps({"metadata": metadata, "items": items}).encode()
    return text(listed)


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>502 Bad Gateway</html>",
        b'{"type":"ADDED","object":{"metadata":{}}}',
        b'{"type":"ADDED","object":{"metadata":{"name":5}}}',
        b'{"type":"SURPRISE","object":{}}',
        b'{"type":"ERROR","object":{}}',
        b"\x00\xff\xfe",
    ],
)
async def test_garbage_in_a_watch_removes_nothing(
    gate: Gate, world: World, agent: Agent, garbage: bytes
) -> None:
    (stream,) = gate.watches("/pods")
    await stream.send(garbage)
    await agent.until_failing("pods")
    await arrives(agent, world)


@pytest.mark.parametrize(
    "answer", [text(b""), text(b"{}"), text(b'{"items":[]}'), text(b"[1"), status(500)]
)
async def test_garbage_instead_of_a_list_removes_nothing(
    gate: Gate, world: World, agent: Agent, answer: Answer
) -> None:
    gate.fail(_is_stream, NO_STREAMS)
    gate.fail(list_at("/pods"), answer)
    (stream,) = gate.watches("/pods")
    await stream.send(EXPIRED)
    await agent.until_failing("pods")
    gate.repair()
    await arrives(agent, world)


async def test_watch_that_is_too_old_is_listed_anew(
    gate: Gate, world: World, agent: Agent
) -> None:
    fault = gate.fail(watch_at("/pods"), status(410), times=1)
    gate.cut("/pods")
    await agent.while_looking(lambda: fault.hits == 1)
    await arrives(agent, world)


async def test_watch_that_says_it_is_too_old_is_listed_anew(
    gate: Gate, world: World, agent: Agent
) -> None:
    (stream,) = gate.watches("/pods")
    await stream.send(EXPIRED)
    await world.remove_pod("web-0")
    await agent.until(lambda: world.key("web-0") not in agent.pods)

    assert {world.key("web-0")} == agent.removed


async def test_page_that_is_too_old_starts_the_list_over(
    gate: Gate, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outgate.source.informer.PAGE_SIZE", 1)
    gate.fail(_is_stream, NO_STREAMS)
    fault = gate.fail(lambda r: "continue" in r.query, status(410), times=3)
    async with following(Connection(gate.url), world) as agent:
        await agent.until_complete()
        assert fault.hits == 3
        assert {world.key("web-0"), world.key("web-1")} == set(agent.pods)
        await arrives(agent, world)


async def test_api_without_streamed_lists_is_asked_for_pages(
    gate: Gate, world: World
) -> None:
    gate.fail(_is_stream, NO_STREAMS)
    async with following(Connection(gate.url), world) as agent:
        await agent.until_complete()
        await arrives(agent, world)


async def test_list_that_lost_everything_is_not_believed_at_once(
    gate: Gate, world: World, agent: Agent
) -> None:
    gate.fail(_is_stream, NO_STREAMS)
    fault = gate.fail(list_at("/pods"), shrunk())
    (stream,) = gate.watches("/pods")
    await stream.send(EXPIRED)
    error = await agent.until_failing("pods")
    await agent.while_looking(lambda: fault.hits > 1)
    gate.repair()

    assert "lost 2 of 2 objects" in error
    await arrives(agent, world)


async def test_list_that_stays_empty_is_believed_in_the_end(
    gate: Gate, world: World, agent: Agent
) -> None:
    gate.fail(_is_stream, NO_STREAMS)
    gate.fail(list_at("/pods"), shrunk())
    (stream,) = gate.watches("/pods")
    await stream.send(EXPIRED)
    await agent.until(lambda: not agent.pods)

    assert agent.removed == {world.key("web-0"), world.key("web-1")}


@pytest.mark.parametrize("kind", ["nodes", "namespaces"])
async def test_list_without_what_every_cluster_has_is_never_believed(
    gate: Gate, world: World, agent: Agent, kind: str
) -> None:
    gate.fail(_is_stream, NO_STREAMS)
    other = {"metadata": {"name": "other", "uid": "u", "resourceVersion": "1"}}
    fault = gate.fail(list_at(f"/{kind}"), shrunk(other))
    (stream,) = gate.watches(f"/{kind}")
    await stream.send(EXPIRED)
    error = await agent.until_failing(kind)
    await agent.while_looking(lambda: fault.hits > 5)
    gate.repair()

    assert "is this still the same cluster?" in error
    await arrives(agent, world)


async def test_another_cluster_behind_the_address_is_not_listened_to(
    gate: Gate, world: World, agent: Agent
) -> None:
    async with serve_api() as other:
        async with Client(other) as client:
            imposter = World(client)
            imposter.tag, imposter.node = world.tag, world.node
            imposter.namespace, imposter.policy = world.namespace, world.policy
            await imposter.make()
            await imposter.put_policy("198.51.100.0/24")
        own, gate.upstream = gate.upstream, other
        gate.cut()
        error = await agent.until_failing("pods")
        await agent.while_looking(lambda: "another cluster" in _error(agent))
        policy = agent.policies[world.policy_key]
        gate.upstream = own

    assert error
    assert isinstance(policy, EgressPolicy)
    assert [str(n) for n in policy.destinations] == [NETWORKS]
    await arrives(agent, world)


def _error(agent: Agent) -> str:
    return agent.source.errors.get("pods", "")


async def test_storage_that_lost_its_past_is_listed_anew(
    gate: Gate, world: World, agent: Agent
) -> None:
    """
    Restored from a backup, a server counts from an older version.

    A watch from the future is accepted and silent; here it is so for ever.
    """
    (stream,) = gate.watches("/pods")
    mark = {"metadata": {"resourceVersion": "4000000000"}}
    line = json.dumps({"type": "BOOKMARK", "object": mark}).encode()
    await stream.send(line)
    await asyncio.sleep(0.05)
    gate.fail(lambda r: r.query.get("resourceVersion") == "4000000000", _silent)
    gate.cut("/pods")
    await arrives(agent, world)


async def _silent(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await asyncio.sleep(60)
    return response


async def test_events_that_come_twice_or_late_change_nothing(
    gate: Gate, world: World, agent: Agent
) -> None:
    key = world.key("web-0")
    await world.label_pod("web-0", tier="front")
    await agent.until(lambda: agent.pods[key].labels.get("tier") == "front")
    await world.label_pod("web-0", tier="back")
    await agent.until(lambda: agent.pods[key].labels.get("tier") == "back")
    await world.remove_pod("web-1")
    await agent.until(lambda: world.key("web-1") not in agent.pods)
    before = dict(agent.pods)
    (stream,) = gate.watches("/pods")
    for line in list(stream.passed):
        if b'"BOOKMARK"' not in line:
            await stream.send(line)
    agent.removed.clear()
    agent.lost.clear()
    await arrives(agent, world)

    del agent.pods[world.key("new")]
    assert before == agent.pods


async def test_late_end_of_a_former_pod_leaves_its_successor(
    gate: Gate, world: World, agent: Agent
) -> None:
    """A StatefulSet's pod keeps its name and gets another uid."""
    key = world.key("web-0")
    former = agent.pods[key].uid
    await world.remove_pod("web-0")
    await agent.until(lambda: key not in agent.pods)
    await world.add_pod("web-0")
    await agent.until(lambda: key in agent.pods and bool(agent.pods[key].addresses))
    agent.removed.clear()
    agent.lost.clear()
    (stream,) = gate.watches("/pods")
    gone = {
        "name": "web-0",
        "namespace": world.namespace,
        "uid": former,
        "resourceVersion": "4000000000",
    }
    line = json.dumps({"type": "DELETED", "object": {"metadata": gone}})
    await stream.send(line.encode())
    await arrives(agent, world)

    assert key in agent.pods


async def test_event_loop_goes_on_while_a_large_list_arrives(
    gate: Gate, world: World
) -> None:
    """Thousands of pods come in one burst; others have their turn between them."""
    async with following(Connection(gate.url), world) as agent:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        await agent.until_complete()
        before = turns
        (stream,) = gate.watches("/pods")
        pod = json.loads(stream.passed[0])
        lines = []
        pod["object"]["status"] = {}
        for number in range(2000):
            pod["object"]["metadata"] |= {"name": f"p{number}", "uid": f"u{number}"}
            pod["object"]["metadata"]["resourceVersion"] = str(10**9 + number)
            lines.append(json.dumps(pod).encode())
        await stream.send(b"\n".join(lines))
        await agent.until(lambda: len(agent.pods) == 2002)
        counting.cancel()

    assert turns - before >= 10
