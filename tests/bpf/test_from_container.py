"""from-container: what a pod sends, seen on the host side of its veth."""

from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, GRE, Ether
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

from bpf.harness import (
    DROP,
    MARK_OVERLAY,
    MARK_SEEN,
    PASS,
    REDIRECT,
    Node,
    Outcome,
    Setup,
    Wire,
    needs_root,
)
from bpf.packets import ECHO_NAME, PROTOCOLS, TCP_NAME, UDP_NAME, Packet, outbound
from bpf.world import (
    ELSEWHERE,
    EXCLUDED_SERVER,
    FREE_POD,
    HERE,
    LOCAL_POD,
    NO_EGRESS_IP_SERVER,
    NO_GATEWAY_SERVER,
    OTHER_SERVER,
    POLICY,
    SERVER,
    TUNNELLED_POD,
    UNKNOWN_POD,
    gateway_entries,
    row,
    via,
)
from outgate.kernel.maps import GatewayPath
from outgate.kernel.reasons import Reason
from outgate.kernel.records import FlowDecision, MetricDirection
from outgate.state.entries import EndpointEntry, EndpointFlag, EndpointKey, Hook

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD


def send(node: Node, packet: Packet | bytes, mark: int = 0) -> Outcome:
    raw = packet if isinstance(packet, bytes) else packet.build()
    return node.run(Hook.FROM_CONTAINER, raw, mark=mark)


def untouched(packet: Packet | bytes, verdict: int, mark: int = 0) -> Outcome:
    raw = packet if isinstance(packet, bytes) else packet.build()
    return Outcome(verdict, raw, mark)


def passed(packet: Packet | bytes) -> Outcome:
    """Return that the host's stack got the packet, with the mark for forward-guard."""
    return untouched(packet, PASS, mark=MARK_SEEN)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_container_tunnels_a_covered_flow_untouched(
    node: Node, protocol: str
) -> None:
    packet = outbound(protocol, TUNNELLED_POD, SERVER)

    assert untouched(packet, REDIRECT) == send(node, packet)


def test_from_container_remembers_what_it_decided(node: Node) -> None:
    send(node, outbound(TCP_NAME, TUNNELLED_POD, SERVER))

    [(key, flow)] = node.flows().items()
    assert (str(key.source), key.source_port, str(key.destination)) == (
        *(TUNNELLED_POD, 40000),
        SERVER,
    )
    assert (FlowDecision.TO_GATEWAY, IPv4Address(ELSEWHERE), POLICY, node.uplink) == (
        *(flow.decision, flow.tunnel_endpoint),
        *(flow.policy, flow.ifindex),
    )


def test_from_container_counts_forwarded_packets_by_policy(node: Node) -> None:
    send(node, outbound(UDP_NAME, TUNNELLED_POD, SERVER))
    send(node, outbound(UDP_NAME, TUNNELLED_POD, SERVER))

    assert {(Reason.FORWARDED, OUT, POLICY): 2} == node.counts()


@pytest.mark.parametrize(
    ("pod", "server"),
    [
        (TUNNELLED_POD, OTHER_SERVER),
        (TUNNELLED_POD, EXCLUDED_SERVER),
        (FREE_POD, SERVER),
        (UNKNOWN_POD, OTHER_SERVER),
        ("192.0.2.77", SERVER),
    ],
    ids=["uncovered", "excluded", "no-policy", "unknown-pod-uncovered", "no-pod"],
)
def test_from_container_leaves_uncovered_traffic_alone(
    node: Node, pod: str, server: str
) -> None:
    packet = outbound(TCP_NAME, pod, server)

    assert passed(packet) == send(node, packet)
    assert ({}, {}) == (node.flows(), node.counts())


@pytest.mark.parametrize("destination", ["10.0.1.42", "10.0.2.1"])
def test_from_container_leaves_cluster_traffic_alone(
    node: Node, destination: str
) -> None:
    """The policy covers 10.0.0.0/8, and the pods' networks lie in it."""
    packet = outbound(TCP_NAME, TUNNELLED_POD, destination)

    assert passed(packet) == send(node, packet)


@pytest.mark.parametrize(
    "frame",
    [
        bytes(Ether() / ARP()),
        bytes(Ether() / IPv6(dst="2001:db8::1") / UDP()),
    ],
    ids=["arp", "ipv6"],
)
def test_from_container_leaves_other_families_alone(node: Node, frame: bytes) -> None:
    assert passed(frame) == send(node, frame)


def covered_ip(flags: str = "", frag: int = 0, proto: int | None = None) -> ScapyPacket:
    header = IP(src=TUNNELLED_POD, dst=SERVER, flags=flags, frag=frag)
    if proto is not None:
        header.proto = proto
    return Ether() / header


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (
            outbound(TCP_NAME, UNKNOWN_POD, SERVER).build(),
            Reason.DROP_UNKNOWN_POD,
        ),
        (
            outbound(TCP_NAME, TUNNELLED_POD, NO_GATEWAY_SERVER).build(),
            Reason.DROP_NO_GATEWAY,
        ),
        (
            outbound(TCP_NAME, TUNNELLED_POD, NO_EGRESS_IP_SERVER).build(),
            Reason.DROP_NO_EGRESS_IP,
        ),
        (bytes(covered_ip() / GRE()), Reason.DROP_UNSUPPORTED_PROTOCOL),
        (bytes(covered_ip() / ICMP(type=5) / Raw(bytes(28))), Reason(6)),
        (bytes(covered_ip(frag=10, proto=17) / Raw(bytes(64))), Reason.DROP_FRAGMENT),
        (bytes(covered_ip(flags="MF") / UDP() / Raw(bytes(64))), Reason.DROP_FRAGMENT),
        (bytes(covered_ip(proto=6) / Raw(bytes(12))), Reason.DROP_INVALID),
        (bytes(covered_ip(proto=6)) + bytes(26), Reason.DROP_INVALID),
    ],
    ids=[
        *("unknown-pod", "no-gateway", "no-egress-ip", "gre", "icmp-redirect"),
        *("fragment", "first-fragment", "cut-tcp", "ports-in-padding"),
    ],
)
def test_from_container_drops_what_it_cannot_translate(
    node: Node, frame: bytes, reason: Reason
) -> None:
    assert untouched(frame, DROP) == send(node, frame)
    assert {(reason, OUT, POLICY): 1} == node.counts()
    assert {} == node.flows()


@pytest.mark.parametrize("pod", [TUNNELLED_POD, FREE_POD])
def test_from_container_drops_what_it_cannot_read(node: Node, pod: str) -> None:
    """An IP header that contradicts itself: the kernel would refuse it as well."""
    frame = bytearray(outbound(TCP_NAME, pod, SERVER).build())
    frame[14] = 0x44

    assert untouched(bytes(frame), DROP) == send(node, bytes(frame))
    assert {(Reason.DROP_INVALID, OUT, 0): 1} == node.counts()


def without_length(packet: Packet) -> bytes:
    """Return *packet* as a super-packet of more than 64 KiB says it: total length 0."""
    frame = Ether(packet.build())
    frame[IP].len = 0
    del frame[IP].chksum
    return bytes(frame)


def test_from_container_translates_packets_too_long_to_say_how_long(
    node: Node,
) -> None:
    packet = outbound(TCP_NAME, LOCAL_POD, SERVER)
    translated = without_length(packet.but(source=HERE, ttl=63))

    assert untouched(translated, REDIRECT, mark=0x20) == send(
        node, without_length(packet)
    )


def test_from_container_knows_a_pod_as_soon_as_it_is_entered(node: Node) -> None:
    node.put({row(UNKNOWN_POD, "203.0.113.0/24"): via(ELSEWHERE)})
    packet = outbound(TCP_NAME, UNKNOWN_POD, SERVER)
    before = send(node, packet)
    known = EndpointEntry(EndpointFlag.POD)
    node.put({EndpointKey(IPv4Address(UNKNOWN_POD)): known})

    assert (DROP, REDIRECT) == (before.verdict, send(node, packet).verdict)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_container_translates_where_the_pod_is_on_its_gateway(
    node: Node, protocol: str
) -> None:
    packet = outbound(protocol, LOCAL_POD, SERVER)
    translated = packet.but(source=HERE, ttl=63)

    assert untouched(translated, REDIRECT, mark=0x20) == send(node, packet)


def test_from_container_keeps_a_zero_udp_checksum(node: Node) -> None:
    packet = outbound(UDP_NAME, LOCAL_POD, SERVER).but(zero_checksum=True)

    assert send(node, packet).packet == packet.but(source=HERE, ttl=63).build()


def test_from_container_translates_behind_ip_options(node: Node) -> None:
    packet = outbound(TCP_NAME, LOCAL_POD, SERVER).but(options=bytes([1] * 40))

    assert send(node, packet).packet == packet.but(source=HERE, ttl=63).build()


def test_from_container_sends_through_a_router_that_has_only_ipv6(node: Node) -> None:
    """A route of IPv4 by way of an IPv6 neighbour, as in RFC 5549 fabrics."""
    router = "02:00:00:00:00:06"
    uplink = ("dev", "uplink")
    node.ip("neighbour", "add", "fe80::6", "lladdr", router, *uplink)
    node.ip("-4", "route", "replace", "default", "via", "inet6", "fe80::6", *uplink)
    packet = outbound(UDP_NAME, LOCAL_POD, SERVER).build()
    sent = node.send_tagged(Hook.FROM_CONTAINER, packet, 0)

    assert bytes.fromhex(router.replace(":", "")) == sent.frame[:6]


@pytest.mark.parametrize("server", ["240.1.2.3", "0.1.2.3"])
def test_from_container_covers_every_network_that_the_kernel_routes(
    node: Node, server: str
) -> None:
    node.put({row(TUNNELLED_POD, "0.0.0.0/0"): via(ELSEWHERE)})

    assert REDIRECT == send(node, outbound(UDP_NAME, TUNNELLED_POD, server)).verdict


@pytest.mark.parametrize(
    "server", ["127.0.0.1", "169.254.169.254", "224.0.0.251", "255.255.255.255"]
)
def test_from_container_leaves_what_belongs_to_the_link_or_the_host_alone(
    node: Node, server: str
) -> None:
    node.put({row(TUNNELLED_POD, "0.0.0.0/0"): via(ELSEWHERE)})

    assert PASS == send(node, outbound(UDP_NAME, TUNNELLED_POD, server)).verdict


def test_from_container_drops_what_may_not_travel_further(node: Node) -> None:
    send(node, outbound(TCP_NAME, LOCAL_POD, SERVER).but(ttl=1))

    assert {(Reason.DROP_TTL_EXCEEDED, OUT, POLICY): 1} == node.counts()


def test_from_container_hands_a_local_pod_to_the_stack_where_told() -> None:
    packet = outbound(TCP_NAME, LOCAL_POD, SERVER)
    with Node(Setup(gateway_path=GatewayPath.STACK)) as node:
        node.put(gateway_entries())

        assert untouched(packet, PASS, mark=MARK_OVERLAY) == send(node, packet)


def test_from_container_keeps_a_flow_when_its_policy_goes(node: Node) -> None:
    packet = outbound(TCP_NAME, TUNNELLED_POD, SERVER)
    send(node, packet)
    node.remove(row(TUNNELLED_POD, "203.0.113.0/24"))

    assert REDIRECT == send(node, packet.but(flags="A")).verdict


def test_from_container_decides_anew_when_a_closed_tuple_is_used_again(
    node: Node,
) -> None:
    packet = outbound(TCP_NAME, TUNNELLED_POD, SERVER)
    send(node, packet)
    send(node, packet.but(flags="FA"))
    node.remove(row(TUNNELLED_POD, "203.0.113.0/24"))

    assert PASS == send(node, packet).verdict


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_container_leaves_replies_of_inbound_flows_alone(
    node: Node, protocol: str
) -> None:
    request = outbound(protocol, SERVER, TUNNELLED_POD)
    received = node.run(Hook.TO_CONTAINER, request.build())
    reply = request.reply()

    assert untouched(request, PASS) == received
    assert passed(reply) == send(node, reply)


def test_from_container_captures_a_flow_that_only_looks_inbound(node: Node) -> None:
    """The same tuple began outside before; now the pod begins it: policy decides."""
    request = outbound(TCP_NAME, SERVER, TUNNELLED_POD)
    node.run(Hook.TO_CONTAINER, request.build())

    assert REDIRECT == send(node, request.reply().but(flags="S")).verdict


def test_to_container_remembers_nothing_for_uncovered_pairs(node: Node) -> None:
    request = outbound(TCP_NAME, SERVER, FREE_POD)
    node.run(Hook.TO_CONTAINER, request.build())

    assert {} == node.flows()


def test_to_container_does_not_take_a_late_packet_for_a_beginning(node: Node) -> None:
    request = outbound(TCP_NAME, SERVER, TUNNELLED_POD).but(flags="A")
    node.run(Hook.TO_CONTAINER, request.build())

    assert {} == node.flows()


def test_echo_ids_of_both_sides_do_not_mix(node: Node) -> None:
    """A ping from outside and one from the pod may use the same identifier."""
    ping = outbound(ECHO_NAME, SERVER, TUNNELLED_POD, port=9)
    node.run(Hook.TO_CONTAINER, ping.build())
    own = outbound(ECHO_NAME, TUNNELLED_POD, SERVER, port=9)

    assert (PASS, REDIRECT) == (
        send(node, ping.reply()).verdict,
        send(node, own).verdict,
    )


@pytest.mark.parametrize("vlan", [0, 5])
def test_a_pods_vlan_tag_does_not_go_along(node: Node, vlan: int) -> None:
    """Else a pod would choose the VLAN in which the gateway sends its packet."""
    packet = outbound(TCP_NAME, TUNNELLED_POD, SERVER).build()

    assert Wire(packet, None) == node.send_tagged(Hook.FROM_CONTAINER, packet, vlan)


def test_from_container_touches_no_mark_bits_of_others(node: Node) -> None:
    packet = outbound(TCP_NAME, FREE_POD, SERVER)

    assert untouched(packet, PASS, mark=0xFFFFFF9F) == send(node, packet, 0xFFFFFFEF)


def test_from_container_marks_nothing_that_it_tunnels(node: Node) -> None:
    """The mark would show on the outer packet, which is the host's own."""
    packet = outbound(TCP_NAME, TUNNELLED_POD, SERVER)

    assert untouched(packet, REDIRECT, mark=0) == send(node, packet)
