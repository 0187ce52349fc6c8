"""
The XDP gateway: which packets it takes, and which it leaves to tc.

That what becomes of them is the same, the other tests here say: they run with it too.
"""

from collections.abc import Callable
from time import sleep

import pytest

from bpf import outer
from bpf.harness import DROP, PASS, REDIRECT, MakeNode, Node, Setup, needs_root
from bpf.packets import PROTOCOLS, SCTP_NAME, TCP_NAME, UDP_NAME, Packet, outbound
from bpf.world import POLICY, World, gateway_entries
from outgate.kernel.layouts import XDP_DEVICE, XDP_DEVICE_KEY
from outgate.kernel.maps import MapName, encode_key
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.kernel.settings import GatewayPath
from outgate.state.entries import Hook, NodeKey

pytestmark = [needs_root, pytest.mark.kernel]

PADDING = b"\0"
FIRST_BUFFER = 3520
"""Bytes that BPF_PROG_TEST_RUN puts into it."""

OUT, IN = MetricDirection.TO_WORLD, MetricDirection.TO_POD


@pytest.fixture
def node(shared_node: MakeNode, world: World) -> Node:
    """The gateway, with XDP on its uplink."""
    node = shared_node(Setup(has_xdp=True))
    node.reset()
    node.put(gateway_entries(world))
    return node


def established(protocol: str, world: World) -> Packet:
    """Return what a pod of the other node sends, not the first packet of TCP."""
    packet = outbound(protocol, world.REMOTE_POD, world.SERVER)
    return packet.but(flags="A") if protocol == TCP_NAME else packet


def is_taken(node: Node, world: World, packet: Packet, *, to_pod: bool = False) -> bool:
    """Tell whether XDP sends *packet*, which must not be dropped."""
    assert node.xdp
    before = node.xdp.taken
    if to_pod:
        outcome = node.run(Hook.FROM_NETDEV, packet.build())
    else:
        outcome = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    assert outcome.verdict == REDIRECT
    return node.xdp.taken > before


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_known_flow_is_taken_after_its_first_packet(
    node: Node, world: World, protocol: str
) -> None:
    packet = established(protocol, world)
    seen = [is_taken(node, world, packet) for _ in range(4)]

    assert (seen[0], seen[2:]) == (False, [True, True])
    assert {(Reason.FORWARDED, OUT, POLICY): 4} == node.counts()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_replies_are_taken_once_the_way_is_known(
    node: Node, world: World, protocol: str
) -> None:
    packet = established(protocol, world)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    reply = packet.but(source=world.HERE).reply()
    seen = [is_taken(node, world, reply, to_pod=True) for _ in range(4)]

    is_possible = protocol != SCTP_NAME or world.outer == 4
    assert [is_possible] * 2 == seen[2:]
    assert {
        (Reason.FORWARDED, OUT, POLICY): 1,
        (Reason.FORWARDED, IN, POLICY): 4,
    } == node.counts()


def test_a_short_reply_that_its_link_padded_is_taken(node: Node, world: World) -> None:
    """IPv6's are longer than what links pad."""
    packet = established(TCP_NAME, world)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    reply = packet.but(source=world.HERE, payload=b"").reply()
    frames = [reply.build().ljust(60, PADDING) for _ in range(3)]
    seen = [node.run(Hook.FROM_NETDEV, frame).packet for frame in frames]

    assert node.xdp
    assert node.xdp.taken >= 1
    to_pod = reply.but(destination=world.REMOTE_POD, ttl=63)
    assert {to_pod.build().ljust(60, PADDING)} == set(seen)


def without_policy(node: Node, world: World) -> None:
    """Take the pod's row away: its flows go on."""
    node.remove(world.row(world.REMOTE_POD, world.NETWORK))


def moved(node: Node, world: World) -> None:
    """Routes changed: the flow's way must be looked up anew."""
    del world
    node.configure()


def without_device(node: Node, world: World) -> None:
    """XDP may not send out of the uplink any more."""
    moved(node, world)
    with node.table(MapName.XDP_DEVICE) as table:
        assert not table.remove_many([XDP_DEVICE_KEY.pack(node.uplink)])


def with_small_device(node: Node, world: World) -> None:
    """The packet does not fit the uplink any more."""
    moved(node, world)
    with node.table(MapName.XDP_DEVICE) as table:
        table.put(XDP_DEVICE_KEY.pack(node.uplink), XDP_DEVICE.pack(30, True))


CHANGES: dict[Callable[[Node, World], None], tuple[bool, bool]] = {
    without_policy: (True, True),
    moved: (False, True),
    without_device: (False, False),
    with_small_device: (False, False),
}
"""Are a flow's first packets after it taken, and its later ones?"""


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_after_a_change_a_flow_is_taken_only_where_nothing_is_to_be_decided(
    node: Node, world: World, change: Callable[[Node, World], None]
) -> None:
    packet = established(TCP_NAME, world)
    reply = packet.but(source=world.HERE).reply()

    def both_ways() -> tuple[bool, bool]:
        out = is_taken(node, world, packet)
        return out, is_taken(node, world, reply, to_pod=True)

    for _ in range(3):
        both_ways()
    change(node, world)
    first = both_ways()
    both_ways()
    later = both_ways()

    assert (first, later) == tuple((taken, taken) for taken in CHANGES[change])


def test_a_former_node_is_believed_for_a_second_at_most(
    node: Node, world: World
) -> None:
    """Nobody says that it went; an agent would, and routes would be asked for anew."""
    assert node.xdp
    packet = established(TCP_NAME, world)
    taken = [is_taken(node, world, packet) for _ in range(3)]
    before = node.xdp.taken
    name, key = encode_key(NodeKey(world.worker))
    with node.table(name) as table:
        assert not table.remove_many([key])
    sleep(1.1)
    seen = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)

    assert taken[-1]
    assert (DROP, before) == (seen.verdict, node.xdp.taken)


@pytest.mark.parametrize("flags", ["S", "SA"])
def test_what_opens_a_connection_is_left_to_tc(
    node: Node, world: World, flags: str
) -> None:
    packet = established(TCP_NAME, world)
    reply = packet.but(source=world.HERE, flags=flags).reply()
    for _ in range(3):
        is_taken(node, world, packet)

    assert not is_taken(node, world, reply, to_pod=True)
    assert not is_taken(node, world, packet.but(flags="S"))


def test_on_path_stack_nothing_is_taken(shared_node: MakeNode, world: World) -> None:
    node = shared_node(Setup(has_xdp=True, gateway_path=GatewayPath.STACK))
    node.reset()
    node.put(gateway_entries(world))
    packet = established(UDP_NAME, world)
    reply = packet.but(source=world.HERE).reply()
    sent, answered = [], []
    for _ in range(3):
        routed = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
        sent.append(node.run(Hook.TO_NETDEV, routed.packet, mark=routed.mark).verdict)
        answered.append(node.run(Hook.FROM_NETDEV, reply.build()).verdict)

    assert ([PASS] * 3, [REDIRECT] * 3) == (sent, answered)
    assert node.xdp
    assert not node.xdp.taken


def test_a_frame_in_several_buffers_is_left_to_tc(node: Node, world: World) -> None:
    """Even where its header says that it ends with the first of them."""
    small = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    moved(node, world)
    with node.table(MapName.XDP_DEVICE) as table:
        table.put(XDP_DEVICE_KEY.pack(node.uplink), XDP_DEVICE.pack(9000, True))
    for _ in range(3):
        is_taken(node, world, small)
    spare = FIRST_BUFFER - len(outer.wrap(small.but(payload=b"").build(), world.worker))
    whole = outer.wrap(small.but(payload=bytes(spare)).build(), world.worker)
    assert node.xdp
    before = node.xdp.taken
    taken = node.run(Hook.FROM_NETDEV, whole).verdict
    left = node.run(Hook.FROM_NETDEV, whole + bytes(100)).verdict

    assert (taken, left, node.xdp.taken) == (REDIRECT, PASS, before + 1)


def test_without_a_neighbour_packets_are_left_to_tc(
    own_node: Node, world: World
) -> None:
    packet = established(TCP_NAME, world)
    reply = packet.but(source=world.HERE).reply()
    own_node.ip("neighbour", "flush", "all", "nud", "permanent")
    for _ in range(4):
        own_node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
        own_node.run(Hook.FROM_NETDEV, reply.build())

    assert not own_node.xdp or not own_node.xdp.taken
