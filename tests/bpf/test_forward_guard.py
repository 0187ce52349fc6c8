"""forward-guard: real packets through the host's stack, with and without the hooks."""

from collections.abc import Callable, Iterator

import pytest

from bpf.forwarding import ROUTER_MAC, UPLINK_MAC, Forwarder, forwarding, on_wire
from bpf.harness import MARK_OVERLAY, MARK_SEEN, MARK_TRANSLATED, Node, needs_root
from bpf.icmp_errors import IcmpError
from bpf.packets import (
    HOST_MAC,
    MOVABLE,
    POD_MAC,
    TCP_NAME,
    UDP_NAME,
    outbound,
    over_ip,
)
from bpf.world import POLICY, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD
OTHERS = 0xFFFFFF8F
"""Every bit of a mark that is not ours."""

UNSEEN = {(Reason.DROP_UNSEEN_POD, OUT, POLICY): 1}
UNTRANSLATED = {(Reason.DROP_UNTRANSLATED, OUT, 0): 1}


@pytest.fixture(scope="module")
def one_forwarder() -> Iterator[Forwarder]:
    """A node for all tests here."""
    with forwarding() as forwarder:
        yield forwarder


@pytest.fixture
def unguarded(one_forwarder: Forwarder, world: World) -> Forwarder:
    """A node without a guard whose pod's veth has no program yet."""
    one_forwarder.start(world)
    return one_forwarder


@pytest.fixture
def forwarder(unguarded: Forwarder) -> Forwarder:
    """The same with its guard."""
    unguarded.guard()
    return unguarded


@pytest.fixture
def node(one_forwarder: Forwarder) -> Node:
    """The datapath of the same node."""
    return one_forwarder.node


@pytest.mark.parametrize("protocol", MOVABLE)
def test_without_the_guard_an_unhooked_pod_leaves_as_the_node(
    unguarded: Forwarder, world: World, protocol: str
) -> None:
    """The hole: to-netdev sees the node's own address."""
    packet = outbound(protocol, world.LOCAL_POD, world.SERVER)

    assert on_wire(packet.but(source=world.HERE)) == unguarded.send(packet.build())


@pytest.mark.parametrize("pod", ["LOCAL_POD", "FREE_POD", "UNKNOWN_POD"])
@pytest.mark.parametrize("protocol", MOVABLE)
def test_forward_guard_drops_an_unhooked_pods_packet_to_a_covered_network(
    node: Node, world: World, forwarder: Forwarder, protocol: str, pod: str
) -> None:
    packet = outbound(protocol, world.address(pod), world.SERVER)

    assert None is forwarder.send(packet.build())
    assert UNSEEN == node.counts()


def gre(world: World) -> bytes:
    return over_ip(world.LOCAL_POD, world.SERVER, 47, bytes(4))


def refusal(world: World) -> bytes:
    """Return an ICMP error about what is no flow."""
    quoted = outbound(UDP_NAME, world.SERVER, world.LOCAL_POD)
    return IcmpError(world.LOCAL_POD, quoted).build()


@pytest.mark.parametrize("build", [gre, refusal])
def test_forward_guard_drops_protocols_that_nobody_translates(
    node: Node, world: World, forwarder: Forwarder, build: Callable[[World], bytes]
) -> None:
    assert None is forwarder.send(build(world))
    assert UNSEEN == node.counts()


@pytest.mark.parametrize("protocol", MOVABLE)
def test_forward_guard_lets_an_unhooked_pod_reach_what_no_policy_covers(
    node: Node, world: World, forwarder: Forwarder, protocol: str
) -> None:
    packet = outbound(protocol, world.UNKNOWN_POD, world.OTHER_SERVER)

    assert on_wire(packet.but(source=world.HERE)) == forwarder.send(packet.build())
    assert {} == node.counts()


def test_forward_guard_lets_an_unhooked_pod_reach_the_cluster(
    node: Node, world: World, forwarder: Forwarder
) -> None:
    """10.0.0.0/8 is covered, and 10.0.1.42 is a pod of another node."""
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.REMOTE_POD)

    assert on_wire(packet) == forwarder.send(packet.build())
    assert {} == node.counts()


@pytest.mark.parametrize("source", ["REMOTE_POD", "STRANGER"])
def test_forward_guard_leaves_what_comes_from_elsewhere_to_the_host(
    node: Node, world: World, forwarder: Forwarder, source: str
) -> None:
    """A pod of another node is that node's to guard; to-netdev has its own say."""
    packet = outbound(TCP_NAME, world.address(source), world.SERVER)
    forwarder.send(packet.build())

    assert (Reason.DROP_UNSEEN_POD, OUT, POLICY) not in node.counts()


@pytest.mark.parametrize("protocol", MOVABLE)
def test_forward_guard_lets_a_hooked_pod_without_a_policy_pass(
    node: Node, world: World, forwarder: Forwarder, protocol: str
) -> None:
    forwarder.hook_pod()
    packet = outbound(protocol, world.FREE_POD, world.SERVER)

    assert on_wire(packet.but(source=world.HERE)) == forwarder.send(packet.build())
    assert {} == node.counts()


@pytest.mark.parametrize("protocol", MOVABLE)
def test_forward_guard_lets_a_hooked_pod_answer_who_called_it(
    node: Node, world: World, forwarder: Forwarder, protocol: str
) -> None:
    macs = {"source_mac": ROUTER_MAC, "destination_mac": UPLINK_MAC}
    request = outbound(protocol, world.SERVER, world.LOCAL_POD).but(**macs)
    forwarder.hook_pod()
    received = forwarder.receive(request.build())
    to_pod = request.but(ttl=63, source_mac=HOST_MAC, destination_mac=POD_MAC)
    reply = to_pod.reply().but(ttl=64)

    assert to_pod.build() == received
    assert on_wire(reply) == forwarder.send(reply.build())
    assert {} == node.counts()


def test_forward_guard_drops_an_answer_that_from_container_never_saw(
    node: Node, world: World, forwarder: Forwarder
) -> None:
    """Who called cannot be told without the hooks: closed by default."""
    macs = {"source_mac": ROUTER_MAC, "destination_mac": UPLINK_MAC}
    request = outbound(UDP_NAME, world.SERVER, world.LOCAL_POD).but(**macs)
    forwarder.receive(request.build())
    reply = request.reply().but(source_mac=POD_MAC, destination_mac=HOST_MAC)

    assert None is forwarder.send(reply.build())
    assert UNSEEN == node.counts()


@pytest.mark.parametrize("others", [0, OTHERS])
@pytest.mark.parametrize(
    ("mark", "counts"),
    [
        (MARK_SEEN, {}),
        (MARK_OVERLAY, UNTRANSLATED),
        (MARK_TRANSLATED, UNSEEN),
        (0, UNSEEN),
        (MARK_SEEN | MARK_TRANSLATED, UNSEEN),
    ],
    ids=["seen", "overlay", "translated", "none", "two"],
)
def test_forward_guard_believes_only_its_own_marks(
    node: Node,
    world: World,
    forwarder: Forwarder,
    mark: int,
    counts: dict[object, int],
    others: int,
) -> None:
    """Overlay gets as far as to-netdev, which finds no flow for it."""
    packet = outbound(TCP_NAME, world.FREE_POD, world.SERVER)
    expected = on_wire(packet.but(source=world.HERE)) if not counts else None

    assert expected == forwarder.send(packet.build(), mark | others)
    assert counts == node.counts()
