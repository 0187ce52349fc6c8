"""The Lease against a whole API on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from outgate.controller.election import Election, Times
from outgate.controller.lease import Lease
from outgate.source.client import Client
from outgate.state.entries import Seconds
from unit.controller.api import read, until

NAMESPACE = "kube-system"
PATH = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/outgate-controller"
QUICK = Times(Seconds(1.0), Seconds(0.6), Seconds(0.05))


def lease(client: Client, name: str, times: Times = QUICK) -> Lease:
    return Lease(client, NAMESPACE, Election(name, times))


@asynccontextmanager
async def running(lease: Lease) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(lease.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def spec(client: Client) -> dict[str, Any]:
    found = await read(client, PATH)
    return dict(found["spec"])


async def test_lease_is_held_by_one_of_two(client: Client) -> None:
    one, other = lease(client, "a"), lease(client, "b")
    async with running(one), running(other):
        await until(lambda: one.holder and other.holder)

        assert [one.is_leader, other.is_leader].count(True) == 1
        assert one.holder == other.holder


async def test_lease_of_a_leader_that_stops_is_taken_over(client: Client) -> None:
    one, other = lease(client, "a"), lease(client, "b")
    async with running(one) as task:
        await until(lambda: one.is_leader)
        async with running(other):
            await until(lambda: other.holder == "a")
            task.cancel()
            await until(lambda: other.is_leader)

            found = await spec(client)
            assert ("b", 1) == (found["holderIdentity"], found["leaseTransitions"])


async def test_lease_of_a_leader_that_died_is_taken_over_when_it_expired(
    client: Client,
) -> None:
    dead = Election("a", QUICK)
    dead.observe(None, 0.0)
    await lease(client, "a")._attempt()
    other = lease(client, "b")
    async with running(other):
        await until(lambda: other.holder == "a")
        assert not other.is_leader
        await until(lambda: other.is_leader)


async def test_lease_is_not_led_without_an_api(
    client: Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = lease(client, "a")
    async with running(mine):
        await until(lambda: mine.is_leader)

        async def refuse(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(60)

        monkeypatch.setattr(client, "fetch", refuse)
        await until(lambda: not mine.is_leader)
        await until(lambda: mine.error)


async def test_lease_names_what_the_api_refuses(client: Client) -> None:
    stray = Lease(client, "no-such-namespace", Election("a", QUICK))
    async with running(stray):
        await until(lambda: stray.error)

        assert "no-such-namespace" in str(stray.error)
        assert not stray.is_leader
