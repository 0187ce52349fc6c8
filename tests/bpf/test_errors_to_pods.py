"""ICMP errors from outside: through the gateway, to the pod that they tell."""

import pytest

from bpf.harness import DROP, PASS, REDIRECT, Node, Outcome, needs_root
from bpf.icmp_errors import ICMP, KINDS, IcmpError
from bpf.packets import (
    ETHERNET,
    HOST_MAC,
    MOVABLE,
    POD_MAC,
    PROTOCOLS,
    TCP_NAME,
    UDP_NAME,
    Packet,
    outbound,
    source_port_of,
)
from bpf.wire import Wire, send_tagged
from bpf.world import POLICY, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

IN = MetricDirection.TO_POD
UPLINK_MAC, ROUTER_MAC = "02:00:ac:12:00:05", "02:00:ac:12:00:01"

QUOTES: dict[str, tuple[str, dict[str, object]]] = {
    "whole-tcp": (TCP_NAME, {"quoted_l4": None}),
    "tcp-cut-in-its-checksum": (TCP_NAME, {"quoted_l4": 17}),
    "tcp-to-its-checksum": (TCP_NAME, {"quoted_l4": 18}),
    "whole-udp": (UDP_NAME, {"quoted_l4": None}),
    "first-fragment": (UDP_NAME, {"fragment": 0x2000}),
    "extension": (UDP_NAME, {"extension": bytes(100) + b"\x20\x00\xdf\xff"}),
}


def open_flow(node: Node, world: World, packet: Packet) -> None:
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)


def as_sent(world: World, packet: Packet, port: int | None = None) -> Packet:
    """Return the packet as the world saw it."""
    return packet.but(source=world.HERE, source_port=port or packet.source_port)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_reaches_the_pod_on_another_node(
    node: Node, world: World, kind: str, protocol: str
) -> None:
    """Its source stays the router's: traceroute shows that hop."""
    packet = outbound(protocol, world.REMOTE_POD, world.SERVER)
    open_flow(node, world, packet)
    error = IcmpError(world.HOP, as_sent(world, packet), kind)
    expected = error.about(packet).but(ttl=63).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, error.build())
    assert node.counts()[(Reason.FORWARDED, IN, POLICY)] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_reaches_a_pod_of_the_gateway(
    node: Node, world: World, kind: str, protocol: str
) -> None:
    packet = outbound(protocol, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    macs = {"source_mac": ROUTER_MAC, "destination_mac": UPLINK_MAC}
    error = IcmpError(world.SERVER, as_sent(world, packet), kind).but(**macs)
    macs = {"source_mac": HOST_MAC, "destination_mac": POD_MAC}
    expected = error.about(packet).but(ttl=63).but(**macs).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, error.build())


def assert_told(node: Node, world: World, packet: Packet, **changes: object) -> None:
    """Assert that an error about *packet* reaches its pod, and is right."""
    open_flow(node, world, packet)
    error = IcmpError(world.HOP, as_sent(world, packet)).but(**changes)
    expected = error.about(packet).but(ttl=63).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, error.build())


@pytest.mark.parametrize("quote", QUOTES)
def test_an_error_is_right_whatever_it_quotes(
    node: Node, world: World, quote: str
) -> None:
    protocol, changes = QUOTES[quote]
    packet = outbound(protocol, world.REMOTE_POD, world.SERVER)

    assert_told(node, world, packet, **changes)


def test_an_error_about_udp_without_a_checksum_is_right(
    node: Node, world: World
) -> None:
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)

    assert_told(node, world, packet.but(zero_checksum=True))


def test_an_error_about_a_packet_with_options_is_right(
    node: Node, world: World
) -> None:
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)

    assert_told(node, world, packet.stretched(40))


@pytest.mark.parametrize("protocol", MOVABLE)
def test_an_error_gets_the_port_back_that_a_collision_changed(
    node: Node, world: World, protocol: str
) -> None:
    node.run(Hook.TO_NETDEV, outbound(protocol, world.HERE, world.SERVER).build())
    packet = outbound(protocol, world.REMOTE_POD, world.SERVER)
    sent = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker).packet
    port = source_port_of(sent)
    error = IcmpError(world.HOP, as_sent(world, packet, port), quoted_l4=None)
    expected = error.about(packet).but(ttl=63).build()

    assert 40000 != port
    assert expected == node.run(Hook.FROM_NETDEV, error.build()).packet


def test_a_quoted_tcp_checksum_is_not_looked_for_in_padding(
    node: Node, world: World
) -> None:
    """A first fragment of 8 bytes, and zeros up to an extension (RFC 4884)."""
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)
    open_flow(node, world, packet)
    error = IcmpError(world.HOP, as_sent(world, packet), fragment=0x2000, l4_length=8)
    error = error.but(extension=bytes(100))
    expected = error.about(packet).but(ttl=63).build()

    assert expected == node.run(Hook.FROM_NETDEV, error.build()).packet


def test_an_error_that_may_not_travel_further_is_dropped(
    node: Node, world: World
) -> None:
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    open_flow(node, world, packet)
    error = IcmpError(world.HOP, as_sent(world, packet), ttl=1).build()

    assert Outcome(DROP, error, 0) == node.run(Hook.FROM_NETDEV, error)
    assert node.counts()[(Reason.DROP_TTL_EXCEEDED, IN, POLICY)] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_neither_refreshes_nor_ends_a_flow(
    node: Node, world: World, protocol: str
) -> None:
    packet = outbound(protocol, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.age(20)
    before = (node.flows(), node.nats())
    error = IcmpError(world.HOP, as_sent(world, packet)).build()

    assert node.run(Hook.FROM_NETDEV, error).verdict == REDIRECT
    assert before == (node.flows(), node.nats())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_about_no_flow_is_left_to_the_host(
    node: Node, world: World, protocol: str
) -> None:
    open_flow(node, world, outbound(protocol, world.REMOTE_POD, world.SERVER))
    state = node.nats()
    forged = outbound(protocol, world.HERE, world.SERVER, port=41000)
    error = IcmpError(world.HOP, forged).build()

    assert Outcome(PASS, error, 0) == node.run(Hook.FROM_NETDEV, error)
    assert state == node.nats()


def test_an_error_about_a_flow_that_is_over_is_left_to_the_host(
    node: Node, world: World
) -> None:
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    open_flow(node, world, packet)
    node.age(301)
    error = IcmpError(world.HOP, as_sent(world, packet)).build()

    assert Outcome(PASS, error, 0) == node.run(Hook.FROM_NETDEV, error)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_about_the_nodes_own_packet_is_left_to_it(
    node: Node, world: World, protocol: str
) -> None:
    packet = outbound(protocol, world.HERE, world.SERVER)
    node.run(Hook.TO_NETDEV, packet.build())
    error = IcmpError(world.HOP, packet).build()

    assert Outcome(PASS, error, 0) == node.run(Hook.FROM_NETDEV, error)


@pytest.mark.parametrize(
    "changes",
    [
        {"destination": "LOCAL_POD"},
        {"fragment": 1},
        {"fragment": 0x2001},
        {"quoted_l4": 7},
    ],
    ids=["to-another", "last-fragment", "middle-fragment", "no-ports"],
)
def test_an_error_that_names_no_flow_is_left_to_the_host(
    node: Node, world: World, changes: dict[str, object]
) -> None:
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    open_flow(node, world, packet)
    error = (
        IcmpError(world.HOP, as_sent(world, packet))
        .but(**world.resolve(changes))
        .build()
    )

    assert Outcome(PASS, error, 0) == node.run(Hook.FROM_NETDEV, error)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_cut_anywhere_is_translated_right_or_left_alone(
    node: Node, world: World, protocol: str
) -> None:
    packet = outbound(protocol, world.REMOTE_POD, world.SERVER)
    open_flow(node, world, packet)
    state = node.nats()
    error = IcmpError(world.HOP, as_sent(world, packet), quoted_l4=None)
    whole = error.build()
    least = ETHERNET + world.ip_size + ICMP + world.ip_size
    for size in range(ETHERNET + world.ip_size, len(whole)):
        outcome = node.run(Hook.FROM_NETDEV, whole[:size])
        if size < least + 8:
            assert Outcome(PASS, whole[:size], 0) == outcome
        else:
            assert (REDIRECT, size) == (outcome.verdict, len(outcome.packet))
    for l4 in range(-world.ip_size, len(whole) - least):
        short = error.but(quoted_l4=l4).build()
        expected = error.but(quoted_l4=l4).about(packet).but(ttl=63)
        right = expected.build() if l4 >= 8 else short
        assert right == node.run(Hook.FROM_NETDEV, short).packet
    assert state == node.nats()


def test_an_errors_vlan_tag_does_not_go_into_the_tunnel(
    node: Node, world: World
) -> None:
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)
    open_flow(node, world, packet)
    error = IcmpError(world.HOP, as_sent(world, packet), quoted_l4=None)
    expected = error.about(packet).but(ttl=63).build()

    assert Wire(expected, None) == send_tagged(node, Hook.FROM_NETDEV, error.build(), 5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_pods_node_delivers_an_error_about_its_flow(
    node: Node, world: World, protocol: str
) -> None:
    packet = outbound(protocol, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.age(20)
    flows = node.flows()
    error = IcmpError(world.HOP, packet, source_mac=ROUTER_MAC)
    expected = error.but(source_mac=HOST_MAC, destination_mac=POD_MAC).build()
    outcome = node.run(Hook.FROM_OVERLAY, error.build(), tunnel=world.worker)

    assert Outcome(REDIRECT, expected, 0) == outcome
    assert flows == node.flows()


@pytest.mark.parametrize(
    ("port", "source"),
    [(41000, "ELSEWHERE"), (40000, "THIRD")],
    ids=["no-flow", "not-the-gateway"],
)
def test_the_pods_node_drops_an_error_that_is_forged(
    node: Node, world: World, port: int, source: str
) -> None:
    node.run(
        Hook.FROM_CONTAINER,
        outbound(UDP_NAME, world.TUNNELLED_POD, world.SERVER).build(),
    )
    node.put(world.node_entries(world.THIRD))
    quoted = outbound(UDP_NAME, world.TUNNELLED_POD, world.SERVER, port=port)
    error = IcmpError(world.HOP, quoted).build()
    tunnel = world.tunnel_address(world.address(source))
    outcome = node.run(Hook.FROM_OVERLAY, error, tunnel=tunnel)

    assert Outcome(DROP, error, 0) == outcome
    assert node.counts()[(Reason.DROP_NO_FLOW, IN, 0)] == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quoted_l4": 7}, Reason.DROP_INVALID),
        ({"fragment": 1}, Reason.DROP_FRAGMENT),
        ({"destination": "LOCAL_POD"}, Reason.DROP_INVALID),
    ],
    ids=["no-ports", "last-fragment", "to-another"],
)
def test_the_pods_node_drops_an_error_that_names_no_flow(
    node: Node, world: World, changes: dict[str, object], reason: Reason
) -> None:
    packet = outbound(UDP_NAME, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    error = IcmpError(world.HOP, packet).but(**world.resolve(changes)).build()

    assert DROP == node.run(Hook.FROM_OVERLAY, error, tunnel=world.worker).verdict
    assert node.counts()[(reason, IN, 0)] == 1
