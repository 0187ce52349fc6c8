"""
What a pod sends to a node's tunnel port.

Where the network plugin masquerades it, it would arrive from the pod's node, which the
other node believes: the pod could speak for every pod of its node.
"""

from dataclasses import replace

import pytest

from bpf.harness import DROP, PASS, TUNNEL_PORT, Node, needs_root
from bpf.packets import TCP_NAME, UDP_NAME, outbound
from bpf.world import World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD


@pytest.mark.parametrize("pod", ["LOCAL_POD", "FREE_POD", "UNKNOWN_POD"])
@pytest.mark.parametrize("to", ["HERE", "ELSEWHERE"])
def test_no_pod_reaches_the_tunnel_port_of_a_node(
    node: Node, world: World, pod: str, to: str
) -> None:
    packet = outbound(UDP_NAME, getattr(world, pod), getattr(world, to))
    frame = replace(packet, destination_port=TUNNEL_PORT).build()
    outcome = node.run(Hook.FROM_CONTAINER, frame)

    assert (DROP, frame) == (outcome.verdict, outcome.packet)
    assert {(Reason.DROP_FORGED_TUNNEL, OUT, 0): 1} == node.counts()


def test_other_ports_of_nodes_are_left_alone(node: Node, world: World) -> None:
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.ELSEWHERE)
    tcp = outbound(TCP_NAME, world.LOCAL_POD, world.ELSEWHERE)
    for frame in (
        packet.build(),
        replace(packet, destination_port=TUNNEL_PORT + 1).build(),
        replace(tcp, destination_port=TUNNEL_PORT).build(),
    ):
        assert node.run(Hook.FROM_CONTAINER, frame).verdict == PASS
    assert {} == node.counts()


def test_the_port_is_closed_at_nodes_alone(node: Node, world: World) -> None:
    packet = outbound(UDP_NAME, world.FREE_POD, world.OTHER_SERVER)
    frame = replace(packet, destination_port=TUNNEL_PORT).build()

    assert node.run(Hook.FROM_CONTAINER, frame).verdict == PASS
