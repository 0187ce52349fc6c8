"""from-container: what a pod sends, seen on the host side of its veth."""

from collections.abc import Callable
from ipaddress import ip_address

import pytest
from scapy.layers.l2 import ARP, Ether

from bpf.harness import (
    DROP,
    MARK_OVERLAY,
    MARK_SEEN,
    PASS,
    REDIRECT,
    MakeNode,
    Node,
    Outcome,
    Setup,
    needs_root,
)
from bpf.packets import (
    ICMP_NUMBER,
    PROTOCOLS,
    TCP_NAME,
    UDP_NAME,
    Packet,
    contradicting,
    outbound,
    over_ip,
    without_length,
)
from bpf.wire import Wire, send_tagged
from bpf.world import IPV4, IPV6, POLICY, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import FlowDecision, MetricDirection
from outgate.kernel.settings import GatewayPath
from outgate.state.entries import EndpointEntry, EndpointFlag, EndpointKey, Family, Hook

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
    node: Node, world: World, protocol: str
) -> None:
    packet = outbound(protocol, world.TUNNELLED_POD, world.SERVER)

    assert untouched(packet, REDIRECT) == send(node, packet)


def test_from_container_remembers_what_it_decided(node: Node, world: World) -> None:
    send(node, outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER))

    [(key, flow)] = node.flows().items()
    assert (str(key.source), key.source_port, str(key.destination)) == (
        *(world.TUNNELLED_POD, 40000),
        world.SERVER,
    )
    assert (FlowDecision.TO_GATEWAY, world.worker, POLICY, node.uplink) == (
        *(flow.decision, flow.tunnel_endpoint),
        *(flow.policy, flow.ifindex),
    )


def test_from_container_counts_forwarded_packets_by_policy(
    node: Node, world: World
) -> None:
    send(node, outbound(UDP_NAME, world.TUNNELLED_POD, world.SERVER))
    send(node, outbound(UDP_NAME, world.TUNNELLED_POD, world.SERVER))

    assert {(Reason.FORWARDED, OUT, POLICY): 2} == node.counts()


@pytest.mark.parametrize(
    ("pod", "server"),
    [
        ("TUNNELLED_POD", "OTHER_SERVER"),
        ("TUNNELLED_POD", "EXCLUDED_SERVER"),
        ("FREE_POD", "SERVER"),
        ("UNKNOWN_POD", "OTHER_SERVER"),
        ("STRANGER", "SERVER"),
    ],
    ids=["uncovered", "excluded", "no-policy", "unknown-pod-uncovered", "no-pod"],
)
def test_from_container_leaves_uncovered_traffic_alone(
    node: Node, world: World, pod: str, server: str
) -> None:
    packet = outbound(TCP_NAME, world.address(pod), world.address(server))

    assert passed(packet) == send(node, packet)
    assert ({}, {}) == (node.flows(), node.counts())


@pytest.mark.parametrize("destination", ["REMOTE_POD", "POD_ROUTER"])
def test_from_container_leaves_cluster_traffic_alone(
    node: Node, world: World, destination: str
) -> None:
    """
    The policy covers 10.0.0.0/8, and the pods' networks lie in it.

    Without a mark: a Service may lead outside, and forward-guard looks what came of it.
    """
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.address(destination))

    assert untouched(packet.build(), PASS) == send(node, packet)


def test_from_container_leaves_arp_alone(node: Node) -> None:
    """Without a mark: where the stack finds IP in a frame, forward-guard must look."""
    frame = bytes(Ether() / ARP())

    assert untouched(frame, PASS) == send(node, frame)


@pytest.mark.parametrize("other", [IPV4, IPV6], ids=["ipv4", "ipv6"])
def test_from_container_leaves_a_family_without_rows_alone(
    node: Node, world: World, other: World
) -> None:
    """The node has no row at all of the other family."""
    packet = outbound(UDP_NAME, other.TUNNELLED_POD, other.SERVER)
    if other.family is world.family:
        assert REDIRECT == send(node, packet).verdict
    else:
        assert passed(packet) == send(node, packet)


def covered(world: World, number: int, content: bytes) -> bytes:
    return over_ip(world.TUNNELLED_POD, world.SERVER, number, content)


def other_icmp(world: World) -> bytes:
    """Return ICMP that is neither echo nor an error: IPv4's redirect, a private one."""
    kind = 5 if world.family is Family.V4 else 200
    return covered(world, ICMP_NUMBER[world.family], bytes([kind]) + bytes(35))


UNTRANSLATABLE: dict[str, tuple[Callable[[World], bytes], Reason]] = {
    "unknown-pod": (
        lambda world: outbound(TCP_NAME, world.UNKNOWN_POD, world.SERVER).build(),
        Reason.DROP_UNKNOWN_POD,
    ),
    "no-gateway": (
        lambda world: outbound(
            TCP_NAME, world.TUNNELLED_POD, world.NO_GATEWAY_SERVER
        ).build(),
        Reason.DROP_NO_GATEWAY,
    ),
    "no-egress-ip": (
        lambda world: outbound(
            TCP_NAME, world.TUNNELLED_POD, world.NO_EGRESS_IP_SERVER
        ).build(),
        Reason.DROP_NO_EGRESS_IP,
    ),
    "gre": (
        lambda world: covered(world, 47, bytes(4)),
        Reason.DROP_UNSUPPORTED_PROTOCOL,
    ),
    "other-icmp": (other_icmp, Reason.DROP_UNSUPPORTED_ICMP),
    "cut-tcp": (lambda world: covered(world, 6, bytes(12)), Reason.DROP_INVALID),
    "ports-in-padding": (
        lambda world: covered(world, 6, bytes(4)) + bytes(22),
        Reason.DROP_INVALID,
    ),
}


@pytest.mark.parametrize("what", UNTRANSLATABLE)
def test_from_container_drops_what_it_cannot_translate(
    node: Node, world: World, what: str
) -> None:
    build, reason = UNTRANSLATABLE[what]
    frame = build(world)

    assert untouched(frame, DROP) == send(node, frame)
    assert {(reason, OUT, POLICY): 1} == node.counts()
    assert {} == node.flows()


@pytest.mark.parametrize("pod", ["TUNNELLED_POD", "FREE_POD"])
def test_from_container_drops_what_it_cannot_read(
    node: Node, world: World, pod: str
) -> None:
    """An IP header that contradicts itself: the kernel would refuse it as well."""
    packet = outbound(TCP_NAME, world.address(pod), world.SERVER)
    frame = contradicting(packet.build())

    assert untouched(frame, DROP) == send(node, frame)
    assert {(Reason.DROP_INVALID, OUT, 0): 1} == node.counts()


def test_from_container_translates_packets_too_long_to_say_how_long(
    node: Node,
    world: World,
) -> None:
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
    translated = without_length(packet.but(source=world.HERE, ttl=63).build())

    assert untouched(translated, REDIRECT, mark=0x20) == send(
        node, without_length(packet.build())
    )


def test_from_container_knows_a_pod_as_soon_as_it_is_entered(
    node: Node, world: World
) -> None:
    node.put({world.row(world.UNKNOWN_POD, world.NETWORK): world.via(world.ELSEWHERE)})
    packet = outbound(TCP_NAME, world.UNKNOWN_POD, world.SERVER)
    before = send(node, packet)
    known = EndpointEntry(EndpointFlag.POD)
    node.put({EndpointKey(ip_address(world.UNKNOWN_POD)): known})

    assert (DROP, REDIRECT) == (before.verdict, send(node, packet).verdict)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_container_translates_where_the_pod_is_on_its_gateway(
    node: Node, world: World, protocol: str
) -> None:
    packet = outbound(protocol, world.LOCAL_POD, world.SERVER)
    translated = packet.but(source=world.HERE, ttl=63)

    assert untouched(translated, REDIRECT, mark=0x20) == send(node, packet)


def test_from_container_keeps_a_zero_udp_checksum(node: Node, world: World) -> None:
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER).but(zero_checksum=True)

    assert send(node, packet).packet == packet.but(source=world.HERE, ttl=63).build()


def test_from_container_sends_through_a_router_of_the_other_family(
    own_node: Node, world: World
) -> None:
    """IPv4 by way of an IPv6 neighbour, as in RFC 5549 fabrics; IPv6 by its own."""
    router, uplink = "02:00:00:00:00:06", ("dev", "uplink")
    own_node.ip("neighbour", "add", "fe80::6", "lladdr", router, *uplink)
    via = ("inet6", "fe80::6") if world.family is Family.V4 else ("fe80::6",)
    version = f"-{world.family}"
    own_node.ip(version, "route", "replace", "default", "via", *via, *uplink)
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER).build()
    sent = send_tagged(own_node, Hook.FROM_CONTAINER, packet, 0)

    assert bytes.fromhex(router.replace(":", "")) == sent.frame[:6]


EVERYWHERE = {
    Family.V4: ("240.1.2.3", "0.1.2.3"),
    Family.V6: ("4000::1", "fec0::1"),
}
NEVER = {
    Family.V4: ("127.0.0.1", "169.254.169.254", "224.0.0.251", "255.255.255.255"),
    Family.V6: ("::1", "fe80::a9fe", "ff02::fb", "ff05::1:3"),
}


@pytest.mark.parametrize("number", range(2))
def test_from_container_covers_every_network_that_the_kernel_routes(
    node: Node, world: World, number: int
) -> None:
    server = EVERYWHERE[world.family][number]
    everything = world.row(world.TUNNELLED_POD, world.EVERYTHING)
    node.put({everything: world.via(world.ELSEWHERE)})
    sent = send(node, outbound(UDP_NAME, world.TUNNELLED_POD, server))

    assert REDIRECT == sent.verdict


@pytest.mark.parametrize("number", range(4))
def test_from_container_leaves_what_belongs_to_the_link_or_the_host_alone(
    node: Node, world: World, number: int
) -> None:
    server = NEVER[world.family][number]
    everything = world.row(world.TUNNELLED_POD, world.EVERYTHING)
    node.put({everything: world.via(world.ELSEWHERE)})

    assert PASS == send(node, outbound(UDP_NAME, world.TUNNELLED_POD, server)).verdict


def test_from_container_drops_what_may_not_travel_further(
    node: Node, world: World
) -> None:
    send(node, outbound(TCP_NAME, world.LOCAL_POD, world.SERVER).but(ttl=1))

    assert {(Reason.DROP_TTL_EXCEEDED, OUT, POLICY): 1} == node.counts()


def test_from_container_hands_a_local_pod_to_the_stack_where_told(
    world: World, make_node: MakeNode
) -> None:
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
    node = make_node(Setup(gateway_path=GatewayPath.STACK))

    assert untouched(packet, PASS, mark=MARK_OVERLAY) == send(node, packet)


def test_from_container_keeps_a_flow_when_its_policy_goes(
    node: Node, world: World
) -> None:
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    send(node, packet)
    node.remove(world.row(world.TUNNELLED_POD, world.NETWORK))

    assert REDIRECT == send(node, packet.but(flags="A")).verdict


def test_from_container_decides_anew_when_a_closed_tuple_is_used_again(
    node: Node,
    world: World,
) -> None:
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    send(node, packet)
    send(node, packet.but(flags="FA"))
    node.remove(world.row(world.TUNNELLED_POD, world.NETWORK))

    assert PASS == send(node, packet).verdict


@pytest.mark.parametrize("vlan", [0, 5])
def test_a_pods_vlan_tag_does_not_go_along(node: Node, world: World, vlan: int) -> None:
    """Else a pod would choose the VLAN in which the gateway sends its packet."""
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER).build()

    assert Wire(packet, None) == send_tagged(node, Hook.FROM_CONTAINER, packet, vlan)


def test_from_container_touches_no_mark_bits_of_others(
    node: Node, world: World
) -> None:
    packet = outbound(TCP_NAME, world.FREE_POD, world.SERVER)

    assert untouched(packet, PASS, mark=0xFFFFFF9F) == send(node, packet, 0xFFFFFFEF)


def test_from_container_marks_nothing_that_it_tunnels(node: Node, world: World) -> None:
    """The mark would show on the outer packet, which is the host's own."""
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)

    assert untouched(packet, REDIRECT, mark=0) == send(node, packet)
