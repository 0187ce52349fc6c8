"""
A datagram's first part whose later parts were held, and are no longer there.

Few parts are held, the oldest are lost first, and all of them when a program is
replaced; that they are awaited stays known.
"""

import pytest

from bpf.harness import DROP, REDIRECT, Node, needs_root
from bpf.packets import UDP_NAME, Packet, outbound, parts
from bpf.world import POLICY, World
from outgate.kernel.maps import MapName
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import Family, Hook

pytestmark = [needs_root, pytest.mark.kernel]

OUT, IN = MetricDirection.TO_WORLD, MetricDirection.TO_POD
FRAGMENT_TABLES = {Family.V4: MapName.FRAG_V4, Family.V6: MapName.FRAG_V6}
ID = {Family.V4: (8, 2), Family.V6: (32, 4)}
"""Of a datagram: offset in a row's key, and size in bytes."""

AWAITED, LOST = 7001, 7002
VERDICTS = (DROP, REDIRECT)
"""An answer is redirected."""


def await_lost(node: Node, world: World) -> None:
    """Let the later parts of datagram LOST be awaited, as those of AWAITED are."""
    at, size = ID[world.family]
    with node.table(FRAGMENT_TABLES[world.family]) as table:
        for key, value in list(table.rows()):
            if key[at : at + size] == AWAITED.to_bytes(size, "big"):
                table.put(
                    key[:at] + LOST.to_bytes(size, "big") + key[at + size :], value
                )


def last_hop(node: Node, world: World, hook: Hook, packet: Packet) -> bytes:
    """Return the first part of LOST, which *hook* may not send further."""
    whole = packet.but(payload=bytes(3000), ttl=1)
    assert DROP == node.run(hook, parts(whole.build(), AWAITED)[-1]).verdict
    await_lost(node, world)
    return parts(whole.build(), LOST)[0]


def test_a_pods_first_part_is_settled_though_what_it_released_was_lost(
    node: Node, world: World
) -> None:
    """As a drop: the number of its reason would be a verdict that means pass."""
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER)
    first = last_hop(node, world, Hook.FROM_CONTAINER, packet)
    verdict = node.run(Hook.FROM_CONTAINER, first).verdict

    assert verdict in VERDICTS
    assert 1 == node.counts()[(Reason.DROP_TTL_EXCEEDED, OUT, POLICY)]


def test_a_replys_first_part_is_settled_though_what_it_released_was_lost(
    node: Node, world: World
) -> None:
    request = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, request.build(), tunnel=world.worker)
    reply = request.but(source=world.HERE).reply()
    first = last_hop(node, world, Hook.FROM_NETDEV, reply)
    verdict = node.run(Hook.FROM_NETDEV, first).verdict

    assert verdict in VERDICTS
    assert 1 == node.counts()[(Reason.DROP_TTL_EXCEEDED, IN, POLICY)]
