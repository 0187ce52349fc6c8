"""to-netdev and from-netdev: the gateway's wire, both directions."""

from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, GRE, Ether
from scapy.packet import Raw

from bpf.harness import (
    DROP,
    MARK_OVERLAY,
    MARK_TRANSLATED,
    PASS,
    REDIRECT,
    Node,
    Outcome,
    Setup,
    Wire,
    needs_root,
)
from bpf.packets import (
    ECHO_NAME,
    HOST_MAC,
    POD_MAC,
    PROTOCOLS,
    TCP_NAME,
    UDP_NAME,
    Packet,
    outbound,
)
from bpf.world import (
    ELSEWHERE,
    FREE_POD,
    HERE,
    LOCAL_POD,
    OTHER_SERVER,
    POLICY,
    REMOTE_POD,
    SERVER,
    TUNNELLED_POD,
    UNKNOWN_POD,
    gateway_entries,
)
from outgate.kernel.maps import GatewayPath
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

WORKER = IPv4Address(ELSEWHERE)
OUT = MetricDirection.TO_WORLD
UPLINK_MAC, ROUTER_MAC = "02:00:ac:12:00:05", "02:00:ac:12:00:01"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_to_netdev_translates_what_the_stack_routed(protocol: str) -> None:
    """The stack took one hop already: to-netdev leaves the TTL alone."""
    packet = outbound(protocol, REMOTE_POD, SERVER)
    routed = packet.but(source_mac=UPLINK_MAC, destination_mac=ROUTER_MAC, ttl=63)
    expected = routed.but(source=HERE).build()
    with Node(Setup(gateway_path=GatewayPath.STACK)) as node:
        node.put(gateway_entries())
        node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=WORKER)
        sent = node.run(Hook.TO_NETDEV, routed.build(), mark=MARK_OVERLAY)

        assert Outcome(PASS, expected, MARK_TRANSLATED) == sent
        assert {(Reason.FORWARDED, OUT, POLICY): 1} == node.counts()


def test_to_netdev_drops_a_marked_packet_that_nobody_recorded(node: Node) -> None:
    packet = outbound(TCP_NAME, REMOTE_POD, SERVER).build()
    sent = node.run(Hook.TO_NETDEV, packet, mark=MARK_OVERLAY)

    assert Outcome(DROP, packet, MARK_OVERLAY) == sent
    assert {(Reason.DROP_UNTRANSLATED, OUT, 0): 1} == node.counts()


def test_to_netdev_leaves_translated_packets_alone(node: Node) -> None:
    packet = outbound(TCP_NAME, HERE, SERVER).build()
    sent = node.run(Hook.TO_NETDEV, packet, mark=MARK_TRANSLATED)

    assert Outcome(PASS, packet, MARK_TRANSLATED) == sent
    assert {} == node.nats()


@pytest.mark.parametrize("pod", [LOCAL_POD, TUNNELLED_POD, REMOTE_POD])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_to_netdev_guards_what_nobody_translated(
    node: Node, pod: str, protocol: str
) -> None:
    packet = outbound(protocol, pod, SERVER).build()

    assert Outcome(DROP, packet, 0) == node.run(Hook.TO_NETDEV, packet)
    assert {(Reason.DROP_UNTRANSLATED, OUT, POLICY): 1} == node.counts()


def test_to_netdev_guards_protocols_that_it_cannot_translate(node: Node) -> None:
    frame = bytes(Ether() / IP(src=LOCAL_POD, dst=SERVER) / GRE())

    assert DROP == node.run(Hook.TO_NETDEV, frame).verdict


def test_to_netdev_guards_packets_too_long_to_say_how_long(node: Node) -> None:
    frame = Ether(outbound(TCP_NAME, LOCAL_POD, SERVER).build())
    frame[IP].len = 0
    node.run(Hook.TO_NETDEV, bytes(frame))

    assert {(Reason.DROP_UNTRANSLATED, OUT, POLICY): 1} == node.counts()


def test_to_netdev_guards_what_it_cannot_read(node: Node) -> None:
    frame = bytearray(outbound(TCP_NAME, LOCAL_POD, SERVER).build())
    frame[14] = 0x44

    assert DROP == node.run(Hook.TO_NETDEV, bytes(frame)).verdict
    assert {(Reason.DROP_INVALID, OUT, 0): 1} == node.counts()


def test_to_netdev_guards_against_pods_that_are_not_known_yet(node: Node) -> None:
    node.run(Hook.TO_NETDEV, outbound(TCP_NAME, UNKNOWN_POD, SERVER).build())

    assert {(Reason.DROP_UNKNOWN_POD, OUT, POLICY): 1} == node.counts()


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        (FREE_POD, SERVER),
        (LOCAL_POD, OTHER_SERVER),
        (LOCAL_POD, REMOTE_POD),
        (HERE, ELSEWHERE),
        ("10.0.1.77", SERVER),
        ("192.0.2.50", SERVER),
    ],
    ids=["no-policy", "uncovered", "cluster", "nodes", "routed-pod", "stranger"],
)
def test_to_netdev_leaves_the_rest_alone(
    node: Node, source: str, destination: str
) -> None:
    packet = outbound(TCP_NAME, source, destination).build()

    assert Outcome(PASS, packet, 0) == node.run(Hook.TO_NETDEV, packet)
    assert ({}, {}) == (node.nats(), node.counts())


def test_to_netdev_leaves_other_families_alone(node: Node) -> None:
    frame = bytes(Ether() / ARP())

    assert Outcome(PASS, frame, 0) == node.run(Hook.TO_NETDEV, frame)


def test_to_netdev_lets_replies_of_inbound_flows_out(node: Node) -> None:
    request = outbound(TCP_NAME, SERVER, LOCAL_POD)
    node.run(Hook.TO_CONTAINER, request.build())
    reply = request.reply().build()

    assert Outcome(PASS, reply, 0) == node.run(Hook.TO_NETDEV, reply)


@pytest.mark.parametrize("protocol", [TCP_NAME, UDP_NAME])
def test_a_port_of_the_node_itself_is_not_given_to_a_pod(
    node: Node, protocol: str
) -> None:
    """The egress IP is the node's own address; host traffic shares it."""
    own = outbound(protocol, HERE, SERVER).build()
    passed = node.run(Hook.TO_NETDEV, own)
    packet = outbound(protocol, REMOTE_POD, SERVER)
    translated = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=WORKER)

    assert Outcome(PASS, own, 0) == passed
    assert 40000 != int.from_bytes(translated.packet[34:36], "big")


@pytest.mark.parametrize(
    "answer",
    [
        outbound(TCP_NAME, HERE, SERVER).but(flags="SA"),
        outbound(TCP_NAME, HERE, SERVER).but(flags="RA"),
        outbound(ECHO_NAME, SERVER, HERE).reply(),
        outbound(UDP_NAME, HERE, SERVER, port=53),
    ],
    ids=["accept", "refuse", "echo", "port-not-for-pods"],
)
def test_nobody_outside_can_fill_the_table_by_making_the_node_answer(
    node: Node, answer: Packet
) -> None:
    assert PASS == node.run(Hook.TO_NETDEV, answer.build()).verdict
    assert {} == node.nats()


def test_a_connection_of_the_node_is_known_from_its_middle_too(node: Node) -> None:
    """Its first packets may have left before this program was there."""
    node.run(Hook.TO_NETDEV, outbound(TCP_NAME, HERE, SERVER).but(flags="A").build())

    [entry] = node.nats().values()
    assert entry.is_host_socket


def test_a_port_whose_flow_is_over_may_be_taken_by_the_node(node: Node) -> None:
    packet = outbound(UDP_NAME, REMOTE_POD, SERVER)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=WORKER)
    node.age(301)
    own = outbound(UDP_NAME, HERE, SERVER)
    taken = node.run(Hook.TO_NETDEV, own.build())
    answered = node.run(Hook.FROM_NETDEV, own.reply().build())
    again = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=WORKER)

    assert (PASS, PASS) == (taken.verdict, answered.verdict)
    assert 40000 != int.from_bytes(again.packet[34:36], "big")


def test_a_reply_to_the_node_itself_goes_to_its_stack(node: Node) -> None:
    own = outbound(TCP_NAME, HERE, SERVER)
    node.run(Hook.TO_NETDEV, own.build())
    reply = own.reply().build()

    assert Outcome(PASS, reply, 0) == node.run(Hook.FROM_NETDEV, reply)


def test_a_socket_that_takes_a_pods_port_is_told_by_a_drop(node: Node) -> None:
    packet = outbound(TCP_NAME, REMOTE_POD, SERVER).build()
    node.run(Hook.FROM_OVERLAY, packet, tunnel=WORKER)
    node.run(Hook.TO_NETDEV, outbound(TCP_NAME, HERE, SERVER).build())

    assert 1 == node.counts()[(Reason.DROP_HOST_PORT_TAKEN, OUT, 0)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_netdev_gives_a_reply_its_pod_back(node: Node, protocol: str) -> None:
    """To a pod elsewhere: into the tunnel, MACs left to the tunnel's far end."""
    packet = outbound(protocol, REMOTE_POD, SERVER)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=WORKER)
    reply = packet.but(source=HERE).reply()
    expected = reply.but(destination=REMOTE_POD, ttl=63).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, reply.build())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_netdev_gives_a_reply_to_a_local_pod(node: Node, protocol: str) -> None:
    packet = outbound(protocol, LOCAL_POD, SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    wire = packet.but(
        source=HERE, source_mac=UPLINK_MAC, destination_mac=ROUTER_MAC
    ).reply()
    expected = wire.but(
        destination=LOCAL_POD, ttl=63, source_mac=HOST_MAC, destination_mac=POD_MAC
    ).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, wire.build())


def test_from_netdev_restores_the_port_that_a_collision_changed(node: Node) -> None:
    node.run(Hook.TO_NETDEV, outbound(UDP_NAME, HERE, SERVER).build())
    packet = outbound(UDP_NAME, REMOTE_POD, SERVER)
    sent = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=WORKER).packet
    port = int.from_bytes(sent[34:36], "big")
    reply = packet.but(source=HERE, source_port=port).reply()
    expected = packet.reply().but(ttl=63).build()

    assert expected == node.run(Hook.FROM_NETDEV, reply.build()).packet


def test_from_netdev_keeps_a_zero_udp_checksum(node: Node) -> None:
    packet = outbound(UDP_NAME, REMOTE_POD, SERVER)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=WORKER)
    reply = packet.but(source=HERE).reply().but(zero_checksum=True)
    expected = reply.but(destination=REMOTE_POD, ttl=63).build()

    assert expected == node.run(Hook.FROM_NETDEV, reply.build()).packet


@pytest.mark.parametrize(
    "frame",
    [
        outbound(TCP_NAME, SERVER, HERE).build(),
        outbound(TCP_NAME, SERVER, LOCAL_POD).build(),
        bytes(Ether() / ARP()),
        bytes(Ether() / IP(src=SERVER, dst=HERE) / ICMP(type=3) / Raw(bytes(28))),
    ],
    ids=["to-node", "to-pod", "arp", "icmp-error"],
)
def test_from_netdev_leaves_the_rest_to_the_host(node: Node, frame: bytes) -> None:
    assert Outcome(PASS, frame, 0) == node.run(Hook.FROM_NETDEV, frame)
    assert {} == node.counts()


def test_a_reply_after_the_policy_went_still_reaches_its_pod(node: Node) -> None:
    packet = outbound(TCP_NAME, REMOTE_POD, SERVER)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=WORKER)
    for key in gateway_entries():
        if type(key).__name__ == "PolicyKey":
            node.remove(key)
    reply = packet.but(source=HERE).reply()

    assert REDIRECT == node.run(Hook.FROM_NETDEV, reply.build()).verdict


def test_a_replys_vlan_tag_does_not_go_into_the_tunnel(node: Node) -> None:
    packet = outbound(TCP_NAME, REMOTE_POD, SERVER)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=WORKER)
    reply = packet.but(source=HERE).reply()
    expected = reply.but(destination=REMOTE_POD, ttl=63).build()

    assert Wire(expected, None) == node.send_tagged(Hook.FROM_NETDEV, reply.build(), 5)
