"""
The XDP gateway: which packets it takes, and which it leaves to tc.

That what becomes of them is the same, the other tests here say: they run with it too.
"""

import pytest

from bpf.harness import REDIRECT, MakeNode, Node, Setup, needs_root
from bpf.packets import PROTOCOLS, Packet, outbound
from bpf.world import POLICY, World, gateway_entries
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD


@pytest.fixture
def node(shared_node: MakeNode, world: World) -> Node:
    """The gateway, with XDP on its uplink."""
    node = shared_node(Setup(has_xdp=True))
    node.reset()
    node.put(gateway_entries(world))
    return node


def taken(node: Node, packet: Packet, world: World) -> bool:
    """Tell whether XDP sends what the pod's node tunnels here."""
    assert node.xdp
    before = node.xdp.taken
    assert node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker).verdict == (
        REDIRECT
    )
    return node.xdp.taken > before


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_known_flow_is_taken_after_its_first_packet(
    node: Node, world: World, protocol: str
) -> None:
    packet = outbound(protocol, world.REMOTE_POD, world.SERVER)
    if protocol == "tcp":
        packet = packet.but(flags="A")
    seen = [taken(node, packet, world) for _ in range(4)]

    assert (seen[0], seen[2:]) == (False, [True, True])
    assert {(Reason.FORWARDED, OUT, POLICY): 4} == node.counts()
