"""A pod's address counts where that pod is: where its first packet came from."""

from ipaddress import ip_address

import pytest

from bpf.harness import DROP, MARK_SEEN, PASS, REDIRECT, Node, Outcome, needs_root
from bpf.packets import ECHO_NAME, PROTOCOLS, TCP_NAME, UDP_NAME, Packet, outbound
from bpf.world import POLICY, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import EndpointEntry, EndpointFlag, EndpointKey, Hook

pytestmark = [needs_root, pytest.mark.kernel]

ELSEWHERE = 1
"""Another interface than the pod's: loopback, which every namespace has."""

REFUSED = (Reason.DROP_OTHER_INTERFACE, MetricDirection.TO_WORLD, POLICY)


def send(node: Node, packet: Packet, ifindex: int = 0) -> Outcome:
    return node.run(Hook.FROM_CONTAINER, packet.build(), ifindex=ifindex)


def own(node: Node, world: World, owner: int) -> None:
    """Give the tunnelled pod's address to the pod *owner*."""
    entry = EndpointEntry(EndpointFlag.POD, owner=owner)
    node.put({EndpointKey(ip_address(world.TUNNELLED_POD)): entry})


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("is_same_flow", [True, False])
def test_an_address_behind_another_interface_reaches_no_covered_network(
    node: Node, world: World, protocol: str, is_same_flow: bool
) -> None:
    packet = outbound(protocol, world.TUNNELLED_POD, world.SERVER)
    first = (
        packet
        if is_same_flow
        else outbound(UDP_NAME, packet.source, world.OTHER_COVERED_SERVER)
    )
    send(node, first)

    assert Outcome(DROP, packet.build(), 0) == send(node, packet, ELSEWHERE)
    assert 1 == node.counts()[REFUSED]


def test_an_address_behind_another_interface_is_left_alone_where_nothing_is_covered(
    node: Node, world: World
) -> None:
    send(node, outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER))
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.OTHER_SERVER)

    expected = Outcome(PASS, packet.build(), MARK_SEEN)
    assert expected == send(node, packet, ELSEWHERE)


def test_the_rightful_pod_goes_on_while_another_takes_its_address(
    node: Node, world: World
) -> None:
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    send(node, packet)
    send(node, packet, ELSEWHERE)

    assert REDIRECT == send(node, packet).verdict


def test_a_new_owner_of_an_address_may_be_behind_another_interface(
    node: Node, world: World
) -> None:
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    own(node, world, owner=1)
    send(node, packet)
    own(node, world, owner=2)

    assert REDIRECT == send(node, packet, ELSEWHERE).verdict
    assert DROP == send(node, packet).verdict


@pytest.mark.parametrize("protocol", [UDP_NAME, ECHO_NAME])
def test_a_flow_of_the_former_owner_is_decided_anew(
    node: Node, world: World, protocol: str
) -> None:
    """Also one that is answered, which would go on otherwise."""
    packet = outbound(protocol, world.TUNNELLED_POD, world.SERVER)
    own(node, world, owner=1)
    send(node, packet)
    node.run(Hook.FROM_OVERLAY, packet.reply().build(), tunnel=world.worker)
    node.put({world.row(world.TUNNELLED_POD, world.NETWORK): world.via(world.HERE)})
    own(node, world, owner=2)
    expected = packet.but(source=world.HERE, ttl=63).build()

    assert expected == send(node, packet, ELSEWHERE).packet


def test_a_reply_from_elsewhere_is_no_reply_of_the_pod(
    node: Node, world: World
) -> None:
    inbound = outbound(TCP_NAME, world.SERVER, world.TUNNELLED_POD)
    send(node, outbound(UDP_NAME, world.TUNNELLED_POD, world.SERVER))
    node.run(Hook.TO_CONTAINER, inbound.build())
    reply = inbound.reply().but(flags="SA")

    assert DROP == send(node, reply, ELSEWHERE).verdict
    assert PASS == send(node, reply).verdict
