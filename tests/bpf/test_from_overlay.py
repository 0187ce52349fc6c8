"""from-overlay: what comes out of the tunnel, on the gateway and on the pod's node."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from bpf.harness import (
    DROP,
    MARK_OVERLAY,
    MARK_TRANSLATED,
    PASS,
    REDIRECT,
    TUNNEL_MAC,
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
)
from bpf.world import (
    ELSEWHERE,
    HERE,
    LOCAL_POD,
    NO_EGRESS_IP_SERVER,
    NO_GATEWAY_SERVER,
    OTHER_SERVER,
    POLICY,
    REMOTE_POD,
    SERVER,
    TUNNELLED_POD,
    gateway_entries,
    row,
    via,
)
from outgate.kernel.maps import GatewayPath
from outgate.kernel.reasons import Reason
from outgate.kernel.records import FlowDecision, MetricDirection, NatDirection
from outgate.state.entries import (
    CLUSTER,
    REMOTE_NODE,
    Hook,
    IpcacheEntry,
    IpcacheKey,
    Key,
    NodeEntry,
    NodeKey,
    Value,
)

pytestmark = [needs_root, pytest.mark.kernel]

WORKER = IPv4Address(ELSEWHERE)
STRANGER = IPv4Address("172.18.0.99")
THIRD = IPv4Address("172.18.0.3")
OUT, IN = MetricDirection.TO_WORLD, MetricDirection.TO_POD


def receive(node: Node, packet: Packet, tunnel: IPv4Address = WORKER) -> Outcome:
    return node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=tunnel)


def third_node() -> dict[Key, Value]:
    """Node 172.18.0.3 with the pods 10.0.0.0/24."""
    return {
        NodeKey(THIRD): NodeEntry(),
        IpcacheKey(IPv4Network(THIRD)): IpcacheEntry(REMOTE_NODE, THIRD),
        IpcacheKey(IPv4Network("10.0.0.0/24")): IpcacheEntry(CLUSTER, THIRD),
    }


def source_port(outcome: Outcome) -> int:
    """Return the source port (TCP, UDP) of a packet without IP options."""
    return int.from_bytes(outcome.packet[34:36], "big")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_overlay_translates_on_the_gateway(node: Node, protocol: str) -> None:
    packet = outbound(protocol, REMOTE_POD, SERVER)
    expected = packet.but(source=HERE, ttl=63).build()

    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == receive(node, packet)
    assert {(Reason.FORWARDED, OUT, POLICY): 1} == node.counts()


def test_from_overlay_translates_behind_ip_options(node: Node) -> None:
    packet = outbound(UDP_NAME, REMOTE_POD, SERVER).but(options=bytes([1] * 8))

    assert packet.but(source=HERE, ttl=63).build() == receive(node, packet).packet


def test_from_overlay_keeps_both_halves_of_a_translation(node: Node) -> None:
    receive(node, outbound(TCP_NAME, REMOTE_POD, SERVER))
    halves = {key.direction: (key, entry) for key, entry in node.nats().items()}
    _, forward = halves[NatDirection.FORWARD]
    reverse_key, reverse = halves[NatDirection.REVERSE]

    assert (HERE, 40000, node.uplink) == (
        *(str(forward.address), forward.port),
        forward.ifindex,
    )
    assert (SERVER, 80, HERE, 40000) == (
        *(str(reverse_key.source), reverse_key.source_port),
        *(str(reverse_key.destination), reverse_key.destination_port),
    )
    assert (REMOTE_POD, 40000, ELSEWHERE) == (
        *(str(reverse.address), reverse.port),
        str(reverse.tunnel_endpoint),
    )


def test_from_overlay_gives_one_flow_one_port(node: Node) -> None:
    packet = outbound(TCP_NAME, REMOTE_POD, SERVER)

    assert receive(node, packet) == receive(node, packet)
    assert 2 == len(node.nats())


def test_from_overlay_gives_another_pod_another_port(node: Node) -> None:
    node.put({row("10.0.1.43", "203.0.113.0/24"): via(HERE)})
    first = receive(node, outbound(TCP_NAME, REMOTE_POD, SERVER))
    packet = outbound(TCP_NAME, "10.0.1.43", SERVER)
    second = receive(node, packet)
    expected = packet.but(source=HERE, source_port=source_port(second), ttl=63)

    assert 40000 == source_port(first) != source_port(second) >= 1024
    assert expected.build() == second.packet


def test_from_overlay_finds_every_port_of_the_range_then_drops() -> None:
    with Node(Setup(ports=(5000, 5063))) as node:
        node.put(gateway_entries())
        sent = [
            receive(node, outbound(TCP_NAME, REMOTE_POD, SERVER, port=30000 + i))
            for i in range(65)
        ]

        assert {*range(5000, 5064)} == {source_port(outcome) for outcome in sent[:64]}
        assert DROP == sent[64].verdict
        assert 1 == node.counts()[(Reason.DROP_SNAT_NO_PORT, OUT, POLICY)]


def test_from_overlay_finds_the_last_port_wherever_the_walk_starts(
    node: Node,
) -> None:
    """This tuple's hash is so near 2^32 that a sum with a step could wrap."""
    server, last = "203.0.113.1", 41944
    node.take_ports(IPv4Address(server), {*range(1024, 65536)} - {last})
    outcome = receive(node, outbound(TCP_NAME, REMOTE_POD, server, port=36767))

    assert (REDIRECT, last) == (outcome.verdict, source_port(outcome))


def test_from_overlay_uses_a_taken_port_towards_another_server(node: Node) -> None:
    receive(node, outbound(TCP_NAME, REMOTE_POD, SERVER))
    node.put({row("10.0.1.43", "203.0.113.0/24"): via(HERE)})
    other = receive(node, outbound(TCP_NAME, "10.0.1.43", "203.0.113.10"))

    assert 40000 == source_port(other)


@pytest.mark.parametrize("half", list(NatDirection)[-2:])
def test_from_overlay_mends_a_half_lost_pair(node: Node, half: NatDirection) -> None:
    """A packet that moves the TCP state writes both halves, whichever was evicted."""
    packet = outbound(TCP_NAME, REMOTE_POD, SERVER)
    before = receive(node, packet)
    pair = set(node.nats())
    node.forget_nat({key for key in pair if key.direction is half})
    if half is NatDirection.FORWARD:
        reply = packet.but(source=HERE).reply()
        node.run(Hook.FROM_NETDEV, reply.build())
    after = receive(node, packet.but(flags="FA"))

    assert source_port(before) == source_port(after)
    assert pair == set(node.nats())


@pytest.mark.parametrize(
    ("server", "reason", "policy"),
    [
        (OTHER_SERVER, Reason.DROP_NO_POLICY, 0),
        (NO_GATEWAY_SERVER, Reason.DROP_NO_GATEWAY, POLICY),
        (NO_EGRESS_IP_SERVER, Reason.DROP_NO_EGRESS_IP, POLICY),
        (ELSEWHERE, Reason.DROP_NO_POLICY, 0),
    ],
)
def test_from_overlay_drops_what_this_gateway_has_no_row_for(
    node: Node, server: str, reason: Reason, policy: int
) -> None:
    packet = outbound(TCP_NAME, REMOTE_POD, server)

    assert Outcome(DROP, packet.build(), 0) == receive(node, packet)
    assert {(reason, OUT, policy): 1} == node.counts()
    assert {} == node.nats()


def test_from_overlay_drops_what_another_gateway_should_carry(node: Node) -> None:
    node.put({row(REMOTE_POD, "203.0.113.0/24"): via("172.18.0.3")})
    receive(node, outbound(TCP_NAME, REMOTE_POD, SERVER))

    assert {(Reason.DROP_NO_POLICY, OUT, POLICY): 1} == node.counts()


def test_from_overlay_drops_tunnel_sources_that_are_no_nodes(node: Node) -> None:
    receive(node, outbound(TCP_NAME, REMOTE_POD, SERVER), tunnel=STRANGER)

    assert {(Reason.DROP_UNKNOWN_TUNNEL_SOURCE, OUT, 0): 1} == node.counts()


@pytest.mark.parametrize("path", list(GatewayPath))
@pytest.mark.parametrize("pod", [LOCAL_POD, "10.0.0.174", "192.0.2.7"])
def test_from_overlay_drops_pods_that_the_tunnels_source_does_not_hold(
    path: GatewayPath, pod: str
) -> None:
    """A pod of this node, one of a third node, and no pod at all; rows or not."""
    with Node(Setup(gateway_path=path)) as node:
        node.put(gateway_entries())
        node.put(third_node())
        node.put({row(pod, "203.0.113.0/24"): via(HERE)})
        packet = outbound(TCP_NAME, pod, SERVER)

        assert Outcome(DROP, packet.build(), 0) == receive(node, packet)
        assert {(Reason.DROP_FORGED_POD, OUT, 0): 1} == node.counts()
        assert ({}, {}) == (node.nats(), node.flows())


@pytest.mark.parametrize("flags", ["S", "A", "R"])
def test_from_overlay_lets_no_other_node_touch_a_flow(node: Node, flags: str) -> None:
    node.put(third_node())
    packet = outbound(TCP_NAME, REMOTE_POD, SERVER)
    receive(node, packet)
    before = node.nats()
    forged = receive(node, packet.but(flags=flags), tunnel=THIRD)

    assert DROP == forged.verdict
    assert before == node.nats()


def test_from_overlay_knows_a_node_by_each_of_its_addresses(node: Node) -> None:
    """Node 172.18.0.4 also tunnels as 172.18.0.44."""
    other = IPv4Address("172.18.0.44")
    node.put(
        {
            NodeKey(other): NodeEntry(),
            IpcacheKey(IPv4Network(other)): IpcacheEntry(REMOTE_NODE, WORKER),
        }
    )
    request = outbound(TCP_NAME, TUNNELLED_POD, SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    packet = outbound(TCP_NAME, REMOTE_POD, SERVER)

    assert REDIRECT == receive(node, packet, tunnel=other).verdict
    assert REDIRECT == receive(node, request.reply(), tunnel=other).verdict


def test_from_overlay_drops_other_virtual_networks(node: Node) -> None:
    packet = outbound(TCP_NAME, REMOTE_POD, SERVER).build()
    node.run(Hook.FROM_OVERLAY, packet, tunnel=WORKER, vni=1)

    assert {(Reason.DROP_UNKNOWN_TUNNEL_SOURCE, OUT, 0): 1} == node.counts()


def test_from_overlay_drops_what_may_not_travel_further(node: Node) -> None:
    receive(node, outbound(UDP_NAME, REMOTE_POD, SERVER).but(ttl=1))

    assert {(Reason.DROP_TTL_EXCEEDED, OUT, POLICY): 1} == node.counts()


def test_from_overlay_without_a_route_drops() -> None:
    with Node(Setup(has_route=False)) as node:
        node.put(gateway_entries())
        receive(node, outbound(TCP_NAME, REMOTE_POD, SERVER))

        assert {(Reason.DROP_NO_ROUTE, OUT, POLICY): 1} == node.counts()
        assert {} == node.nats()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_overlay_delivers_the_reply_of_a_pods_flow(
    node: Node, protocol: str
) -> None:
    request = outbound(protocol, TUNNELLED_POD, SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    reply = request.reply().but(ttl=60)
    tunnelled = reply.but(source_mac="02:aa:00:00:00:01", destination_mac=POD_MAC)
    expected = reply.but(source_mac=HOST_MAC, destination_mac=POD_MAC).build()

    assert Outcome(REDIRECT, expected, 0) == receive(node, tunnelled)


@pytest.mark.parametrize(
    "server", [SERVER, "203.0.113.10"], ids=["other-port", "other-server"]
)
def test_from_overlay_drops_what_no_pod_asked_for(node: Node, server: str) -> None:
    node.run(Hook.FROM_CONTAINER, outbound(TCP_NAME, TUNNELLED_POD, SERVER).build())
    receive(node, outbound(TCP_NAME, TUNNELLED_POD, server, port=40001).reply())

    assert 1 == node.counts()[(Reason.DROP_NO_FLOW, IN, 0)]


def test_from_overlay_drops_replies_from_a_node_that_is_not_the_gateway(
    node: Node,
) -> None:
    request = outbound(TCP_NAME, TUNNELLED_POD, SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    other_node = IPv4Address("172.18.0.3")
    node.put({NodeKey(other_node): NodeEntry()})
    receive(node, request.reply(), tunnel=other_node)

    assert 1 == node.counts()[(Reason.DROP_NO_FLOW, IN, 0)]


def test_from_overlay_hands_to_the_stack_where_told() -> None:
    packet = outbound(TCP_NAME, REMOTE_POD, SERVER)
    mac = TUNNEL_MAC.hex(":")
    expected = packet.but(source_mac=mac, destination_mac=mac).build()
    with Node(Setup(gateway_path=GatewayPath.STACK)) as node:
        node.put(gateway_entries())

        assert Outcome(PASS, expected, MARK_OVERLAY) == receive(node, packet)
        [flow] = node.flows().values()
        assert (FlowDecision.FROM_TUNNEL, WORKER) == (
            flow.decision,
            flow.tunnel_endpoint,
        )


def test_from_overlay_hands_nothing_uncovered_to_the_stack() -> None:
    with Node(Setup(gateway_path=GatewayPath.STACK)) as node:
        node.put(gateway_entries())
        outcome = receive(node, outbound(TCP_NAME, REMOTE_POD, OTHER_SERVER))

        assert DROP == outcome.verdict
