"""How long entries live, and who gets a tuple that was somebody else's before."""

import pytest

from bpf.harness import DROP, PASS, REDIRECT, MakeNode, Node, Outcome, Setup, needs_root
from bpf.packets import TCP_NAME, UDP_NAME, Packet, outbound, source_port_of
from bpf.world import POLICY, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection, NatDirection
from outgate.kernel.settings import GatewayPath
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD


def receive(node: Node, world: World, packet: Packet) -> Outcome:
    return node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)


def source_port(outcome: Outcome) -> int:
    return source_port_of(outcome.packet)


def answer(node: Node, world: World, packet: Packet, port: int = 40000) -> Outcome:
    """Let the server answer *packet*, which left under the egress IP from *port*."""
    wire = packet.but(source=world.HERE, source_port=port)
    return node.run(Hook.FROM_NETDEV, wire.reply().build())


def test_a_port_touched_after_the_clock_was_read_is_not_given_away(
    node: Node, world: World
) -> None:
    """Another CPU may write a later time than the one that this packet sees."""
    node.put({world.row(world.OTHER_REMOTE_POD, world.NETWORK): world.via(world.HERE)})
    receive(node, world, outbound(UDP_NAME, world.REMOTE_POD, world.SERVER))
    node.age(-3600)

    assert 40000 != source_port(
        receive(node, world, outbound(UDP_NAME, world.OTHER_REMOTE_POD, world.SERVER))
    )


def test_a_flow_touched_after_the_clock_was_read_is_not_over(
    node: Node, world: World
) -> None:
    packet = outbound(UDP_NAME, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.remove(world.row(world.TUNNELLED_POD, world.NETWORK))
    node.age(-3600)

    assert REDIRECT == node.run(Hook.FROM_CONTAINER, packet.build()).verdict


def test_a_flow_that_comes_back_leaves_the_next_owner_its_port(
    node: Node, world: World
) -> None:
    node.put({world.row(world.OTHER_REMOTE_POD, world.NETWORK): world.via(world.HERE)})
    first = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    second = outbound(UDP_NAME, world.OTHER_REMOTE_POD, world.SERVER)
    receive(node, world, first)
    node.age(301)
    assert 40000 == source_port(receive(node, world, second))

    assert 40000 != source_port(receive(node, world, first))
    expected = second.reply().but(ttl=63).build()
    assert expected == answer(node, world, second).packet


def test_a_lost_forward_half_is_rebuilt_with_the_same_port(
    node: Node, world: World
) -> None:
    """The pod speaks first: no reply has put the half back."""
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)
    before = receive(node, world, packet)
    pair = set(node.nats())
    node.forget_nat({key for key in pair if key.direction is NatDirection.FORWARD})
    after = receive(node, world, packet.but(flags="A"))

    assert source_port(before) == source_port(after)
    assert pair == set(node.nats())


def test_a_lost_forward_half_of_a_walked_port_is_rebuilt_too(
    node: Node, world: World
) -> None:
    node.put({world.row(world.OTHER_REMOTE_POD, world.NETWORK): world.via(world.HERE)})
    receive(node, world, outbound(TCP_NAME, world.OTHER_REMOTE_POD, world.SERVER))
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)
    before = receive(node, world, packet)
    pairs = set(node.nats())
    node.forget_nat(
        {
            key
            for key in pairs
            if key.direction is NatDirection.FORWARD
            and str(key.source) == world.REMOTE_POD
        }
    )
    after = receive(node, world, packet.but(flags="A"))

    assert 40000 != source_port(before) == source_port(after)
    assert pairs == set(node.nats())


def test_a_flow_whose_port_went_to_another_pod_is_dropped_and_counted(
    node: Node,
    world: World,
) -> None:
    """Its reverse half was evicted, and the other pod came first."""
    node.put({world.row(world.OTHER_REMOTE_POD, world.NETWORK): world.via(world.HERE)})
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    receive(node, world, packet)
    answer(node, world, packet)
    node.forget_nat({k for k in node.nats() if k.direction is NatDirection.REVERSE})
    receive(node, world, outbound(UDP_NAME, world.OTHER_REMOTE_POD, world.SERVER))
    node.age(2)

    assert DROP == receive(node, world, packet).verdict
    assert 1 == node.counts()[(Reason.DROP_SNAT_NO_PORT, OUT, POLICY)]
    assert 40000 != source_port(receive(node, world, packet))


@pytest.mark.parametrize("path", list(GatewayPath))
def test_a_local_pods_flow_is_established_once_it_was_answered(
    world: World,
    make_node: MakeNode,
    path: GatewayPath,
) -> None:
    """After more idle time than an unanswered connection gets."""
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
    node = make_node(Setup(gateway_path=path))
    opened = node.run(Hook.FROM_CONTAINER, packet.build())
    node.run(Hook.TO_NETDEV, opened.packet, mark=opened.mark)
    answer(node, world, packet)
    node.remove(world.row(world.LOCAL_POD, world.NETWORK))
    node.age(600)
    later = node.run(Hook.FROM_CONTAINER, packet.but(flags="A").build())

    assert (opened.verdict, opened.mark) == (later.verdict, later.mark)


def test_a_tunnelled_flow_is_established_once_it_was_answered_by_the_stack(
    world: World, make_node: MakeNode
) -> None:
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)
    node = make_node(Setup(gateway_path=GatewayPath.STACK))
    opened = receive(node, world, packet)
    node.run(Hook.TO_NETDEV, opened.packet, mark=opened.mark)
    answer(node, world, packet)
    node.remove(world.row(world.REMOTE_POD, world.NETWORK))
    node.age(600)

    assert PASS == receive(node, world, packet.but(flags="A")).verdict


def test_an_unanswered_connection_is_forgotten_after_a_minute(
    node: Node, world: World
) -> None:
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.remove(world.row(world.TUNNELLED_POD, world.NETWORK))
    node.age(61)

    assert PASS == node.run(Hook.FROM_CONTAINER, packet.build()).verdict


def test_a_new_connection_on_a_silent_ones_tuple_gets_todays_egress_ip(
    node: Node,
    world: World,
) -> None:
    """The old one ended without FIN or RST: its pod was killed."""
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)
    receive(node, world, packet)
    answer(node, world, packet)
    node.put(
        {
            world.row(world.REMOTE_POD, world.NETWORK): world.via(
                world.HERE, world.OTHER_EGRESS_IP
            )
        }
    )
    expected = packet.but(source=world.OTHER_EGRESS_IP, ttl=63).build()

    assert expected == receive(node, world, packet).packet


def test_a_new_connection_on_a_silent_ones_tuple_gets_todays_gateway(
    node: Node,
    world: World,
) -> None:
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    receive(node, world, packet.reply())
    node.put({world.row(world.TUNNELLED_POD, world.NETWORK): world.via(world.HERE)})
    expected = packet.but(source=world.HERE, ttl=63).build()

    assert expected == node.run(Hook.FROM_CONTAINER, packet.build()).packet


def test_a_repeated_first_packet_keeps_its_port(node: Node, world: World) -> None:
    """The server's answer was lost on its way to the pod."""
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)
    before = receive(node, world, packet)
    answer(node, world, packet)

    assert before == receive(node, world, packet)
    assert 2 == len(node.nats())


def test_a_reply_to_a_flow_that_is_over_is_the_hosts(node: Node, world: World) -> None:
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    receive(node, world, packet)
    node.age(301)

    assert PASS == answer(node, world, packet).verdict


@pytest.mark.parametrize("protocol", [TCP_NAME, UDP_NAME])
def test_a_stranger_cannot_turn_a_covered_flow_into_an_inbound_one(
    node: Node, world: World, protocol: str
) -> None:
    """A forged first packet on the tuple of a live flow, straight to the pod."""
    packet = outbound(protocol, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.run(Hook.TO_CONTAINER, packet.reply().but(flags="S").build())
    later = node.run(Hook.FROM_CONTAINER, packet.but(flags="A").build())

    assert REDIRECT == later.verdict


def test_a_stranger_cannot_end_a_covered_flow(node: Node, world: World) -> None:
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    for flags in ("R", "FA", "S"):
        node.run(Hook.TO_CONTAINER, packet.reply().but(flags=flags).build())
    later = node.run(Hook.FROM_CONTAINER, packet.but(flags="A").build())

    assert REDIRECT == later.verdict


def test_a_stranger_cannot_turn_a_half_closed_flow_into_an_inbound_one(
    node: Node,
    world: World,
) -> None:
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    receive(node, world, packet.reply())
    node.run(Hook.FROM_CONTAINER, packet.but(flags="FA").build())
    node.run(Hook.TO_CONTAINER, packet.reply().but(flags="S").build())
    later = node.run(Hook.FROM_CONTAINER, packet.but(flags="A").build())

    assert REDIRECT == later.verdict


def test_an_inbound_flow_may_use_the_tuple_of_a_covered_one_that_is_over(
    node: Node,
    world: World,
) -> None:
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.run(Hook.FROM_CONTAINER, packet.but(flags="FA").build())
    receive(node, world, packet.reply().but(flags="FA"))
    node.run(Hook.TO_CONTAINER, packet.reply().but(flags="S").build())
    reply = node.run(Hook.FROM_CONTAINER, packet.but(flags="SA").build())

    assert PASS == reply.verdict


@pytest.mark.parametrize(("protocol", "pause"), [(TCP_NAME, 0), (UDP_NAME, 2)])
def test_an_unanswered_flow_follows_the_policy_to_another_gateway(
    node: Node, world: World, protocol: str, pause: int
) -> None:
    """A SYN that is sent again, a datagram after a second: the old row is gone."""
    packet = outbound(protocol, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.put({world.row(world.TUNNELLED_POD, world.NETWORK): world.via(world.HERE)})
    node.age(pause)
    expected = packet.but(source=world.HERE, ttl=63).build()

    assert expected == node.run(Hook.FROM_CONTAINER, packet.build()).packet


@pytest.mark.parametrize(("protocol", "pause"), [(TCP_NAME, 0), (UDP_NAME, 2)])
def test_an_unanswered_flow_follows_the_policy_to_another_egress_ip(
    node: Node, world: World, protocol: str, pause: int
) -> None:
    packet = outbound(protocol, world.REMOTE_POD, world.SERVER)
    receive(node, world, packet)
    node.put(
        {
            world.row(world.REMOTE_POD, world.NETWORK): world.via(
                world.HERE, world.OTHER_EGRESS_IP
            )
        }
    )
    node.age(pause)
    expected = packet.but(source=world.OTHER_EGRESS_IP, ttl=63).build()

    assert expected == receive(node, world, packet).packet
    assert 2 == len(node.nats())


def test_an_answered_flow_keeps_its_egress_ip(node: Node, world: World) -> None:
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    receive(node, world, packet)
    answer(node, world, packet)
    node.put(
        {
            world.row(world.REMOTE_POD, world.NETWORK): world.via(
                world.HERE, world.OTHER_EGRESS_IP
            )
        }
    )
    node.age(2)

    assert (
        packet.but(source=world.HERE, ttl=63).build()
        == receive(node, world, packet).packet
    )
