"""Flows that live when policies change: they stay, or follow at once (a setting)."""

import pytest

from bpf.harness import (
    DROP,
    MARK_OVERLAY,
    MARK_SEEN,
    MARK_TRANSLATED,
    PASS,
    REDIRECT,
    MakeNode,
    Node,
    Outcome,
    Setup,
    needs_root,
)
from bpf.packets import MOVABLE, PROTOCOLS, TCP_NAME, UDP_NAME, Packet, outbound
from bpf.world import World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.kernel.settings import ExistingFlows, GatewayPath
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD
KEEP = Setup(existing_flows=ExistingFlows.KEEP)
REDECIDE = Setup(existing_flows=ExistingFlows.REDECIDE)
STACK = Setup(GatewayPath.STACK, ExistingFlows.REDECIDE)


def opened(node: Node, world: World, protocol: str) -> Packet:
    """Return a later packet of a flow that went to ELSEWHERE and was answered."""
    first = outbound(protocol, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, first.build())
    node.run(Hook.FROM_OVERLAY, first.reply().build(), tunnel=world.worker)
    return first.but(flags="A")


def translated(node: Node, world: World, protocol: str, pod: str) -> Packet:
    """Return a later packet of a flow that left here, and was answered."""
    first = outbound(protocol, world.address(pod), world.SERVER)
    send(node, world, first)
    reply = first.but(source=world.HERE).reply()
    node.run(Hook.FROM_NETDEV, reply.build())
    return first.but(flags="A")


def send(node: Node, world: World, packet: Packet) -> Outcome:
    """Let a pod send *packet*, from here or by the other node."""
    if packet.source == world.REMOTE_POD:
        return node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    return node.run(Hook.FROM_CONTAINER, packet.build())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_kept_flow_stays_with_its_gateway(
    world: World, make_node: MakeNode, protocol: str
) -> None:
    node = make_node(KEEP)
    packet = opened(node, world, protocol)
    node.put({world.row(packet.source, world.NETWORK): world.via(world.HERE)})
    node.configure(policy_generation=1)

    assert Outcome(REDIRECT, packet.build(), 0) == send(node, world, packet)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_flow_that_is_decided_anew_changes_its_gateway(
    world: World, make_node: MakeNode, protocol: str
) -> None:
    node = make_node(REDECIDE)
    packet = opened(node, world, protocol)
    node.put({world.row(packet.source, world.NETWORK): world.via(world.HERE)})
    node.configure(policy_generation=1)
    expected = packet.but(source=world.HERE, ttl=63).build()

    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == send(node, world, packet)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_flow_that_is_decided_anew_leaves_with_its_policy(
    world: World, make_node: MakeNode, protocol: str
) -> None:
    node = make_node(REDECIDE)
    packet = opened(node, world, protocol)
    node.remove(world.row(packet.source, world.NETWORK))
    node.configure(policy_generation=1)

    assert Outcome(PASS, packet.build(), MARK_SEEN) == send(node, world, packet)


@pytest.mark.parametrize("generations", [(0, 0), (7, 7)])
def test_without_a_change_of_policies_nothing_is_decided_anew(
    world: World, make_node: MakeNode, generations: tuple[int, int]
) -> None:
    """Rows are changed first, their generation after the whole batch."""
    node = make_node(REDECIDE)
    node.configure(policy_generation=generations[0])
    packet = opened(node, world, TCP_NAME)
    node.put({world.row(packet.source, world.NETWORK): world.via(world.HERE)})
    node.configure(policy_generation=generations[1])

    assert packet.build() == send(node, world, packet).packet


def test_generations_begin_again_at_zero(world: World, make_node: MakeNode) -> None:
    node = make_node(REDECIDE)
    node.configure(policy_generation=0xFFFF)
    packet = opened(node, world, TCP_NAME)
    node.put({world.row(packet.source, world.NETWORK): world.via(world.HERE)})
    node.configure(policy_generation=0)

    assert MARK_TRANSLATED == send(node, world, packet).mark


@pytest.mark.parametrize("setup", [KEEP, REDECIDE], ids=["keep", "redecide"])
@pytest.mark.parametrize("pod", ["LOCAL_POD", "REMOTE_POD"])
@pytest.mark.parametrize("protocol", MOVABLE)
def test_a_flow_whose_row_stays_keeps_egress_ip_and_port(
    world: World, make_node: MakeNode, protocol: str, pod: str, setup: Setup
) -> None:
    """The port is not the pod's own: another socket has that."""
    node = make_node(setup)
    if protocol != "echo":
        node.run(Hook.TO_NETDEV, outbound(protocol, world.HERE, world.SERVER).build())
    packet = translated(node, world, protocol, pod)
    before, pair = send(node, world, packet), set(node.nats())
    node.configure(policy_generation=1)

    assert REDIRECT == before.verdict
    assert before == send(node, world, packet)
    assert pair == set(node.nats())


@pytest.mark.parametrize("pod", ["LOCAL_POD", "REMOTE_POD"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_flow_that_is_decided_anew_changes_its_egress_ip(
    world: World, make_node: MakeNode, protocol: str, pod: str
) -> None:
    node = make_node(REDECIDE)
    packet = translated(node, world, protocol, pod)
    through = world.via(world.HERE, world.OTHER_EGRESS_IP)
    node.put({world.row(packet.source, world.NETWORK): through})
    node.configure(policy_generation=1)
    expected = packet.but(source=world.OTHER_EGRESS_IP, ttl=63).build()

    assert expected == send(node, world, packet).packet
    assert expected == send(node, world, packet).packet
    assert 2 == len(node.nats())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_gateway_that_decides_anew_drops_what_lost_its_row(
    world: World, make_node: MakeNode, protocol: str
) -> None:
    node = make_node(REDECIDE)
    packet = translated(node, world, protocol, "REMOTE_POD")
    node.remove(world.row(packet.source, world.NETWORK))
    node.configure(policy_generation=1)

    assert Outcome(DROP, packet.build(), 0) == send(node, world, packet)
    assert 1 == node.counts()[(Reason.DROP_NO_POLICY, OUT, 0)]


@pytest.mark.parametrize("pod", ["LOCAL_POD", "REMOTE_POD"])
def test_the_stack_path_decides_anew_too(
    world: World, make_node: MakeNode, pod: str
) -> None:
    node = make_node(STACK)
    first = outbound(UDP_NAME, world.address(pod), world.SERVER)
    for egress_ip, generation in ((world.HERE, 0), (world.OTHER_EGRESS_IP, 1)):
        through = world.via(world.HERE, egress_ip)
        node.put({world.row(first.source, world.NETWORK): through})
        node.configure(policy_generation=generation)
        handed = send(node, world, first)
        routed = first.but(ttl=63)
        sent = node.run(Hook.TO_NETDEV, routed.build(), mark=handed.mark)
        reply = routed.but(source=egress_ip).reply()
        node.run(Hook.FROM_NETDEV, reply.build())

        assert MARK_OVERLAY == handed.mark
        assert routed.but(source=egress_ip).build() == sent.packet


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_flow_from_outside_is_not_decided_anew(
    world: World, make_node: MakeNode, protocol: str
) -> None:
    node = make_node(REDECIDE)
    request = outbound(protocol, world.SERVER, world.TUNNELLED_POD)
    node.run(Hook.TO_CONTAINER, request.build())
    node.configure(policy_generation=1)
    reply = request.reply()

    assert Outcome(PASS, reply.build(), MARK_SEEN) == send(node, world, reply)
