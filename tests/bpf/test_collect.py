"""
What is over goes by itself: the kernel's timer, without an agent, without a packet.

The node's clock runs fast here: 5 jiffies count as a second, so that entries are looked
at each fifth of a second.
"""

import os
from collections.abc import Callable
from functools import partial
from time import monotonic, sleep
from typing import cast

import pytest

from bpf.harness import (
    NAT_TABLES,
    REDIRECT,
    STAMP,
    MakeNode,
    Node,
    Setup,
    needs_root,
)
from bpf.packets import MOVABLE, TCP_NAME, UDP_NAME, outbound
from bpf.world import World
from outgate.kernel import syscall
from outgate.kernel.records import FlowTuple, NatDirection
from outgate.state.entries import Family, Hook

pytestmark = [needs_root, pytest.mark.kernel]

FAST = Setup(jiffies_per_second=5)
COLLECT = cast(Hook, "collect")
"""No hook: it is attached nowhere."""

TWO_LOOKS, PATIENCE = 0.7, 10.0
"""In seconds: in which each entry is looked at twice, and how long a test waits."""


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    """The gateway with its collectors started, and their programs closed again."""
    node = make_node(FAST)
    for family in Family:
        program = node.load(COLLECT, family)
        assert 0 == node.inside(partial(_run_once, program))
    return node


def _run_once(program: int) -> int:
    started = syscall.run_program(program, bytes(64), b"")
    os.close(program)
    return started.verdict


def wait_until(is_true: Callable[[], bool]) -> None:
    """Return when *is_true*, or fail when patience ends."""
    end = monotonic() + PATIENCE
    while not is_true():
        assert monotonic() < end
        sleep(0.05)


@pytest.mark.parametrize("pod", ["LOCAL_POD", "REMOTE_POD", "TUNNELLED_POD"])
@pytest.mark.parametrize("protocol", MOVABLE)
def test_what_is_over_goes(node: Node, world: World, protocol: str, pod: str) -> None:
    packet = outbound(protocol, world.address(pod), world.SERVER).build()
    if pod == "REMOTE_POD":
        node.run(Hook.FROM_OVERLAY, packet, tunnel=world.worker)
    else:
        node.run(Hook.FROM_CONTAINER, packet)
    assert node.flows() or node.nats()
    node.age(301)

    wait_until(lambda: ({}, {}) == (node.flows(), node.nats()))


@pytest.mark.parametrize("protocol", [TCP_NAME, UDP_NAME])
def test_what_lives_stays(node: Node, world: World, protocol: str) -> None:
    """After two looks at it, and also between."""
    packet = outbound(protocol, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    reply = packet.but(source=world.HERE).reply()
    node.run(Hook.FROM_NETDEV, reply.build())
    node.age(200)
    before = (set(node.flows()), set(node.nats()))
    sleep(TWO_LOOKS)

    assert before == (set(node.flows()), set(node.nats()))
    later = node.run(Hook.FROM_CONTAINER, packet.but(flags="A").build())
    assert REDIRECT == later.verdict


def test_a_closed_connection_goes_soon(node: Node, world: World) -> None:
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
    for flags in ("S", "A", "FA"):
        node.run(Hook.FROM_CONTAINER, packet.but(flags=flags).build())
    reply = packet.but(source=world.HERE).reply().but(flags="FA")
    node.run(Hook.FROM_NETDEV, reply.build())
    node.age(11)

    wait_until(lambda: ({}, {}) == (node.flows(), node.nats()))


@pytest.mark.parametrize("half", [NatDirection.FORWARD, NatDirection.REVERSE])
def test_while_one_half_lives_both_stay(
    node: Node, world: World, half: NatDirection
) -> None:
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    pair = set(node.nats())
    with node.table(NAT_TABLES[world.family]) as table:
        for key, value in list(table.rows()):
            if FlowTuple.decode(key).direction is half:
                table.put(key, value[:-STAMP] + bytes(STAMP))
    sleep(TWO_LOOKS)

    assert pair == set(node.nats())


def test_a_port_that_another_flow_has_by_now_stays_its_own(
    node: Node, world: World
) -> None:
    node.put({world.row(world.OTHER_REMOTE_POD, world.NETWORK): world.via(world.HERE)})
    first = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, first.build(), tunnel=world.worker)
    old = set(node.nats())
    node.age(301)
    second = outbound(UDP_NAME, world.OTHER_REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, second.build(), tunnel=world.worker)
    [reverse] = [k for k in node.nats() if k.direction is NatDirection.REVERSE]

    wait_until(lambda: 2 == len(node.nats()))
    sleep(TWO_LOOKS)
    assert reverse in old
    owners = {str(k.source) for k in node.nats()}
    assert {world.OTHER_REMOTE_POD, world.SERVER} == owners


def test_ports_of_the_nodes_sockets_go_too(node: Node, world: World) -> None:
    node.run(Hook.TO_NETDEV, outbound(UDP_NAME, world.HERE, world.SERVER).build())
    assert 1 == len(node.nats())
    node.age(301)

    wait_until(lambda: {} == node.nats())
