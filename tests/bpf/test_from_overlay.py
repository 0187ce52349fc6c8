"""from-overlay: what comes out of the tunnel, on the gateway and on the pod's node."""

from ipaddress import ip_network

import pytest

from bpf.harness import (
    DROP,
    MARK_OVERLAY,
    MARK_TRANSLATED,
    PASS,
    REDIRECT,
    TUNNEL_MAC,
    MakeNode,
    Node,
    Outcome,
    Setup,
    needs_root,
)
from bpf.packets import (
    HOST_MAC,
    POD_MAC,
    PROTOCOLS,
    TCP_NAME,
    UDP_NAME,
    Packet,
    outbound,
    source_port_of,
)
from bpf.uplink import UPLINK
from bpf.world import IPV4, POLICY, Rows, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import FlowDecision, MetricDirection, NatDirection
from outgate.kernel.settings import GatewayPath
from outgate.state.entries import Address, Family, Hook

pytestmark = [needs_root, pytest.mark.kernel]

OUT, IN = MetricDirection.TO_WORLD, MetricDirection.TO_POD


def receive(
    node: Node, world: World, packet: Packet, tunnel: Address | None = None
) -> Outcome:
    """Return what becomes of *packet*, tunnelled by ELSEWHERE or by *tunnel*."""
    sent_by = tunnel or world.worker
    return node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=sent_by)


def third_node(world: World) -> Rows:
    """Node 172.18.0.3 with the pods 10.0.0.0/24."""
    return world.node_entries(world.THIRD, pods=world.THIRD_NODES_PODS)


def source_port(outcome: Outcome) -> int:
    """Return the source port (TCP, UDP) of a packet without IP options."""
    return source_port_of(outcome.packet)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_overlay_translates_on_the_gateway(
    node: Node, world: World, protocol: str
) -> None:
    packet = outbound(protocol, world.REMOTE_POD, world.SERVER)
    expected = packet.but(source=world.HERE, ttl=63).build()

    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == receive(node, world, packet)
    assert {(Reason.FORWARDED, OUT, POLICY): 1} == node.counts()


def test_from_overlay_translates_behind_options(node: Node, world: World) -> None:
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER).stretched(8)

    assert (
        packet.but(source=world.HERE, ttl=63).build()
        == receive(node, world, packet).packet
    )


def test_from_overlay_keeps_both_halves_of_a_translation(
    node: Node, world: World
) -> None:
    receive(node, world, outbound(TCP_NAME, world.REMOTE_POD, world.SERVER))
    halves = {key.direction: (key, entry) for key, entry in node.nats().items()}
    _, forward = halves[NatDirection.FORWARD]
    reverse_key, reverse = halves[NatDirection.REVERSE]

    assert (world.HERE, 40000, node.uplink) == (
        *(str(forward.address), forward.port),
        forward.ifindex,
    )
    assert (world.SERVER, 80, world.HERE, 40000) == (
        *(str(reverse_key.source), reverse_key.source_port),
        *(str(reverse_key.destination), reverse_key.destination_port),
    )
    assert (world.REMOTE_POD, 40000, world.worker) == (
        *(str(reverse.address), reverse.port),
        reverse.tunnel_endpoint,
    )


@pytest.mark.parametrize("half", list(NatDirection)[-2:])
def test_from_overlay_mends_a_half_lost_pair(
    node: Node, world: World, half: NatDirection
) -> None:
    """A packet that moves the TCP state writes both halves, whichever was evicted."""
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)
    before = receive(node, world, packet)
    pair = set(node.nats())
    node.forget_nat({key for key in pair if key.direction is half})
    if half is NatDirection.FORWARD:
        reply = packet.but(source=world.HERE).reply()
        node.run(Hook.FROM_NETDEV, reply.build())
    after = receive(node, world, packet.but(flags="FA"))

    assert source_port(before) == source_port(after)
    assert pair == set(node.nats())


@pytest.mark.parametrize(
    ("server", "reason", "policy"),
    [
        ("OTHER_SERVER", Reason.DROP_NO_POLICY, 0),
        ("NO_GATEWAY_SERVER", Reason.DROP_NO_GATEWAY, POLICY),
        ("NO_EGRESS_IP_SERVER", Reason.DROP_NO_EGRESS_IP, POLICY),
        ("ELSEWHERE", Reason.DROP_NO_POLICY, 0),
    ],
)
def test_from_overlay_drops_what_this_gateway_has_no_row_for(
    node: Node, world: World, server: str, reason: Reason, policy: int
) -> None:
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.address(server))

    assert Outcome(DROP, packet.build(), 0) == receive(node, world, packet)
    assert {(reason, OUT, policy): 1} == node.counts()
    assert {} == node.nats()


def test_from_overlay_drops_what_another_gateway_should_carry(
    node: Node, world: World
) -> None:
    node.put({world.row(world.REMOTE_POD, world.NETWORK): world.via(world.THIRD)})
    receive(node, world, outbound(TCP_NAME, world.REMOTE_POD, world.SERVER))

    assert {(Reason.DROP_NO_POLICY, OUT, POLICY): 1} == node.counts()


def test_from_overlay_drops_tunnel_sources_that_are_no_nodes(
    node: Node, world: World
) -> None:
    receive(
        node,
        world,
        outbound(TCP_NAME, world.REMOTE_POD, world.SERVER),
        tunnel=world.tunnel_address(world.NO_NODE),
    )

    assert {(Reason.DROP_UNKNOWN_TUNNEL_SOURCE, OUT, 0): 1} == node.counts()


@pytest.mark.parametrize("path", list(GatewayPath))
@pytest.mark.parametrize("pod", ["LOCAL_POD", "THIRD_NODES_POD", "STRANGER"])
def test_from_overlay_drops_pods_that_the_tunnels_source_does_not_hold(
    world: World, make_node: MakeNode, path: GatewayPath, pod: str
) -> None:
    """A pod of this node, one of a third node, and no pod at all; rows or not."""
    node = make_node(Setup(gateway_path=path))
    node.put(third_node(world))
    source = world.address(pod)
    node.put({world.row(source, world.NETWORK): world.via(world.HERE)})
    packet = outbound(TCP_NAME, source, world.SERVER)

    assert Outcome(DROP, packet.build(), 0) == receive(node, world, packet)
    assert {(Reason.DROP_FORGED_POD, OUT, 0): 1} == node.counts()
    assert ({}, {}) == (node.nats(), node.flows())


@pytest.mark.parametrize("flags", ["S", "A", "R"])
def test_from_overlay_lets_no_other_node_touch_a_flow(
    node: Node, world: World, flags: str
) -> None:
    node.put(third_node(world))
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)
    receive(node, world, packet)
    before = node.nats()
    forged = receive(
        node, world, packet.but(flags=flags), tunnel=world.tunnel_address(world.THIRD)
    )

    assert DROP == forged.verdict
    assert before == node.nats()


def test_from_overlay_knows_a_node_by_each_of_its_addresses(
    node: Node, world: World
) -> None:
    """Node 172.18.0.4 also tunnels as 172.18.0.44."""
    node.put(world.node_entries(world.ELSEWHERE, world.ELSEWHERE_TOO))
    other = world.tunnel_address(world.ELSEWHERE_TOO)
    request = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)

    assert REDIRECT == receive(node, world, packet, tunnel=other).verdict
    assert REDIRECT == receive(node, world, request.reply(), tunnel=other).verdict


def test_from_overlay_drops_other_virtual_networks(node: Node, world: World) -> None:
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER).build()
    node.run(Hook.FROM_OVERLAY, packet, tunnel=world.worker, vni=1)

    assert {(Reason.DROP_UNKNOWN_TUNNEL_SOURCE, OUT, 0): 1} == node.counts()


def test_from_overlay_drops_what_may_not_travel_further(
    node: Node, world: World
) -> None:
    receive(node, world, outbound(UDP_NAME, world.REMOTE_POD, world.SERVER).but(ttl=1))

    assert {(Reason.DROP_TTL_EXCEEDED, OUT, POLICY): 1} == node.counts()


def test_from_overlay_without_a_route_drops(world: World, make_node: MakeNode) -> None:
    node = make_node(Setup(has_route=False))
    receive(node, world, outbound(TCP_NAME, world.REMOTE_POD, world.SERVER))

    assert {(Reason.DROP_NO_ROUTE, OUT, POLICY): 1} == node.counts()
    assert {} == node.nats()


@pytest.mark.parametrize("world", [IPV4], ids=lambda world: world.name)
def test_from_overlay_sends_nothing_to_a_networks_broadcast_address(
    node: Node, world: World
) -> None:
    at = UPLINK[Family.V4]
    network = ip_network((at.address, at.prefix_length), strict=False)
    node.put({world.row(world.REMOTE_POD, str(network)): world.via(world.HERE)})
    lowest, broadcast = network[0], network[-1]
    receive(node, world, outbound(UDP_NAME, world.REMOTE_POD, str(broadcast)))

    assert {(Reason.DROP_NO_ROUTE, OUT, POLICY): 1} == node.counts()

    packet = outbound(UDP_NAME, world.REMOTE_POD, str(lowest))

    assert REDIRECT == receive(node, world, packet).verdict


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_overlay_delivers_the_reply_of_a_pods_flow(
    node: Node, world: World, protocol: str
) -> None:
    request = outbound(protocol, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    reply = request.reply().but(ttl=60)
    tunnelled = reply.but(source_mac="02:aa:00:00:00:01", destination_mac=POD_MAC)
    expected = reply.but(source_mac=HOST_MAC, destination_mac=POD_MAC).build()

    assert Outcome(REDIRECT, expected, 0) == receive(node, world, tunnelled)


@pytest.mark.parametrize(
    "server", ["SERVER", "OTHER_COVERED_SERVER"], ids=["other-port", "other-server"]
)
def test_from_overlay_drops_what_no_pod_asked_for(
    node: Node, world: World, server: str
) -> None:
    node.run(
        Hook.FROM_CONTAINER,
        outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER).build(),
    )
    receive(
        node,
        world,
        outbound(
            TCP_NAME, world.TUNNELLED_POD, world.address(server), port=40001
        ).reply(),
    )

    assert 1 == node.counts()[(Reason.DROP_NO_FLOW, IN, 0)]


def test_from_overlay_drops_replies_from_a_node_that_is_not_the_gateway(
    node: Node,
    world: World,
) -> None:
    request = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    node.put(world.node_entries(world.THIRD))
    third = world.tunnel_address(world.THIRD)
    receive(node, world, request.reply(), tunnel=third)

    assert 1 == node.counts()[(Reason.DROP_NO_FLOW, IN, 0)]


def test_from_overlay_hands_to_the_stack_where_told(
    world: World, make_node: MakeNode
) -> None:
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)
    mac = TUNNEL_MAC.hex(":")
    expected = packet.but(source_mac=mac, destination_mac=mac).build()
    node = make_node(Setup(gateway_path=GatewayPath.STACK))

    assert Outcome(PASS, expected, MARK_OVERLAY) == receive(node, world, packet)
    [flow] = node.flows().values()
    assert (FlowDecision.FROM_TUNNEL, world.worker) == (
        flow.decision,
        flow.tunnel_endpoint,
    )


def test_from_overlay_hands_nothing_uncovered_to_the_stack(
    world: World, make_node: MakeNode
) -> None:
    node = make_node(Setup(gateway_path=GatewayPath.STACK))
    outcome = receive(
        node, world, outbound(TCP_NAME, world.REMOTE_POD, world.OTHER_SERVER)
    )

    assert DROP == outcome.verdict
