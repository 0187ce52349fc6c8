"""to-netdev and from-netdev: the gateway's wire, both directions."""

from collections.abc import Callable

import pytest
from scapy.layers.l2 import ARP, Ether

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
from bpf.packets import (
    ECHO_NAME,
    HOST_MAC,
    ICMP_NUMBER,
    POD_MAC,
    PROTOCOLS,
    TCP_NAME,
    UDP_NAME,
    Packet,
    contradicting,
    outbound,
    over_ip,
    source_port_of,
    without_length,
)
from bpf.wire import Wire, send_tagged
from bpf.world import POLICY, World, gateway_entries
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.kernel.settings import GatewayPath
from outgate.state.entries import Hook, PolicyKey

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD
UPLINK_MAC, ROUTER_MAC = "02:00:ac:12:00:05", "02:00:ac:12:00:01"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_to_netdev_translates_what_the_stack_routed(
    world: World, make_node: MakeNode, protocol: str
) -> None:
    """The stack took one hop already: to-netdev leaves the TTL alone."""
    packet = outbound(protocol, world.REMOTE_POD, world.SERVER)
    routed = packet.but(source_mac=UPLINK_MAC, destination_mac=ROUTER_MAC, ttl=63)
    expected = routed.but(source=world.HERE).build()
    node = make_node(Setup(gateway_path=GatewayPath.STACK))
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    sent = node.run(Hook.TO_NETDEV, routed.build(), mark=MARK_OVERLAY)

    assert Outcome(PASS, expected, MARK_TRANSLATED) == sent
    assert {(Reason.FORWARDED, OUT, POLICY): 1} == node.counts()


def test_to_netdev_drops_a_marked_packet_that_nobody_recorded(
    node: Node, world: World
) -> None:
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER).build()
    sent = node.run(Hook.TO_NETDEV, packet, mark=MARK_OVERLAY)

    assert Outcome(DROP, packet, MARK_OVERLAY) == sent
    assert {(Reason.DROP_UNTRANSLATED, OUT, 0): 1} == node.counts()


def test_to_netdev_leaves_translated_packets_alone(node: Node, world: World) -> None:
    packet = outbound(TCP_NAME, world.HERE, world.SERVER).build()
    sent = node.run(Hook.TO_NETDEV, packet, mark=MARK_TRANSLATED)

    assert Outcome(PASS, packet, MARK_TRANSLATED) == sent
    assert {} == node.nats()


@pytest.mark.parametrize("pod", ["LOCAL_POD", "TUNNELLED_POD", "REMOTE_POD"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_to_netdev_guards_what_nobody_translated(
    node: Node, world: World, pod: str, protocol: str
) -> None:
    packet = outbound(protocol, world.address(pod), world.SERVER).build()

    assert Outcome(DROP, packet, 0) == node.run(Hook.TO_NETDEV, packet)
    assert {(Reason.DROP_UNTRANSLATED, OUT, POLICY): 1} == node.counts()


def test_to_netdev_guards_protocols_that_it_cannot_translate(
    node: Node, world: World
) -> None:
    frame = over_ip(world.LOCAL_POD, world.SERVER, 47, bytes(4))

    assert DROP == node.run(Hook.TO_NETDEV, frame).verdict


def test_to_netdev_guards_packets_too_long_to_say_how_long(
    node: Node, world: World
) -> None:
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
    node.run(Hook.TO_NETDEV, without_length(packet.build()))

    assert {(Reason.DROP_UNTRANSLATED, OUT, POLICY): 1} == node.counts()


def test_to_netdev_guards_what_it_cannot_read(node: Node, world: World) -> None:
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
    frame = contradicting(packet.build())

    assert DROP == node.run(Hook.TO_NETDEV, frame).verdict
    assert {(Reason.DROP_INVALID, OUT, 0): 1} == node.counts()


def test_to_netdev_guards_against_pods_that_are_not_known_yet(
    node: Node, world: World
) -> None:
    node.run(
        Hook.TO_NETDEV, outbound(TCP_NAME, world.UNKNOWN_POD, world.SERVER).build()
    )

    assert {(Reason.DROP_UNKNOWN_POD, OUT, POLICY): 1} == node.counts()


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("FREE_POD", "SERVER"),
        ("LOCAL_POD", "OTHER_SERVER"),
        ("LOCAL_POD", "REMOTE_POD"),
        ("HERE", "ELSEWHERE"),
        ("ROUTED_POD", "SERVER"),
        ("STRANGER", "SERVER"),
    ],
    ids=["no-policy", "uncovered", "cluster", "nodes", "routed-pod", "stranger"],
)
def test_to_netdev_leaves_the_rest_alone(
    node: Node, world: World, source: str, destination: str
) -> None:
    addresses = (world.address(source), world.address(destination))
    packet = outbound(TCP_NAME, *addresses).build()

    assert Outcome(PASS, packet, 0) == node.run(Hook.TO_NETDEV, packet)
    assert ({}, {}) == (node.nats(), node.counts())


def test_to_netdev_leaves_other_families_alone(node: Node) -> None:
    frame = bytes(Ether() / ARP())

    assert Outcome(PASS, frame, 0) == node.run(Hook.TO_NETDEV, frame)


def test_to_netdev_lets_replies_of_inbound_flows_out(node: Node, world: World) -> None:
    request = outbound(TCP_NAME, world.SERVER, world.LOCAL_POD)
    node.run(Hook.TO_CONTAINER, request.build())
    reply = request.reply().build()

    assert Outcome(PASS, reply, 0) == node.run(Hook.TO_NETDEV, reply)


@pytest.mark.parametrize("protocol", [TCP_NAME, UDP_NAME])
def test_a_port_of_the_node_itself_is_not_given_to_a_pod(
    node: Node, world: World, protocol: str
) -> None:
    """The egress IP is the node's own address; host traffic shares it."""
    own = outbound(protocol, world.HERE, world.SERVER).build()
    passed = node.run(Hook.TO_NETDEV, own)
    packet = outbound(protocol, world.REMOTE_POD, world.SERVER)
    translated = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)

    assert Outcome(PASS, own, 0) == passed
    assert 40000 != source_port_of(translated.packet)


ANSWERS: dict[str, Callable[[World], Packet]] = {
    "accept": lambda w: outbound(TCP_NAME, w.HERE, w.SERVER).but(flags="SA"),
    "refuse": lambda w: outbound(TCP_NAME, w.HERE, w.SERVER).but(flags="RA"),
    "echo": lambda w: outbound(ECHO_NAME, w.SERVER, w.HERE).reply(),
    "port-not-for-pods": lambda w: outbound(UDP_NAME, w.HERE, w.SERVER, port=53),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_nobody_outside_can_fill_the_table_by_making_the_node_answer(
    node: Node, world: World, answer: str
) -> None:
    packet = ANSWERS[answer](world)

    assert PASS == node.run(Hook.TO_NETDEV, packet.build()).verdict
    assert {} == node.nats()


def test_a_connection_of_the_node_is_known_from_its_middle_too(
    node: Node, world: World
) -> None:
    """Its first packets may have left before this program was there."""
    node.run(
        Hook.TO_NETDEV,
        outbound(TCP_NAME, world.HERE, world.SERVER).but(flags="A").build(),
    )

    [entry] = node.nats().values()
    assert entry.is_host_socket


def test_a_port_whose_flow_is_over_may_be_taken_by_the_node(
    node: Node, world: World
) -> None:
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    node.age(301)
    own = outbound(UDP_NAME, world.HERE, world.SERVER)
    taken = node.run(Hook.TO_NETDEV, own.build())
    answered = node.run(Hook.FROM_NETDEV, own.reply().build())
    again = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)

    assert (PASS, PASS) == (taken.verdict, answered.verdict)
    assert 40000 != source_port_of(again.packet)


def test_a_reply_to_the_node_itself_goes_to_its_stack(node: Node, world: World) -> None:
    own = outbound(TCP_NAME, world.HERE, world.SERVER)
    node.run(Hook.TO_NETDEV, own.build())
    reply = own.reply().build()

    assert Outcome(PASS, reply, 0) == node.run(Hook.FROM_NETDEV, reply)


def test_a_socket_that_takes_a_pods_port_is_told_by_a_drop(
    node: Node, world: World
) -> None:
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER).build()
    node.run(Hook.FROM_OVERLAY, packet, tunnel=world.worker)
    node.run(Hook.TO_NETDEV, outbound(TCP_NAME, world.HERE, world.SERVER).build())

    assert 1 == node.counts()[(Reason.DROP_HOST_PORT_TAKEN, OUT, 0)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_netdev_gives_a_reply_its_pod_back(
    node: Node, world: World, protocol: str
) -> None:
    """To a pod elsewhere: into the tunnel, MACs left to the tunnel's far end."""
    packet = outbound(protocol, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    reply = packet.but(source=world.HERE).reply()
    expected = reply.but(destination=world.REMOTE_POD, ttl=63).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, reply.build())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_netdev_gives_a_reply_to_a_local_pod(
    node: Node, world: World, protocol: str
) -> None:
    packet = outbound(protocol, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    wire = packet.but(
        source=world.HERE, source_mac=UPLINK_MAC, destination_mac=ROUTER_MAC
    ).reply()
    expected = wire.but(
        destination=world.LOCAL_POD,
        ttl=63,
        source_mac=HOST_MAC,
        destination_mac=POD_MAC,
    ).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, wire.build())


def test_from_netdev_restores_the_port_that_a_collision_changed(
    node: Node, world: World
) -> None:
    node.run(Hook.TO_NETDEV, outbound(UDP_NAME, world.HERE, world.SERVER).build())
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    sent = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker).packet
    port = source_port_of(sent)
    reply = packet.but(source=world.HERE, source_port=port).reply()
    expected = packet.reply().but(ttl=63).build()

    assert expected == node.run(Hook.FROM_NETDEV, reply.build()).packet


def test_from_netdev_keeps_a_zero_udp_checksum(node: Node, world: World) -> None:
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    reply = packet.but(source=world.HERE).reply().but(zero_checksum=True)
    expected = reply.but(destination=world.REMOTE_POD, ttl=63).build()

    assert expected == node.run(Hook.FROM_NETDEV, reply.build()).packet


def empty_error(world: World) -> bytes:
    """Return an ICMP error (unreachable, time exceeded) that quotes zeros."""
    number, message = ICMP_NUMBER[world.family], bytes([3]) + bytes(7 + world.ip_size)
    return over_ip(world.SERVER, world.HERE, number, message + bytes(8))


NOT_FROM_SERVERS: dict[str, Callable[[World], bytes]] = {
    "to-node": lambda w: outbound(TCP_NAME, w.SERVER, w.HERE).build(),
    "to-pod": lambda w: outbound(TCP_NAME, w.SERVER, w.LOCAL_POD).build(),
    "arp": lambda w: bytes(Ether() / ARP()),
    "icmp-error": empty_error,
}


@pytest.mark.parametrize("what", NOT_FROM_SERVERS)
def test_from_netdev_leaves_the_rest_to_the_host(
    node: Node, world: World, what: str
) -> None:
    frame = NOT_FROM_SERVERS[what](world)

    assert Outcome(PASS, frame, 0) == node.run(Hook.FROM_NETDEV, frame)
    assert {} == node.counts()


def test_a_reply_after_the_policy_went_still_reaches_its_pod(
    node: Node, world: World
) -> None:
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    for key in gateway_entries(world):
        if isinstance(key, PolicyKey):
            node.remove(key)
    reply = packet.but(source=world.HERE).reply()

    assert REDIRECT == node.run(Hook.FROM_NETDEV, reply.build()).verdict


def test_a_replys_vlan_tag_does_not_go_into_the_tunnel(
    node: Node, world: World
) -> None:
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    reply = packet.but(source=world.HERE).reply()
    expected = reply.but(destination=world.REMOTE_POD, ttl=63).build()

    assert Wire(expected, None) == send_tagged(node, Hook.FROM_NETDEV, reply.build(), 5)
