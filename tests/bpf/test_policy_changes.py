"""
Flows that live when their rows change or vanish, on each node and path.

Beside ``test_existing_flows.py``: what becomes of a row, here of every kind; and whose
replies arrive where.
"""

from collections.abc import Callable

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
from bpf.packets import PROTOCOLS, TCP_NAME, UDP_NAME, Packet, outbound
from bpf.sctp import association
from bpf.world import POLICY, World, gateway_entries
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.kernel.settings import ExistingFlows, GatewayPath
from outgate.state.entries import Excluded, Hook, NoEgressIP, NoGateway, PolicyKey

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD
ALL_PROTOCOLS = (*PROTOCOLS, "sctp")
PODS = pytest.mark.parametrize("pod", ["LOCAL_POD", "REMOTE_POD"])


@pytest.fixture(params=list(GatewayPath))
def path(request: pytest.FixtureRequest) -> GatewayPath:
    """The setting ``gateway-path``."""
    path: GatewayPath = request.param
    return path


def send(node: Node, world: World, packet: Packet) -> Outcome:
    """Let a pod send *packet*, from here or by the other node, up to the uplink."""
    if packet.source == world.REMOTE_POD:
        sent = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    else:
        sent = node.run(Hook.FROM_CONTAINER, packet.build())
    if sent.mark == MARK_OVERLAY:
        routed = packet.but(ttl=packet.ttl - 1).build()
        sent = node.run(Hook.TO_NETDEV, routed, mark=sent.mark)
    return sent


def left(packet: Packet, egress_ip: str, path: GatewayPath) -> Outcome:
    """Return how *packet* leaves under *egress_ip*; the stack's routing is not here."""
    verdict = PASS if path is GatewayPath.STACK else REDIRECT
    frame = packet.but(source=egress_ip, ttl=packet.ttl - 1).build()
    return Outcome(verdict, frame, MARK_TRANSLATED)


def first_packet(world: World, protocol: str, pod: str) -> Packet:
    if protocol == "sctp":
        return association(world.address(pod), world.SERVER)
    return outbound(protocol, world.address(pod), world.SERVER)


def answered(node: Node, world: World, protocol: str, pod: str) -> Packet:
    """Return a later packet of a flow that left here as HERE, and was answered."""
    first = first_packet(world, protocol, pod)
    send(node, world, first)
    node.run(Hook.FROM_NETDEV, first.but(source=world.HERE).reply().build())
    return first.but(flags="A")


def tunnelled(node: Node, world: World, protocol: str) -> Packet:
    """Return a later packet of a flow that went to ELSEWHERE, and was answered."""
    first = first_packet(world, protocol, "TUNNELLED_POD")
    send(node, world, first)
    node.run(Hook.FROM_OVERLAY, first.reply().build(), tunnel=world.worker)
    return first.but(flags="A")


Change = Callable[[Node, World, str], None]
"""What becomes of the row of a pod at an address."""


def removed(node: Node, world: World, pod: str) -> None:
    node.remove(world.row(pod, world.NETWORK))


def all_removed(node: Node, world: World, pod: str) -> None:
    keys = (key for key in gateway_entries(world) if isinstance(key, PolicyKey))
    node.remove(*keys)


def excluded(node: Node, world: World, pod: str) -> None:
    node.put({world.row(pod, world.NETWORK): Excluded(POLICY)})


def without_gateway(node: Node, world: World, pod: str) -> None:
    node.put({world.row(pod, world.NETWORK): NoGateway(POLICY)})


def without_egress_ip(node: Node, world: World, pod: str) -> None:
    here = world.tunnel_address(world.HERE)
    node.put({world.row(pod, world.NETWORK): NoEgressIP(here, POLICY)})


def to_third_node(node: Node, world: World, pod: str) -> None:
    node.put({world.row(pod, world.NETWORK): world.via(world.THIRD)})


def to_other_egress_ip(node: Node, world: World, pod: str) -> None:
    through = world.via(world.HERE, world.OTHER_EGRESS_IP)
    node.put({world.row(pod, world.NETWORK): through})


CHANGES = (
    *(removed, all_removed, excluded, without_gateway, without_egress_ip),
    *(to_third_node, to_other_egress_ip),
)


def apply(node: Node, world: World, packet: Packet, change: Change) -> None:
    """Change the rows, then their generation, as the agent does."""
    change(node, world, packet.source)
    node.configure(policy_generation=1)


@PODS
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("protocol", ALL_PROTOCOLS)
def test_the_gateway_keeps_a_flow_whatever_becomes_of_its_row(
    make_node: MakeNode,
    world: World,
    path: GatewayPath,
    protocol: str,
    change: Change,
    pod: str,
) -> None:
    """Its egress IP, its port, and the way of its replies; also after idle seconds."""
    node = make_node(Setup(gateway_path=path))
    packet = answered(node, world, protocol, pod)
    pair = set(node.nats())
    apply(node, world, packet, change)
    reply = packet.but(source=world.HERE).reply()
    for pause in (0, 5, 30):
        node.age(pause)
        assert left(packet, world.HERE, path) == send(node, world, packet)
        received = node.run(Hook.FROM_NETDEV, reply.build())
        back = reply.but(destination=packet.source, ttl=63)
        if pod == "LOCAL_POD":
            macs = (packet.destination_mac, packet.source_mac)
            back = back.but(source_mac=macs[0], destination_mac=macs[1])
        assert Outcome(REDIRECT, back.build(), 0) == received
    assert pair == set(node.nats())


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("protocol", ALL_PROTOCOLS)
def test_the_pods_node_keeps_a_flow_whatever_becomes_of_its_row(
    make_node: MakeNode,
    world: World,
    path: GatewayPath,
    protocol: str,
    change: Change,
) -> None:
    node = make_node(Setup(gateway_path=path))
    packet = tunnelled(node, world, protocol)
    apply(node, world, packet, change)
    reply = packet.reply().build()
    for pause in (0, 5, 30):
        node.age(pause)
        received = node.run(Hook.FROM_OVERLAY, reply, tunnel=world.worker)
        assert Outcome(REDIRECT, packet.build(), 0) == send(node, world, packet)
        assert Outcome(REDIRECT, reply, 0) == received


REFUSALS: list[tuple[Change, str, Reason, int]] = [
    (without_gateway, "TUNNELLED_POD", Reason.DROP_NO_GATEWAY, POLICY),
    (without_gateway, "LOCAL_POD", Reason.DROP_NO_GATEWAY, POLICY),
    (without_gateway, "REMOTE_POD", Reason.DROP_NO_GATEWAY, POLICY),
    (without_egress_ip, "TUNNELLED_POD", Reason.DROP_NO_EGRESS_IP, POLICY),
    (without_egress_ip, "LOCAL_POD", Reason.DROP_NO_EGRESS_IP, POLICY),
    (without_egress_ip, "REMOTE_POD", Reason.DROP_NO_EGRESS_IP, POLICY),
    (removed, "REMOTE_POD", Reason.DROP_NO_POLICY, 0),
    (all_removed, "REMOTE_POD", Reason.DROP_NO_POLICY, 0),
    (excluded, "REMOTE_POD", Reason.DROP_NO_POLICY, 0),
    (to_third_node, "REMOTE_POD", Reason.DROP_NO_POLICY, POLICY),
]


def begun(node: Node, world: World, protocol: str, pod: str) -> Packet:
    """Return a later packet of a pod's flow, by whichever gateway."""
    if pod == "TUNNELLED_POD":
        return tunnelled(node, world, protocol)
    return answered(node, world, protocol, pod)


@pytest.mark.parametrize(("change", "pod", "reason", "policy"), REFUSALS)
@pytest.mark.parametrize("protocol", ALL_PROTOCOLS)
def test_a_flow_that_is_decided_anew_is_dropped_where_its_row_says_so(
    make_node: MakeNode,
    world: World,
    path: GatewayPath,
    protocol: str,
    change: Change,
    pod: str,
    reason: Reason,
    policy: int,
) -> None:
    node = make_node(Setup(path, ExistingFlows.REDECIDE))
    packet = begun(node, world, protocol, pod)
    apply(node, world, packet, change)
    for _ in range(2):
        assert Outcome(DROP, packet.build(), 0) == send(node, world, packet)

    assert 2 == node.counts()[(reason, OUT, policy)]


@pytest.mark.parametrize("change", [removed, all_removed, excluded])
@pytest.mark.parametrize("pod", ["TUNNELLED_POD", "LOCAL_POD"])
@pytest.mark.parametrize("protocol", ALL_PROTOCOLS)
def test_a_flow_that_is_decided_anew_is_left_alone_once_nothing_covers_it(
    make_node: MakeNode,
    world: World,
    path: GatewayPath,
    protocol: str,
    pod: str,
    change: Change,
) -> None:
    node = make_node(Setup(path, ExistingFlows.REDECIDE))
    packet = begun(node, world, protocol, pod)
    apply(node, world, packet, change)

    assert Outcome(PASS, packet.build(), MARK_SEEN) == send(node, world, packet)


@pytest.mark.parametrize("protocol", ALL_PROTOCOLS)
def test_a_flow_that_is_decided_anew_leaves_its_gateway_for_another(
    make_node: MakeNode, world: World, path: GatewayPath, protocol: str
) -> None:
    """From here to ELSEWHERE; a reply from there is delivered."""
    node = make_node(Setup(path, ExistingFlows.REDECIDE))
    packet = answered(node, world, protocol, "LOCAL_POD")
    row = world.row(world.LOCAL_POD, world.NETWORK)
    node.put({row: world.via(world.ELSEWHERE)})
    node.configure(policy_generation=1)
    reply = packet.reply().build()
    sent = send(node, world, packet)
    received = node.run(Hook.FROM_OVERLAY, reply, tunnel=world.worker)

    assert Outcome(REDIRECT, packet.build(), 0) == sent
    assert Outcome(REDIRECT, reply, 0) == received


@PODS
@pytest.mark.parametrize("protocol", ALL_PROTOCOLS)
def test_a_flow_that_is_decided_anew_hears_no_more_under_its_former_egress_ip(
    make_node: MakeNode, world: World, path: GatewayPath, protocol: str, pod: str
) -> None:
    """Its port there is free for others."""
    node = make_node(Setup(path, ExistingFlows.REDECIDE))
    packet = answered(node, world, protocol, pod)
    apply(node, world, packet, to_other_egress_ip)
    former = packet.but(source=world.HERE).reply().build()
    sent = send(node, world, packet)

    assert left(packet, world.OTHER_EGRESS_IP, path) == sent
    assert Outcome(PASS, former, 0) == node.run(Hook.FROM_NETDEV, former)


@PODS
@pytest.mark.parametrize("protocol", ALL_PROTOCOLS)
def test_a_flow_whose_row_says_the_same_is_not_touched(
    make_node: MakeNode, world: World, path: GatewayPath, protocol: str, pod: str
) -> None:
    """However often rows change elsewhere."""
    node = make_node(Setup(path, ExistingFlows.REDECIDE))
    packet = answered(node, world, protocol, pod)
    pair, expected = set(node.nats()), left(packet, world.HERE, path)
    for generation in (1, 2, 0):
        node.configure(policy_generation=generation)
        assert expected == send(node, world, packet)
        assert pair == set(node.nats())


@pytest.mark.parametrize("existing", list(ExistingFlows))
@pytest.mark.parametrize("protocol", [TCP_NAME, UDP_NAME])
def test_a_new_flow_meets_the_new_row_at_once(
    make_node: MakeNode, world: World, protocol: str, existing: ExistingFlows
) -> None:
    node = make_node(Setup(existing_flows=existing))
    packet = answered(node, world, protocol, "REMOTE_POD")
    apply(node, world, packet, to_other_egress_ip)
    new = outbound(protocol, world.REMOTE_POD, world.SERVER, port=40001)

    assert left(new, world.OTHER_EGRESS_IP, GatewayPath.DIRECT) == send(
        node, world, new
    )
