"""
NAT entries that are another flow's: a full LRU table gives memory away at once.

A program that reads it finds what another's entry says, under this flow's key; here it
is written there.  No packet leaves with another's address, and both flows go on.

Not shown: what needs the memory to change while one program runs.  That is a half that
XDP refreshes or whose MACs it copies, another CPU's half of a flow that both open, and
a flow's own entry (``flow_is_confirmed()``).
"""

import sys

import pytest

from bpf.harness import (
    DROP,
    MARK_OVERLAY,
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
from bpf.nodemaps import NAT_TABLES
from bpf.packets import PROTOCOLS, TCP_NAME, UDP_NAME, Packet, outbound
from bpf.seals import seal_of
from bpf.world import POLICY, World
from outgate.kernel.events import EventKind
from outgate.kernel.reasons import Reason
from outgate.kernel.records import FlowTuple, MetricDirection, NatDirection
from outgate.kernel.settings import GatewayPath
from outgate.state.entries import Family, Hook

pytestmark = [needs_root, pytest.mark.kernel]

PAIRS = [(40000, 40001), (40001, 40000)]

OUT, IN = MetricDirection.TO_WORLD, MetricDirection.TO_POD

FIELDS = {
    "address": {Family.V4: (0, 4), Family.V6: (0, 16)},
    "port": {Family.V4: (4, 6), Family.V6: (16, 18)},
    "seal": {Family.V4: (40, 44), Family.V6: (76, 80)},
}
"""Where they begin and end in ``struct nat_entry``."""


def flow(world: World, port: int, protocol: str = UDP_NAME) -> Packet:
    """Return a packet of a pod of another node."""
    return outbound(protocol, world.REMOTE_POD, world.SERVER, port=port)


def send(node: Node, world: World, packet: Packet) -> Outcome:
    return node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)


def answer(node: Node, world: World, packet: Packet) -> Outcome:
    """Let the server answer; a pod's port is kept, so that it is the packet's."""
    return node.run(Hook.FROM_NETDEV, packet.but(source=world.HERE).reply().build())


def to_world(world: World, packet: Packet) -> Outcome:
    sent = packet.but(source=world.HERE, ttl=63).build()
    return Outcome(REDIRECT, sent, MARK_TRANSLATED)


def to_pod(packet: Packet) -> Outcome:
    return Outcome(REDIRECT, packet.reply().but(ttl=63).build(), 0)


def halves(node: Node, world: World, half: NatDirection) -> dict[int, bytes]:
    """Return keys, by the pod's port, which is the egress IP's too."""
    with node.table(NAT_TABLES[world.family]) as table:
        keys = {raw: FlowTuple.decode(raw) for raw, _ in table.rows()}
    forward = half is NatDirection.FORWARD
    return {
        key.source_port if forward else key.destination_port: raw
        for raw, key in keys.items()
        if key.direction is half
    }


def give_away(
    node: Node, world: World, half: NatDirection, port: int, to: int
) -> bytes:
    """Let the entry of the flow from *port* become that of *to*; returns its key."""
    keys = halves(node, world, half)
    with node.table(NAT_TABLES[world.family]) as table:
        table.put(keys[port], table.get(keys[to]))
    return keys[port]


def change(node: Node, world: World, half: NatDirection, field: str, bit: int) -> None:
    """Change a bit of the entry of the only flow."""
    (key,) = halves(node, world, half).values()
    start, end = FIELDS[field][world.family]
    with node.table(NAT_TABLES[world.family]) as table:
        value = bytearray(table.get(key))
        value[start + bit // 8 % (end - start)] ^= 1 << bit % 8
        table.put(key, bytes(value))


def drops(node: Node, direction: MetricDirection) -> int:
    counts = node.counts().items()
    return sum(
        packets
        for (reason, towards, _), packets in counts
        if (reason, towards) == (Reason.DROP_WRONG_ENTRY, direction)
    )


@pytest.mark.parametrize(("port", "other"), PAIRS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_packet_leaves_as_another_flow(
    node: Node, world: World, protocol: str, port: int, other: int
) -> None:
    mine, others = (flow(world, number, protocol) for number in (port, other))
    for packet in (mine, others):
        assert to_world(world, packet) == send(node, world, packet)
    key = give_away(node, world, NatDirection.FORWARD, port, other)

    assert Outcome(DROP, mine.build(), 0) == send(node, world, mine)
    assert drops(node, OUT) == 1
    assert key not in halves(node, world, NatDirection.FORWARD).values()
    for packet in (mine, others):
        assert to_world(world, packet) == send(node, world, packet)
        assert to_pod(packet) == answer(node, world, packet)
    assert drops(node, OUT) == 1


@pytest.mark.parametrize(("port", "other"), PAIRS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_reply_goes_to_another_flow(
    node: Node, world: World, protocol: str, port: int, other: int
) -> None:
    mine, others = (flow(world, number, protocol) for number in (port, other))
    for packet in (mine, others):
        send(node, world, packet)
    give_away(node, world, NatDirection.REVERSE, port, other)
    reply = mine.but(source=world.HERE).reply().build()

    for _ in range(2):
        # Not the host's either, which would reset the connection.
        assert Outcome(DROP, reply, 0) == answer(node, world, mine)
    node.age(2)
    for packet in (mine, others):
        assert to_world(world, packet) == send(node, world, packet)
        assert to_pod(packet) == answer(node, world, packet)
    assert drops(node, IN) == 2


@pytest.mark.parametrize("is_answered", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pod_that_speaks_first_keeps_its_port(
    node: Node, world: World, protocol: str, is_answered: bool
) -> None:
    """What lies there for its replies is nobody's."""
    mine, others = (flow(world, port, protocol) for port in (40000, 40001))
    for packet in (mine, others):
        send(node, world, packet)
        if is_answered:
            answer(node, world, packet)
    node.age(2)
    give_away(node, world, NatDirection.REVERSE, 40000, 40001)

    for packet in (mine, others):
        assert to_world(world, packet) == send(node, world, packet)
        assert to_pod(packet) == answer(node, world, packet)
    assert (drops(node, OUT), drops(node, IN)) == (0, 0)


def test_a_flow_without_any_half_of_its_own_keeps_its_port(
    node: Node, world: World
) -> None:
    mine, others = flow(world, 40000), flow(world, 40001)
    for packet in (mine, others):
        send(node, world, packet)
    for half in (NatDirection.FORWARD, NatDirection.REVERSE):
        give_away(node, world, half, 40000, 40001)

    assert Outcome(DROP, mine.build(), 0) == send(node, world, mine)
    assert to_world(world, mine) == send(node, world, mine)
    assert to_pod(mine) == answer(node, world, mine)


def test_a_socket_of_the_node_is_not_refused_for_a_wrong_entry(
    node: Node, world: World
) -> None:
    for port in (40000, 40001):
        send(node, world, flow(world, port))
    give_away(node, world, NatDirection.REVERSE, 40000, 40001)
    own = outbound(UDP_NAME, world.HERE, world.SERVER, port=40000).build()

    for _ in range(2):
        assert Outcome(PASS, own, 0) == node.run(Hook.TO_NETDEV, own)


def test_the_collector_tells_of_no_wrong_entry(node: Node, world: World) -> None:
    """Of a flow whose forward half is a reverse half, a pod's address would be told."""
    send(node, world, flow(world, 40000))
    (forward,) = halves(node, world, NatDirection.FORWARD).values()
    (reverse,) = halves(node, world, NatDirection.REVERSE).values()
    with node.table(NAT_TABLES[world.family]) as table:
        table.put(forward, table.get(reverse))
    node.age(301)
    node.events()
    node.collect()

    assert node.nats() == {}
    (released,) = node.events()
    assert (released.kind, str(released.translated), released.translated_port) == (
        EventKind.NAT_RELEASED,
        world.HERE,
        40000,
    )


@pytest.mark.parametrize("seconds", [0, 2])
@pytest.mark.parametrize("bit", [0, 7, 11, 29])
@pytest.mark.parametrize("field", FIELDS)
def test_a_changed_bit_breaks_the_seal(
    node: Node, world: World, field: str, bit: int, seconds: int
) -> None:
    """Also where the flow is to be refreshed."""
    packet = flow(world, 40000)
    send(node, world, packet)
    answer(node, world, packet)
    node.age(seconds)
    change(node, world, NatDirection.FORWARD, field, bit)
    assert Outcome(DROP, packet.build(), 0) == send(node, world, packet)
    send(node, world, packet)
    answer(node, world, packet)
    node.age(seconds)
    change(node, world, NatDirection.REVERSE, field, bit)
    reply = packet.but(source=world.HERE).reply().build()

    assert Outcome(DROP, reply, 0) == answer(node, world, packet)
    assert (drops(node, OUT), drops(node, IN)) == (1, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_seal_is_what_tests_take_for_one(
    node: Node, world: World, protocol: str
) -> None:
    """Else what they write is broken, and tells nothing."""
    send(node, world, flow(world, 40000, protocol))
    with node.table(NAT_TABLES[world.family]) as table:
        rows = dict(table.rows())
    for key, value in rows.items():
        address, port, seal = (
            value[slice(*places[world.family])] for places in FIELDS.values()
        )

        assert seal_of(key, address, port).to_bytes(4, sys.byteorder) == seal
    assert len(rows) == 2


def test_a_refreshed_or_rebuilt_half_is_sealed(node: Node, world: World) -> None:
    packet = flow(world, 40000)
    send(node, world, packet)
    for half in NatDirection.FORWARD, NatDirection.REVERSE:
        for lost in (False, True):
            node.age(2)
            if lost:
                node.forget_nat({key for key in node.nats() if key.direction is half})
            if half is NatDirection.FORWARD:
                assert to_pod(packet) == answer(node, world, packet)
            assert to_world(world, packet) == send(node, world, packet)
            assert to_pod(packet) == answer(node, world, packet)

    assert (drops(node, OUT), drops(node, IN)) == (0, 0)


def test_no_error_from_outside_goes_to_another_flow(node: Node, world: World) -> None:
    mine, others = flow(world, 40000), flow(world, 40001)
    for packet in (mine, others):
        send(node, world, packet)
    give_away(node, world, NatDirection.REVERSE, 40000, 40001)
    error = IcmpError(world.HOP, mine.but(source=world.HERE)).build()

    assert Outcome(DROP, error, 0) == node.run(Hook.FROM_NETDEV, error)
    assert drops(node, IN) == 1


def test_no_error_of_a_pod_leaves_as_another_flow(node: Node, world: World) -> None:
    mine, others = flow(world, 40000), flow(world, 40001)
    for packet in (mine, others):
        send(node, world, packet)
    give_away(node, world, NatDirection.FORWARD, 40000, 40001)
    error = IcmpError(mine.source, mine.reply(), "port-unreachable").build()
    seen = node.run(Hook.FROM_OVERLAY, error, tunnel=world.worker)

    assert Outcome(DROP, error, 0) == seen
    assert drops(node, OUT) == 1


def test_no_packet_by_the_hosts_stack_leaves_as_another_flow(
    make_node: MakeNode, world: World
) -> None:
    node = make_node(Setup(gateway_path=GatewayPath.STACK))
    mine, others = (
        outbound(TCP_NAME, world.LOCAL_POD, world.SERVER, port=port)
        for port in (40000, 40001)
    )
    for packet in (mine, others):
        node.run(Hook.FROM_CONTAINER, packet.build())
        node.run(Hook.TO_NETDEV, packet.build(), mark=MARK_OVERLAY)
    give_away(node, world, NatDirection.FORWARD, 40000, 40001)
    seen = node.run(Hook.TO_NETDEV, mine.build(), mark=MARK_OVERLAY)

    assert (seen.verdict, seen.packet) == (DROP, mine.build())
    assert node.counts()[(Reason.DROP_WRONG_ENTRY, OUT, POLICY)] == 1
