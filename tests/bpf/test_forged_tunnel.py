"""
What a pod sends to a node's tunnel port.

Where the network plugin masquerades it, it would arrive from the pod's node, which the
other node believes: the pod could speak for every pod of its node.
"""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from bpf.harness import DROP, PASS, TUNNEL_PORT, Node, Outcome, needs_root
from bpf.packets import (
    DESTINATION_OPTIONS,
    TCP_NAME,
    UDP_NAME,
    options_header,
    outbound,
)
from bpf.world import IPV6, IPV6_OVER_IPV4, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import EndpointEntry, EndpointFlag, EndpointKey, Family, Hook

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


BESIDE = {
    Family.V4: ("224.0.0.1", "255.255.255.255", "169.254.1.1"),
    Family.V6: ("ff02::1", "ff05::2", "fe80::1"),
}
"""Where a node's socket listens too, without an address that anybody entered."""


@pytest.mark.parametrize("number", range(3))
def test_no_pod_reaches_the_tunnel_port_of_its_node_by_the_link(
    node: Node, world: World, number: int
) -> None:
    """With the other node's address as a forged source, it would be believed."""
    packet = outbound(UDP_NAME, world.ELSEWHERE, BESIDE[world.family][number])
    frame = packet.but(destination_port=TUNNEL_PORT).build()

    assert Outcome(DROP, frame, 0) == node.run(Hook.FROM_CONTAINER, frame)


@pytest.mark.parametrize("address", ["POD_ROUTER", "OTHER_EGRESS_IP"])
def test_no_pod_reaches_the_tunnel_port_by_another_address_of_its_node(
    node: Node, world: World, address: str
) -> None:
    """Those are entered as the host's endpoints, not as a node in the ipcache."""
    destination = world.address(address)
    entry = EndpointEntry(EndpointFlag.HOST)
    node.put({EndpointKey(ip_address(destination)): entry})
    packet = outbound(UDP_NAME, world.ELSEWHERE, destination)
    frame = packet.but(destination_port=TUNNEL_PORT).build()

    assert Outcome(DROP, frame, 0) == node.run(Hook.FROM_CONTAINER, frame)


@pytest.mark.parametrize("world", [IPV6, IPV6_OVER_IPV4], ids=lambda w: w.name)
@pytest.mark.parametrize("to", ["HERE", "ELSEWHERE"])
def test_no_extension_headers_hide_the_tunnel_port(
    node: Node, world: World, to: str
) -> None:
    """More of them than are walked; hosts do walk them."""
    packet = outbound(UDP_NAME, world.FREE_POD, world.address(to))
    options = (options_header(DESTINATION_OPTIONS),) * 7
    frame = packet.but(destination_port=TUNNEL_PORT, extensions=options).build()

    assert Outcome(DROP, frame, 0) == node.run(Hook.FROM_CONTAINER, frame)
