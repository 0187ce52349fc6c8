"""
The XDP gateway: which packets it takes, and which it leaves to tc.

That what becomes of them is the same, the other tests here say: they run with it too.
"""

import pytest

from bpf.harness import REDIRECT, MakeNode, Node, Setup, needs_root
from bpf.packets import PROTOCOLS, SCTP_NAME, TCP_NAME, Packet, outbound
from bpf.world import POLICY, World, gateway_entries
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

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
