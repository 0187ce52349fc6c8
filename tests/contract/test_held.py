"""Whatever is put, removed or refused: what is remembered is what the maps hold."""

import random
from ipaddress import IPv4Address, IPv4Network

import pytest

from contract.kernel_sides import Side, held_by
from outgate.state.entries import (
    Address,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Key,
    Network,
    NoGateway,
    PolicyEntry,
    PolicyId,
    RowSet,
    RowsKey,
    Value,
)
from outgate.state.plan import diff
from outgate.state.snapshot import Snapshot, weight

PODS = [IPv4Address(f"10.0.1.{i}") for i in range(1, 5)]
NETWORKS = [IPv4Network(f"203.0.{i}.0/24") for i in range(4)]


def any_snapshot(chance: random.Random) -> Snapshot:
    """Return a wish that may be more than there is room for."""
    wish: dict[Key, Value] = {}
    for pod in PODS:
        rows = any_rows(chance)
        if rows:
            wish[RowsKey(pod)] = RowSet(rows)
        if chance.random() < 0.5:
            wish[EndpointKey(pod)] = EndpointEntry(EndpointFlag.POD)
    return wish


def any_rows(chance: random.Random) -> dict[Network, PolicyEntry]:
    return {
        network: NoGateway(PolicyId(chance.randint(1, 2)))
        for network in NETWORKS
        if chance.random() < 0.4
    }


@pytest.mark.parametrize("seed", range(4))
def test_memory_is_what_the_next_agent_finds(side: Side, seed: int) -> None:
    async def body(side: Side) -> None:
        chance = random.Random(seed)
        kernel = await side.start()
        for _ in range(10):
            wish = any_snapshot(chance)
            plan = diff(wish, await held_by(kernel))
            failures = await kernel.apply(plan)
            held = await held_by(kernel)
            kernel = await side.restart(kernel)

            assert held == await held_by(kernel)
            assert failures or held == wish
            assert not unready(held, wish)

    side.run(body)


def unready(held: Snapshot, wish: Snapshot) -> list[Address]:
    """Return the pods that are known although they lack a row."""
    return [
        pod
        for pod in PODS
        if EndpointKey(pod) in held
        and weight(held.get(RowsKey(pod))) < weight(wish.get(RowsKey(pod)))
    ]
