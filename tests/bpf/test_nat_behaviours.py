"""
Behaviours that the RFCs on NAT ask for, or that they have a name for.

``docs/reference/lifetimes.md`` says which requirement each of these shows to be met, or
not; what other files show is there too.
"""

from ipaddress import ip_address

import pytest

from bpf.harness import PASS, REDIRECT, Node, Outcome, needs_root
from bpf.packets import TCP_NAME, UDP_NAME, Packet, outbound, source_port_of
from bpf.world import World
from outgate.kernel.records import NatDirection
from outgate.state.entries import EndpointEntry, EndpointFlag, EndpointKey, Hook

pytestmark = [needs_root, pytest.mark.kernel]


def send(node: Node, packet: Packet) -> Outcome:
    return node.run(Hook.FROM_CONTAINER, packet.build())


def reply_to(world: World, packet: Packet) -> Packet:
    return packet.but(source=world.HERE).reply()


def receive(node: Node, packet: Packet) -> Outcome:
    return node.run(Hook.FROM_NETDEV, packet.build())


@pytest.mark.parametrize("protocol", [TCP_NAME, UDP_NAME])
def test_a_pod_keeps_its_port_towards_every_server(
    node: Node, world: World, protocol: str
) -> None:
    """Mapping is address and port-dependent; with ports to spare nobody notices."""
    servers = (world.SERVER, world.OTHER_COVERED_SERVER)
    ports = {
        source_port_of(send(node, outbound(protocol, world.LOCAL_POD, server)).packet)
        for server in servers
    }

    assert {40000} == ports


@pytest.mark.parametrize(
    "change",
    [{"source": "OTHER_COVERED_SERVER"}, {"source_port": 81}],
    ids=["address", "port"],
)
def test_nobody_but_the_flows_own_peer_gets_in(
    node: Node, world: World, change: dict[str, object]
) -> None:
    """Filtering is address and port-dependent: the packet is the node's own."""
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER)
    send(node, packet)
    stranger = reply_to(world, packet).but(**world.resolve(change))

    assert Outcome(PASS, stranger.build(), 0) == receive(node, stranger)


def test_answers_keep_a_flow_as_packets_of_its_pod_do(node: Node, world: World) -> None:
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER)
    send(node, packet)
    for _ in range(3):
        node.age(290)
        assert REDIRECT == receive(node, reply_to(world, packet)).verdict
    node.collect()

    assert 2 == len(node.nats())
    assert 1 == len(node.flows())


def test_both_sides_may_open_one_connection_at_the_same_time(
    node: Node, world: World
) -> None:
    """RFC 793, figure 8: two SYNs cross, and each is answered."""
    syn = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
    send(node, syn)
    crossing = reply_to(world, syn).but(flags="S")
    expected = syn.reply().but(flags="S", ttl=63).build()
    assert expected == receive(node, crossing).packet
    accept = syn.but(flags="SA")
    expected = accept.but(source=world.HERE, ttl=63).build()

    assert expected == send(node, accept).packet
    assert 2 == len(node.nats())


def test_a_connection_closed_by_one_side_goes_on_for_hours(
    node: Node, world: World
) -> None:
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
    send(node, packet)
    receive(node, reply_to(world, packet))
    send(node, packet.but(flags="FA"))
    node.age(7400)
    node.collect()

    late = reply_to(world, packet.but(flags="A"))
    assert REDIRECT == receive(node, late).verdict


def test_the_last_packets_of_a_closed_connection_pass(node: Node, world: World) -> None:
    """For ten seconds: the last ACK, and what is sent again."""
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
    send(node, packet)
    receive(node, reply_to(world, packet))
    send(node, packet.but(flags="FA"))
    receive(node, reply_to(world, packet.but(flags="FA")))
    node.age(9)

    expected = packet.but(source=world.HERE, ttl=63, flags="A").build()
    assert expected == send(node, packet.but(flags="A")).packet


def test_a_connection_that_goes_on_after_a_reset_is_kept(
    node: Node, world: World
) -> None:
    """A reset may be forged: who guesses the ports knows no sequence number."""
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
    send(node, packet)
    receive(node, reply_to(world, packet))
    receive(node, reply_to(world, packet.but(flags="R")))
    for _ in range(3):
        node.age(9)
        send(node, packet.but(flags="A"))
        receive(node, reply_to(world, packet.but(flags="A")))
        node.collect()

    assert (1, 2) == (len(node.flows()), len(node.nats()))


def test_what_a_pod_sends_to_an_egress_ip_is_for_the_node(
    node: Node, world: World
) -> None:
    """No hairpin: not even to the port that another pod's flow has just now."""
    send(node, outbound(UDP_NAME, world.LOCAL_POD, world.SERVER))
    before = set(node.nats())
    prefix = 128 if ":" in world.HERE else 32
    node.put(
        {
            world.row(world.REMOTE_POD, f"{world.HERE}/{prefix}"): world.via(
                world.HERE
            ),
            EndpointKey(ip_address(world.REMOTE_POD)): EndpointEntry(EndpointFlag.POD),
        }
    )
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.HERE).but(
        destination_port=40000
    )
    outcome = send(node, packet)

    assert (PASS, packet.build()) == (outcome.verdict, outcome.packet)
    assert before == set(node.nats())
    assert all(key.direction is not NatDirection.NONE for key in before)
