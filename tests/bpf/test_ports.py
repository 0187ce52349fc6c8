"""The gateway's ports: the pod's own where it is free, else each of the range."""

from ipaddress import ip_address

import pytest

from bpf.harness import (
    DROP,
    REDIRECT,
    MakeNode,
    Node,
    Outcome,
    Setup,
    needs_root,
)
from bpf.packets import (
    SCTP_NAME,
    TCP_NAME,
    Packet,
    outbound,
    source_port_of,
)
from bpf.world import POLICY, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import Family, Hook

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD
NEAR_THE_TOP = {
    Family.V4: ("203.0.113.1", 36767, 41944),
    Family.V6: ("2001:db8:113::1", 59928, 35636),
}
"""Server and port of a flow whose hash is near 2^32, and a port late in its walk."""


def receive(node: Node, world: World, packet: Packet) -> Outcome:
    return node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)


def source_port(outcome: Outcome) -> int:
    """Return the source port (TCP, UDP) of a packet without IP options."""
    return source_port_of(outcome.packet)


def test_from_overlay_gives_one_flow_one_port(node: Node, world: World) -> None:
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)

    assert receive(node, world, packet) == receive(node, world, packet)
    assert 2 == len(node.nats())


def test_from_overlay_gives_another_pod_another_port(node: Node, world: World) -> None:
    node.put({world.row(world.OTHER_REMOTE_POD, world.NETWORK): world.via(world.HERE)})
    first = receive(node, world, outbound(TCP_NAME, world.REMOTE_POD, world.SERVER))
    packet = outbound(TCP_NAME, world.OTHER_REMOTE_POD, world.SERVER)
    second = receive(node, world, packet)
    expected = packet.but(source=world.HERE, source_port=source_port(second), ttl=63)

    assert 40000 == source_port(first) != source_port(second) >= 1024
    assert expected.build() == second.packet


def test_from_overlay_finds_every_port_of_the_range_then_drops(
    world: World, make_node: MakeNode
) -> None:
    node = make_node(Setup(ports=(5000, 5063)))
    sent = [
        receive(
            node,
            world,
            outbound(TCP_NAME, world.REMOTE_POD, world.SERVER, port=30000 + i),
        )
        for i in range(65)
    ]

    assert {*range(5000, 5064)} == {source_port(outcome) for outcome in sent[:64]}
    assert DROP == sent[64].verdict
    assert 1 == node.counts()[(Reason.DROP_SNAT_NO_PORT, OUT, POLICY)]


def test_from_overlay_finds_the_last_port_wherever_the_walk_starts(
    node: Node, world: World
) -> None:
    """The tuple's hash is so near 2^32 that a sum with a step could wrap."""
    server, port, last = NEAR_THE_TOP[world.family]
    node.take_ports(ip_address(server), {*range(1024, 65536)} - {last})
    packet = outbound(TCP_NAME, world.REMOTE_POD, server, port=port)
    outcome = receive(node, world, packet)

    assert (REDIRECT, last) == (outcome.verdict, source_port(outcome))


def test_from_overlay_uses_a_taken_port_towards_another_server(
    node: Node, world: World
) -> None:
    receive(node, world, outbound(TCP_NAME, world.REMOTE_POD, world.SERVER))
    node.put({world.row(world.OTHER_REMOTE_POD, world.NETWORK): world.via(world.HERE)})
    other = receive(
        node,
        world,
        outbound(TCP_NAME, world.OTHER_REMOTE_POD, world.OTHER_COVERED_SERVER),
    )

    assert 40000 == source_port(other)


def test_sctp_keeps_its_port_or_is_dropped(node: Node, world: World) -> None:
    """Its checksum covers ports, and is of a kind that no program can mend."""
    node.put({world.row(world.OTHER_REMOTE_POD, world.NETWORK): world.via(world.HERE)})
    receive(node, world, outbound(SCTP_NAME, world.REMOTE_POD, world.SERVER))
    packet = outbound(SCTP_NAME, world.OTHER_REMOTE_POD, world.SERVER)

    assert Outcome(DROP, packet.build(), 0) == receive(node, world, packet)
    assert 1 == node.counts()[(Reason.DROP_SNAT_NO_PORT, OUT, POLICY)]


def test_sctp_from_a_port_of_the_node_itself_is_dropped(
    node: Node, world: World
) -> None:
    node.run(Hook.TO_NETDEV, outbound(SCTP_NAME, world.HERE, world.SERVER).build())
    packet = outbound(SCTP_NAME, world.REMOTE_POD, world.SERVER)

    assert Outcome(DROP, packet.build(), 0) == receive(node, world, packet)


def test_sctp_from_a_port_that_is_not_for_pods_is_dropped(
    node: Node, world: World
) -> None:
    packet = outbound(SCTP_NAME, world.REMOTE_POD, world.SERVER, port=1023)

    assert Outcome(DROP, packet.build(), 0) == receive(node, world, packet)
