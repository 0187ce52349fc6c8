"""A flow that lives ends when its gateway loses the egress IP: no other is used."""

from ipaddress import ip_address

import pytest

from bpf.harness import DROP, PASS, MakeNode, Node, Outcome, Setup, needs_root
from bpf.packets import Packet, outbound
from bpf.world import POLICY, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.kernel.settings import GatewayPath
from outgate.state.entries import EndpointEntry, EndpointFlag, EndpointKey, Family, Hook

pytestmark = [needs_root, pytest.mark.kernel]

FLOATING = {Family.V4: "192.0.2.77", Family.V6: "2001:db8:2::77"}
"""An egress IP beside the gateway's own addresses."""

LOST = (Reason.DROP_NO_EGRESS_IP, MetricDirection.TO_WORLD, POLICY)


@pytest.fixture(params=list(GatewayPath))
def gateway(request: pytest.FixtureRequest, make_node: MakeNode) -> Node:
    """The gateway, by either path."""
    return make_node(Setup(gateway_path=request.param))


@pytest.fixture
def packet(gateway: Node, world: World) -> Packet:
    """Return a packet of the pod on this gateway, which leaves as the floating one."""
    egress_ip = FLOATING[world.family]
    gateway.put(
        {
            EndpointKey(ip_address(egress_ip)): EndpointEntry(
                EndpointFlag.HOST, is_egress_ip=True
            ),
            world.row(world.LOCAL_POD, world.NETWORK): world.via(world.HERE, egress_ip),
        }
    )
    return outbound("tcp", world.LOCAL_POD, world.SERVER)


def send(gateway: Node, packet: Packet) -> Outcome:
    """Send from the pod; in path ``stack`` the host then routes to the uplink."""
    outcome = gateway.run(Hook.FROM_CONTAINER, packet.build())
    if outcome.verdict == PASS:
        routed = packet.but(ttl=packet.ttl - 1).build()
        return gateway.run(Hook.TO_NETDEV, routed, mark=outcome.mark)
    return outcome


def test_a_flow_ends_when_its_egress_ip_leaves_the_node(
    gateway: Node, world: World, packet: Packet
) -> None:
    egress_ip = FLOATING[world.family]
    assert DROP != send(gateway, packet).verdict
    reply = packet.but(source=egress_ip).reply().build()
    gateway.run(Hook.FROM_NETDEV, reply)
    gateway.remove(EndpointKey(ip_address(egress_ip)))
    gateway.configure()

    assert DROP == send(gateway, packet.but(flags="A")).verdict
    assert 1 == gateway.counts()[LOST]


def test_a_flow_goes_on_while_other_addresses_change(
    gateway: Node, world: World, packet: Packet
) -> None:
    send(gateway, packet)
    gateway.configure()
    expected = packet.but(flags="A", source=FLOATING[world.family], ttl=63).build()

    assert expected == send(gateway, packet.but(flags="A")).packet
