"""ICMP errors from outside: through the gateway, to the pod that they tell."""

from ipaddress import IPv4Address

import pytest

from bpf.harness import DROP, PASS, REDIRECT, Node, Outcome, Wire, needs_root
from bpf.icmp_errors import ERRORS, ETHERNET, ICMP, IPV4, IcmpError
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
    HERE,
    LOCAL_POD,
    POLICY,
    REMOTE_POD,
    SERVER,
    TUNNELLED_POD,
)
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import Hook, NodeEntry, NodeKey

pytestmark = [needs_root, pytest.mark.kernel]

WORKER = IPv4Address(ELSEWHERE)
IN = MetricDirection.TO_POD
ROUTER = "192.0.2.254"
UPLINK_MAC, ROUTER_MAC = "02:00:ac:12:00:05", "02:00:ac:12:00:01"

QUOTES: dict[str, tuple[Packet, dict[str, object]]] = {
    "whole-tcp": (outbound(TCP_NAME, REMOTE_POD, SERVER), {"quoted_l4": None}),
    "tcp-cut-in-its-checksum": (
        outbound(TCP_NAME, REMOTE_POD, SERVER),
        {"quoted_l4": 17},
    ),
    "tcp-to-its-checksum": (outbound(TCP_NAME, REMOTE_POD, SERVER), {"quoted_l4": 18}),
    "whole-udp": (outbound(UDP_NAME, REMOTE_POD, SERVER), {"quoted_l4": None}),
    "udp-without-checksum": (
        outbound(UDP_NAME, REMOTE_POD, SERVER).but(zero_checksum=True),
        {},
    ),
    "options": (
        outbound(UDP_NAME, REMOTE_POD, SERVER).but(options=bytes([1] * 40)),
        {},
    ),
    "first-fragment": (outbound(UDP_NAME, REMOTE_POD, SERVER), {"fragment": 0x2000}),
    "extension": (
        outbound(UDP_NAME, REMOTE_POD, SERVER),
        {"extension": bytes(100) + b"\x20\x00\xdf\xff"},
    ),
}


def open_flow(node: Node, packet: Packet) -> None:
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=WORKER)


def as_sent(packet: Packet, port: int | None = None) -> Packet:
    """Return the packet as the world saw it."""
    return packet.but(source=HERE, source_port=port or packet.source_port)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_reaches_the_pod_on_another_node(
    node: Node, kind: str, protocol: str
) -> None:
    """Its source stays the router's: traceroute shows that hop."""
    packet = outbound(protocol, REMOTE_POD, SERVER)
    open_flow(node, packet)
    error = IcmpError(ROUTER, as_sent(packet), kind)
    expected = error.about(packet).but(ttl=63).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, error.build())
    assert node.counts()[(Reason.FORWARDED, IN, POLICY)] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_reaches_a_pod_of_the_gateway(
    node: Node, kind: str, protocol: str
) -> None:
    packet = outbound(protocol, LOCAL_POD, SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    macs = {"source_mac": ROUTER_MAC, "destination_mac": UPLINK_MAC}
    error = IcmpError(SERVER, as_sent(packet), kind).but(**macs)
    macs = {"source_mac": HOST_MAC, "destination_mac": POD_MAC}
    expected = error.about(packet).but(ttl=63).but(**macs).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, error.build())


@pytest.mark.parametrize("quote", QUOTES)
def test_an_error_is_right_whatever_it_quotes(node: Node, quote: str) -> None:
    packet, changes = QUOTES[quote]
    open_flow(node, packet)
    error = IcmpError(ROUTER, as_sent(packet)).but(**changes)
    expected = error.about(packet).but(ttl=63).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, error.build())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_gets_the_port_back_that_a_collision_changed(
    node: Node, protocol: str
) -> None:
    node.run(Hook.TO_NETDEV, outbound(protocol, HERE, SERVER).build())
    packet = outbound(protocol, REMOTE_POD, SERVER)
    sent = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=WORKER).packet
    at = 38 if protocol == ECHO_NAME else 34
    port = int.from_bytes(sent[at : at + 2], "big")
    error = IcmpError(ROUTER, as_sent(packet, port), quoted_l4=None)
    expected = error.about(packet).but(ttl=63).build()

    assert 40000 != port
    assert expected == node.run(Hook.FROM_NETDEV, error.build()).packet


def test_a_quoted_tcp_checksum_is_not_looked_for_in_padding(node: Node) -> None:
    """A first fragment of 8 bytes, and zeros up to an extension (RFC 4884)."""
    packet = outbound(TCP_NAME, REMOTE_POD, SERVER)
    open_flow(node, packet)
    error = IcmpError(ROUTER, as_sent(packet), fragment=0x2000, total_length=28)
    error = error.but(extension=bytes(100))
    expected = error.about(packet).but(ttl=63).build()

    assert expected == node.run(Hook.FROM_NETDEV, error.build()).packet


def test_an_error_that_may_not_travel_further_is_dropped(node: Node) -> None:
    packet = outbound(UDP_NAME, REMOTE_POD, SERVER)
    open_flow(node, packet)
    error = IcmpError(ROUTER, as_sent(packet), ttl=1).build()

    assert Outcome(DROP, error, 0) == node.run(Hook.FROM_NETDEV, error)
    assert node.counts()[(Reason.DROP_TTL_EXCEEDED, IN, POLICY)] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_neither_refreshes_nor_ends_a_flow(node: Node, protocol: str) -> None:
    packet = outbound(protocol, LOCAL_POD, SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.age(20)
    before = (node.flows(), node.nats())
    error = IcmpError(ROUTER, as_sent(packet)).build()

    assert node.run(Hook.FROM_NETDEV, error).verdict == REDIRECT
    assert before == (node.flows(), node.nats())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_about_no_flow_is_left_to_the_host(node: Node, protocol: str) -> None:
    open_flow(node, outbound(protocol, REMOTE_POD, SERVER))
    state = node.nats()
    forged = outbound(protocol, HERE, SERVER, port=41000)
    error = IcmpError(ROUTER, forged).build()

    assert Outcome(PASS, error, 0) == node.run(Hook.FROM_NETDEV, error)
    assert state == node.nats()


def test_an_error_about_a_flow_that_is_over_is_left_to_the_host(node: Node) -> None:
    packet = outbound(UDP_NAME, REMOTE_POD, SERVER)
    open_flow(node, packet)
    node.age(301)
    error = IcmpError(ROUTER, as_sent(packet)).build()

    assert Outcome(PASS, error, 0) == node.run(Hook.FROM_NETDEV, error)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_about_the_nodes_own_packet_is_left_to_it(
    node: Node, protocol: str
) -> None:
    packet = outbound(protocol, HERE, SERVER)
    node.run(Hook.TO_NETDEV, packet.build())
    error = IcmpError(ROUTER, packet).build()

    assert Outcome(PASS, error, 0) == node.run(Hook.FROM_NETDEV, error)


@pytest.mark.parametrize(
    "changes",
    [
        {"destination": LOCAL_POD},
        {"fragment": 1},
        {"fragment": 0x2001},
        {"quoted_l4": 7},
    ],
    ids=["to-another", "last-fragment", "middle-fragment", "no-ports"],
)
def test_an_error_that_names_no_flow_is_left_to_the_host(
    node: Node, changes: dict[str, object]
) -> None:
    packet = outbound(UDP_NAME, REMOTE_POD, SERVER)
    open_flow(node, packet)
    error = IcmpError(ROUTER, as_sent(packet)).but(**changes).build()

    assert Outcome(PASS, error, 0) == node.run(Hook.FROM_NETDEV, error)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_cut_anywhere_is_translated_right_or_left_alone(
    node: Node, protocol: str
) -> None:
    packet = outbound(protocol, REMOTE_POD, SERVER)
    open_flow(node, packet)
    state = node.nats()
    error = IcmpError(ROUTER, as_sent(packet), quoted_l4=None)
    whole = error.build()
    for size in range(ETHERNET + IPV4, len(whole)):
        outcome = node.run(Hook.FROM_NETDEV, whole[:size])
        if size < ETHERNET + IPV4 + ICMP + IPV4 + 8:
            assert Outcome(PASS, whole[:size], 0) == outcome
        else:
            assert (REDIRECT, size) == (outcome.verdict, len(outcome.packet))
    for l4 in range(-IPV4, len(whole) - ETHERNET - IPV4 - ICMP - IPV4):
        short = error.but(quoted_l4=l4).build()
        expected = error.but(quoted_l4=l4).about(packet).but(ttl=63)
        right = expected.build() if l4 >= 8 else short
        assert right == node.run(Hook.FROM_NETDEV, short).packet
    assert state == node.nats()


def test_an_errors_vlan_tag_does_not_go_into_the_tunnel(node: Node) -> None:
    packet = outbound(TCP_NAME, REMOTE_POD, SERVER)
    open_flow(node, packet)
    error = IcmpError(ROUTER, as_sent(packet), quoted_l4=None)
    expected = error.about(packet).but(ttl=63).build()

    assert Wire(expected, None) == node.send_tagged(Hook.FROM_NETDEV, error.build(), 5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_pods_node_delivers_an_error_about_its_flow(
    node: Node, protocol: str
) -> None:
    packet = outbound(protocol, TUNNELLED_POD, SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.age(20)
    flows = node.flows()
    error = IcmpError(ROUTER, packet, source_mac=ROUTER_MAC)
    expected = error.but(source_mac=HOST_MAC, destination_mac=POD_MAC).build()
    outcome = node.run(Hook.FROM_OVERLAY, error.build(), tunnel=WORKER)

    assert Outcome(REDIRECT, expected, 0) == outcome
    assert flows == node.flows()


@pytest.mark.parametrize(
    ("port", "source"),
    [(41000, ELSEWHERE), (40000, "172.18.0.3")],
    ids=["no-flow", "not-the-gateway"],
)
def test_the_pods_node_drops_an_error_that_is_forged(
    node: Node, port: int, source: str
) -> None:
    node.run(Hook.FROM_CONTAINER, outbound(UDP_NAME, TUNNELLED_POD, SERVER).build())
    node.put({NodeKey(IPv4Address("172.18.0.3")): NodeEntry()})
    quoted = outbound(UDP_NAME, TUNNELLED_POD, SERVER, port=port)
    error = IcmpError(ROUTER, quoted).build()
    outcome = node.run(Hook.FROM_OVERLAY, error, tunnel=IPv4Address(source))

    assert Outcome(DROP, error, 0) == outcome
    assert node.counts()[(Reason.DROP_NO_FLOW, IN, 0)] == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quoted_l4": 7}, Reason.DROP_INVALID),
        ({"fragment": 1}, Reason.DROP_FRAGMENT),
        ({"destination": LOCAL_POD}, Reason.DROP_INVALID),
    ],
    ids=["no-ports", "last-fragment", "to-another"],
)
def test_the_pods_node_drops_an_error_that_names_no_flow(
    node: Node, changes: dict[str, object], reason: Reason
) -> None:
    packet = outbound(UDP_NAME, TUNNELLED_POD, SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    error = IcmpError(ROUTER, packet).but(**changes).build()

    assert DROP == node.run(Hook.FROM_OVERLAY, error, tunnel=WORKER).verdict
    assert node.counts()[(reason, IN, 0)] == 1
