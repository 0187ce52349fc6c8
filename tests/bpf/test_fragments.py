"""Datagrams in parts: all go the way of the first, in whatever order they come."""

import socket
from collections.abc import Iterator
from itertools import count, permutations

import pytest

from bpf.harness import (
    DROP,
    MARK_OVERLAY,
    MARK_SEEN,
    MARK_TRANSLATED,
    PASS,
    REDIRECT,
    MakeNode,
    Node,
    Outcome,
    Setup,
    needs_root,
)
from bpf.icmp_errors import IcmpError
from bpf.packets import (
    ECHO_NAME,
    TCP_NAME,
    UDP_NAME,
    Packet,
    outbound,
    parts,
    source_port_of,
)
from bpf.tunnel import (
    ROUTER_MAC,
    UPLINK_MAC,
    all_through,
    tunnel_node,
    tunnelled,
)
from bpf.wire import attached, tap
from bpf.world import World, gateway_entries
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.kernel.settings import GatewayPath
from outgate.state.entries import Family, Hook

pytestmark = [needs_root, pytest.mark.kernel]

OUT, IN = MetricDirection.TO_WORLD, MetricDirection.TO_POD
BIG = bytes(range(256)) * 10
LIFETIME = {Family.V4: 30, Family.V6: 60}
MOST_HELD = 16
NUMBERS = count(1000)
"""Ids of datagrams: held parts outlive a test, in maps of the programs' own."""

WITH_PARTS = (UDP_NAME, ECHO_NAME, TCP_NAME)
ORDERS = [list(order) for order in permutations(range(3))]


@pytest.fixture(scope="module")
def one_node() -> Iterator[Node]:
    """A node with a real tunnel for all tests here."""
    with tunnel_node() as node:
        yield node


@pytest.fixture
def wired(one_node: Node, world: World) -> Node:
    """The gateway, with a real tunnel."""
    one_node.reset()
    one_node.put(gateway_entries(world))
    return one_node


def big(protocol: str, source: str, destination: str) -> Packet:
    """Return a packet that is to be sent in three parts."""
    return outbound(protocol, source, destination).but(payload=BIG)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("protocol", WITH_PARTS)
def test_a_pods_parts_reach_its_gateway_in_whatever_order(
    wired: Node, world: World, protocol: str, order: list[int]
) -> None:
    """The first of them first: what is behind it needs to know its ports."""
    packet = big(protocol, world.TUNNELLED_POD, world.SERVER)
    whole = parts(packet.build(), next(NUMBERS))
    seen = all_through(wired, Hook.FROM_CONTAINER, [whole[i] for i in order])
    arrived = [outer.frame for outer in map(tunnelled, seen) if outer]

    assert whole[0] == arrived[0]
    assert sorted(whole) == sorted(arrived)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("protocol", WITH_PARTS)
def test_a_local_pods_parts_are_translated_in_whatever_order(
    wired: Node, world: World, protocol: str, order: list[int]
) -> None:
    packet, number = big(protocol, world.LOCAL_POD, world.SERVER), next(NUMBERS)
    macs = {"source_mac": UPLINK_MAC, "destination_mac": ROUTER_MAC}
    expected = packet.but(source=world.HERE, ttl=63, **macs).build()
    sent = parts(packet.build(), number)
    seen = all_through(wired, Hook.FROM_CONTAINER, [sent[i] for i in order])

    assert sorted(parts(expected, number)) == sorted(seen)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("protocol", WITH_PARTS)
def test_a_replys_parts_reach_the_pods_node_in_whatever_order(
    wired: Node, world: World, protocol: str, order: list[int]
) -> None:
    request = outbound(protocol, world.REMOTE_POD, world.SERVER)
    wired.run(Hook.FROM_OVERLAY, request.build(), tunnel=world.worker)
    reply = request.but(source=world.HERE, payload=BIG).reply()
    expected = reply.but(destination=world.REMOTE_POD, ttl=63).build()
    number = next(NUMBERS)
    sent = parts(reply.build(), number)
    seen = all_through(wired, Hook.FROM_NETDEV, [sent[i] for i in order])
    arrived = [outer.frame for outer in map(tunnelled, seen) if outer]

    assert sorted(parts(expected, number)) == sorted(arrived)


@pytest.mark.parametrize("order", ORDERS)
def test_the_nodes_own_datagrams_are_put_together_in_whatever_order(
    wired: Node, world: World, order: list[int]
) -> None:
    """They come to the egress IP too, but to a socket."""
    packet = outbound(UDP_NAME, world.SERVER, world.HERE).but(
        payload=BIG, destination_port=5353, destination_mac=UPLINK_MAC
    )
    sent = parts(packet.build(), next(NUMBERS))

    assert wired.inside(lambda: _deliver(wired, world, [sent[i] for i in order])) == BIG


def _deliver(node: Node, world: World, frames: list[bytes]) -> bytes:
    family = socket.AF_INET if world.family is Family.V4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as receiver:
        receiver.bind((world.HERE, 5353))
        receiver.settimeout(2)
        with tap("wire") as wire, attached(node, Hook.FROM_NETDEV):
            for frame in frames:
                wire.send(frame)
            return receiver.recv(1 << 16)


@pytest.mark.parametrize("protocol", WITH_PARTS)
def test_parts_out_of_the_tunnel_are_translated(
    node: Node, world: World, protocol: str
) -> None:
    packet, number = big(protocol, world.REMOTE_POD, world.SERVER), next(NUMBERS)
    expected = packet.but(source=world.HERE, ttl=63).build()
    sent = [
        node.run(Hook.FROM_OVERLAY, part, tunnel=world.worker)
        for part in parts(packet.build(), number)
    ]

    assert [
        Outcome(REDIRECT, part, MARK_TRANSLATED) for part in parts(expected, number)
    ] == sent


@pytest.mark.parametrize("protocol", WITH_PARTS)
def test_parts_of_a_reply_are_delivered(
    node: Node, world: World, protocol: str
) -> None:
    request = outbound(protocol, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    reply = request.but(payload=BIG).reply()
    whole = parts(reply.build(), next(NUMBERS))
    sent = [node.run(Hook.FROM_OVERLAY, p, tunnel=world.worker) for p in whole]

    assert [Outcome(REDIRECT, part, 0) for part in whole] == sent


@pytest.mark.parametrize("protocol", WITH_PARTS)
def test_the_stack_path_translates_parts(
    world: World, make_node: MakeNode, protocol: str
) -> None:
    node = make_node(Setup(gateway_path=GatewayPath.STACK))
    packet, number = big(protocol, world.REMOTE_POD, world.SERVER), next(NUMBERS)
    routed = packet.but(ttl=63)
    for part in parts(packet.build(), number):
        handed = node.run(Hook.FROM_OVERLAY, part, tunnel=world.worker)
        assert (PASS, MARK_OVERLAY) == (handed.verdict, handed.mark)
    sent = [
        node.run(Hook.TO_NETDEV, part, mark=MARK_OVERLAY)
        for part in parts(routed.build(), number)
    ]
    expected = parts(routed.but(source=world.HERE).build(), number)

    assert [Outcome(PASS, part, MARK_TRANSLATED) for part in expected] == sent


def test_parts_of_a_flow_whose_port_was_taken_go_along(
    node: Node, world: World
) -> None:
    node.run(Hook.TO_NETDEV, outbound(UDP_NAME, world.HERE, world.SERVER).build())
    packet, number = big(UDP_NAME, world.LOCAL_POD, world.SERVER), next(NUMBERS)
    sent = [
        node.run(Hook.FROM_CONTAINER, part).packet
        for part in parts(packet.build(), number)
    ]
    port = source_port_of(sent[0][:14] + _whole(world, sent[0]))
    expected = packet.but(source=world.HERE, source_port=port, ttl=63).build()

    assert 40000 != port
    assert parts(expected, number) == sent


def _whole(world: World, part: bytes) -> bytes:
    """Return the first part of a datagram without the mark of one."""
    if world.family is Family.V4:
        return part[14:]
    return part[14:20] + part[54:55] + part[21:54] + part[62:]


@pytest.mark.parametrize("pod", ["TUNNELLED_POD", "LOCAL_POD"])
def test_a_part_that_comes_first_is_held_and_counted(
    node: Node, world: World, pod: str
) -> None:
    packet = big(UDP_NAME, world.address(pod), world.SERVER)
    last = parts(packet.build(), next(NUMBERS))[-1]

    assert Outcome(DROP, last, 0) == node.run(Hook.FROM_CONTAINER, last)
    assert [Reason.FRAGMENT_HELD] == [reason for reason, _, _ in node.counts()]
    assert ({}, {}) == (node.flows(), node.nats())
    assert [] == node.events()


def test_parts_are_held_up_to_a_bound(node: Node, world: World) -> None:
    packet = big(UDP_NAME, world.TUNNELLED_POD, world.SERVER)
    later = parts(packet.build(), next(NUMBERS), 64)[1:]
    for part in later[: MOST_HELD + 2]:
        assert DROP == node.run(Hook.FROM_CONTAINER, part).verdict

    held, dropped = Reason.FRAGMENT_HELD, Reason.DROP_FRAGMENT
    assert MOST_HELD == node.counts()[(held, OUT, 77)]
    assert 2 == node.counts()[(dropped, OUT, 77)]


def test_a_part_too_large_to_be_held_is_dropped(node: Node, world: World) -> None:
    packet = big(UDP_NAME, world.TUNNELLED_POD, world.SERVER).but(payload=BIG * 2)
    part = parts(packet.build(), next(NUMBERS), 2048)[1]

    assert DROP == node.run(Hook.FROM_CONTAINER, part).verdict
    assert {(Reason.DROP_FRAGMENT, OUT, 77): 1} == node.counts()


def test_an_id_is_forgotten_when_no_part_can_come_any_more(
    node: Node, world: World
) -> None:
    packet = big(UDP_NAME, world.TUNNELLED_POD, world.SERVER)
    first, second, _ = parts(packet.build(), next(NUMBERS))
    node.run(Hook.FROM_CONTAINER, first)
    reply = packet.but(payload=b"").reply().build()
    node.run(Hook.FROM_OVERLAY, reply, tunnel=world.worker)
    node.age(LIFETIME[world.family] - 1)
    assert REDIRECT == node.run(Hook.FROM_CONTAINER, second).verdict
    node.age(2)

    assert DROP == node.run(Hook.FROM_CONTAINER, second).verdict


def test_parts_that_no_policy_covers_are_left_alone(node: Node, world: World) -> None:
    packet = big(UDP_NAME, world.TUNNELLED_POD, world.OTHER_SERVER)
    for part in reversed(parts(packet.build(), next(NUMBERS))):
        sent = node.run(Hook.FROM_CONTAINER, part)
        assert Outcome(PASS, part, MARK_SEEN) == sent
    assert {} == node.counts()


def test_parts_of_a_reply_to_the_world_are_left_alone(node: Node, world: World) -> None:
    request = outbound(UDP_NAME, world.SERVER, world.TUNNELLED_POD)
    node.run(Hook.TO_CONTAINER, request.build())
    reply = request.but(payload=BIG).reply()
    for part in parts(reply.build(), next(NUMBERS)):
        sent = node.run(Hook.FROM_CONTAINER, part)
        assert Outcome(PASS, part, MARK_SEEN) == sent


def test_a_stranger_cannot_send_parts_into_a_pod(node: Node, world: World) -> None:
    """Neither a first part that answers nothing, nor a later one."""
    packet = big(UDP_NAME, world.SERVER, world.TUNNELLED_POD)
    for part in parts(packet.build(), next(NUMBERS)):
        received = node.run(Hook.FROM_OVERLAY, part, tunnel=world.worker)
        assert DROP == received.verdict


def test_the_guard_lets_no_part_out(node: Node, world: World) -> None:
    packet = big(UDP_NAME, world.LOCAL_POD, world.SERVER)
    for part in parts(packet.build(), next(NUMBERS)):
        assert Outcome(DROP, part, 0) == node.run(Hook.TO_NETDEV, part)
    assert {(Reason.DROP_UNTRANSLATED, OUT, 77): 3} == node.counts()


def test_a_later_part_of_an_unanswered_flow_is_not_dropped_for_being_late(
    node: Node, world: World
) -> None:
    """A second after the first part: such a flow is decided anew once a second."""
    packet = big(UDP_NAME, world.TUNNELLED_POD, world.SERVER)
    first, second, _ = parts(packet.build(), next(NUMBERS))
    node.run(Hook.FROM_CONTAINER, first)
    node.age(2)

    assert Outcome(REDIRECT, second, 0) == node.run(Hook.FROM_CONTAINER, second)


@pytest.mark.parametrize("path", list(GatewayPath))
def test_an_error_about_a_later_part_reaches_its_pod(
    world: World, make_node: MakeNode, path: GatewayPath
) -> None:
    """It quotes no ports, but the id."""
    node = make_node(Setup(gateway_path=path))
    packet, number = big(UDP_NAME, world.REMOTE_POD, world.SERVER), next(NUMBERS)
    for part in parts(packet.build(), number):
        handed = node.run(Hook.FROM_OVERLAY, part, tunnel=world.worker)
        if path is GatewayPath.STACK:
            node.run(Hook.TO_NETDEV, handed.packet, mark=handed.mark)
    error = IcmpError(world.HOP, packet.but(source=world.HERE), "time-exceeded")
    quoted = error.but(part=(number, 1))
    expected = quoted.about(packet).but(ttl=63).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, quoted.build())
