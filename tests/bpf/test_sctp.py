"""SCTP: addresses are translated, ports and checksum stay, or the packet is dropped."""

from functools import partial

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
from bpf.icmp_errors import KINDS, IcmpError
from bpf.packets import ETHERNET, HOST_MAC, POD_MAC, Packet
from bpf.sctp import SctpPacket, association
from bpf.world import POLICY, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection, NatDirection
from outgate.kernel.settings import GatewayPath
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD
PODS = pytest.mark.parametrize("pod", ["LOCAL_POD", "REMOTE_POD"])


def send(node: Node, world: World, packet: Packet) -> Outcome:
    """Let a pod send *packet*, from here or by the other node, up to the uplink."""
    if packet.source in (world.REMOTE_POD, world.OTHER_REMOTE_POD):
        sent = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    else:
        sent = node.run(Hook.FROM_CONTAINER, packet.build())
    if sent.mark == MARK_OVERLAY:
        sent = node.run(Hook.TO_NETDEV, sent.packet, mark=sent.mark)
    return sent


def transport(frame: bytes, world: World) -> bytes:
    """Return what follows the IP header."""
    return frame[ETHERNET + world.ip_size :]


def other_pod(node: Node, world: World, port: int = 40000) -> SctpPacket:
    """Return a packet of another pod, which the policy selects too."""
    node.put({world.row(world.OTHER_REMOTE_POD, world.NETWORK): world.via(world.HERE)})
    return association(world.OTHER_REMOTE_POD, world.SERVER, port)


@PODS
def test_only_the_address_changes_on_the_way_out(
    node: Node, world: World, pod: str
) -> None:
    packet = association(world.address(pod), world.SERVER)
    expected = packet.but(source=world.HERE, ttl=63).build()
    sent = send(node, world, packet)

    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == sent
    assert transport(packet.build(), world) == transport(sent.packet, world)
    assert 2 == len(node.nats())


@PODS
def test_only_the_address_changes_on_the_stacks_way_out(
    world: World, make_node: MakeNode, pod: str
) -> None:
    node = make_node(Setup(gateway_path=GatewayPath.STACK))
    packet = association(world.address(pod), world.SERVER)
    sent = send(node, world, packet)

    assert (PASS, MARK_TRANSLATED) == (sent.verdict, sent.mark)
    assert packet.but(source=world.HERE).build()[ETHERNET:] == sent.packet[ETHERNET:]


def test_only_the_address_changes_on_the_way_back(node: Node, world: World) -> None:
    packet = association(world.REMOTE_POD, world.SERVER)
    send(node, world, packet)
    reply = packet.but(source=world.HERE).reply()
    expected = reply.but(destination=world.REMOTE_POD, ttl=63).build()
    received = node.run(Hook.FROM_NETDEV, reply.build())

    assert Outcome(REDIRECT, expected, 0) == received
    assert transport(reply.build(), world) == transport(received.packet, world)


def test_the_way_back_ends_in_a_local_pod(node: Node, world: World) -> None:
    packet = association(world.LOCAL_POD, world.SERVER)
    send(node, world, packet)
    reply = packet.but(source=world.HERE).reply()
    macs = {"source_mac": HOST_MAC, "destination_mac": POD_MAC}
    expected = reply.but(destination=world.LOCAL_POD, ttl=63, **macs).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, reply.build())


def test_the_pods_node_tunnels_and_delivers(node: Node, world: World) -> None:
    packet = association(world.TUNNELLED_POD, world.SERVER)
    sent = send(node, world, packet)
    reply = packet.reply().but(ttl=60)
    back = reply.but(source_mac=HOST_MAC, destination_mac=POD_MAC).build()
    received = node.run(Hook.FROM_OVERLAY, reply.build(), tunnel=world.worker)

    assert Outcome(REDIRECT, packet.build(), 0) == sent
    assert Outcome(REDIRECT, back, 0) == received


def test_a_wrong_checksum_stays_for_its_receiver_to_see(
    node: Node, world: World
) -> None:
    at = ETHERNET + world.ip_size + 8
    packet = association(world.REMOTE_POD, world.SERVER)
    spoiled, expected = (
        frame[:at] + b"\xba\xd0\xba\xd0" + frame[at + 4 :]
        for frame in (packet.build(), packet.but(source=world.HERE, ttl=63).build())
    )
    sent = node.run(Hook.FROM_OVERLAY, spoiled, tunnel=world.worker)

    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == sent


@pytest.mark.parametrize("pod", ["TUNNELLED_POD", "LOCAL_POD"])
def test_a_reply_to_who_called_is_left_alone(
    node: Node, world: World, pod: str
) -> None:
    request = association(world.SERVER, world.address(pod))
    node.run(Hook.TO_CONTAINER, request.build())
    reply = request.reply().build()

    assert Outcome(PASS, reply, MARK_SEEN) == node.run(Hook.FROM_CONTAINER, reply)
    assert Outcome(PASS, reply, 0) == node.run(Hook.TO_NETDEV, reply)


def test_a_port_that_another_pod_has_is_a_counted_drop(
    node: Node, world: World
) -> None:
    send(node, world, association(world.REMOTE_POD, world.SERVER))
    before = node.nats()
    packet = other_pod(node, world)

    assert Outcome(DROP, packet.build(), 0) == send(node, world, packet)
    assert 1 == node.counts()[(Reason.DROP_SNAT_NO_PORT, OUT, POLICY)]
    assert before == node.nats()


def test_another_port_or_another_server_is_free(node: Node, world: World) -> None:
    send(node, world, association(world.REMOTE_POD, world.SERVER))
    for packet in (
        other_pod(node, world, port=40001),
        other_pod(node, world).but(destination=world.OTHER_COVERED_SERVER),
    ):
        expected = packet.but(source=world.HERE, ttl=63).build()
        assert expected == send(node, world, packet).packet


def test_a_port_of_the_nodes_own_association_is_a_counted_drop(
    node: Node, world: World
) -> None:
    own = association(world.HERE, world.SERVER).build()
    passed = node.run(Hook.TO_NETDEV, own)
    packet = association(world.REMOTE_POD, world.SERVER)

    assert Outcome(PASS, own, 0) == passed
    assert Outcome(DROP, packet.build(), 0) == send(node, world, packet)
    assert 1 == node.counts()[(Reason.DROP_SNAT_NO_PORT, OUT, POLICY)]


@pytest.mark.parametrize("port", [1023, 4999, 5064])
def test_a_port_outside_the_range_is_a_counted_drop(
    world: World, make_node: MakeNode, port: int
) -> None:
    node = make_node(Setup(ports=(5000, 5063)))
    packet = association(world.REMOTE_POD, world.SERVER, port)

    assert Outcome(DROP, packet.build(), 0) == send(node, world, packet)
    assert {(Reason.DROP_SNAT_NO_PORT, OUT, POLICY): 1} == node.counts()
    assert {} == node.nats()


def test_a_port_is_free_again_after_five_idle_minutes(node: Node, world: World) -> None:
    send(node, world, association(world.REMOTE_POD, world.SERVER))
    packet = other_pod(node, world)
    expected = packet.but(source=world.HERE, ttl=63).build()
    node.age(299)
    before = send(node, world, packet)
    node.age(2)

    assert DROP == before.verdict
    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == send(node, world, packet)


@pytest.mark.parametrize("who", ["pod", "server"])
def test_either_side_keeps_an_association_alive(
    node: Node, world: World, who: str
) -> None:
    packet = association(world.REMOTE_POD, world.SERVER)
    reply = packet.but(source=world.HERE).reply().build()
    steps = {
        "pod": partial(send, node, world, packet),
        "server": partial(node.run, Hook.FROM_NETDEV, reply),
    }
    send(node, world, packet)
    node.run(Hook.FROM_NETDEV, reply)
    for _ in range(3):
        node.age(200)
        assert REDIRECT == steps[who]().verdict
    node.age(200)

    assert REDIRECT == send(node, world, packet).verdict
    assert REDIRECT == node.run(Hook.FROM_NETDEV, reply).verdict
    assert {*NatDirection} - {NatDirection.NONE} == {k.direction for k in node.nats()}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_that_quotes_an_association_reaches_its_pod(
    node: Node, world: World, kind: str
) -> None:
    packet = association(world.REMOTE_POD, world.SERVER)
    send(node, world, packet)
    error = IcmpError(world.HOP, packet.but(source=world.HERE), kind, quoted_l4=12)
    expected = error.about(packet).but(ttl=63).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, error.build())


@pytest.mark.parametrize("kind", KINDS)
@PODS
def test_a_pods_error_that_quotes_an_association_is_translated(
    node: Node, world: World, kind: str, pod: str
) -> None:
    packet = association(world.address(pod), world.SERVER)
    send(node, world, packet)
    quoted = packet.reply().but(ttl=60)
    error = IcmpError(world.address(pod), quoted, kind, quoted_l4=12)
    expected = error.about(quoted.but(destination=world.HERE))
    expected = expected.but(source=world.HERE, ttl=63, destination=world.SERVER)
    frame = error.build()
    if pod == "REMOTE_POD":
        sent = node.run(Hook.FROM_OVERLAY, frame, tunnel=world.worker)
    else:
        sent = node.run(Hook.FROM_CONTAINER, frame)

    assert Outcome(REDIRECT, expected.build(), MARK_TRANSLATED) == sent


@pytest.mark.parametrize("size", range(12))
@pytest.mark.parametrize("pod", ["TUNNELLED_POD", "LOCAL_POD"])
def test_a_header_cut_anywhere_is_dropped(
    node: Node, world: World, pod: str, size: int
) -> None:
    frame = association(world.address(pod), world.SERVER).build()
    cut = frame[: ETHERNET + world.ip_size + size]

    assert Outcome(DROP, cut, 0) == node.run(Hook.FROM_CONTAINER, cut)
    assert {(Reason.DROP_INVALID, OUT, POLICY): 1} == node.counts()
