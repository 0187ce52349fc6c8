"""Flows that are over go by the kernel's timer; those that live stay queued."""

import pytest

from bpf.harness import Node, Outcome, needs_root
from bpf.packets import ECHO_NAME, TCP_NAME, UDP_NAME, Packet, outbound
from bpf.world import World
from outgate.kernel.maps import MapName
from outgate.kernel.records import NatDirection
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

LIFETIMES = [(UDP_NAME, 300), (ECHO_NAME, 60), (TCP_NAME, 60)]
"""Seconds after which a flow without an answer is over."""


def receive(node: Node, world: World, packet: Packet) -> Outcome:
    return node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)


def answer(node: Node, world: World, packet: Packet) -> Outcome:
    wire = packet.but(source=world.HERE).reply()
    return node.run(Hook.FROM_NETDEV, wire.build())


def checked(node: Node) -> int:
    return sum(record.checked for record in node.collect().values())


def queued(node: Node) -> int:
    return sum(map(len, node.garbage().values()))


@pytest.mark.parametrize(("protocol", "lifetime"), LIFETIMES)
def test_an_idle_flow_is_collected_on_the_pods_node(
    node: Node, world: World, protocol: str, lifetime: int
) -> None:
    packet = outbound(protocol, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.age(lifetime - 2)
    node.collect()
    assert 1 == len(node.flows())
    node.age(3)
    node.collect()

    assert {} == node.flows()
    assert 0 == queued(node)


@pytest.mark.parametrize(("protocol", "lifetime"), LIFETIMES)
def test_both_halves_of_an_idle_flow_are_collected_on_the_gateway(
    node: Node, world: World, protocol: str, lifetime: int
) -> None:
    receive(node, world, outbound(protocol, world.REMOTE_POD, world.SERVER))
    node.age(lifetime - 2)
    node.collect()
    assert 2 == len(node.nats())
    node.age(3)
    node.collect()

    assert {} == node.nats()
    assert 0 == queued(node)


@pytest.mark.parametrize("flags", ["R", "FA"])
def test_a_closed_connection_is_collected_ten_seconds_later(
    node: Node, world: World, flags: str
) -> None:
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    answer(node, world, packet)
    node.run(Hook.FROM_CONTAINER, packet.but(flags=flags).build())
    if flags == "FA":
        answer(node, world, packet.but(flags="FA"))
    node.age(9)
    node.collect()
    assert (1, 2) == (len(node.flows()), len(node.nats()))
    node.age(2)
    node.collect()

    assert (0, 0) == (len(node.flows()), len(node.nats()))


def test_an_established_connection_is_kept_for_two_hours(
    node: Node, world: World
) -> None:
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    answer(node, world, packet)
    node.age(7438)
    node.collect()
    assert (1, 2) == (len(node.flows()), len(node.nats()))
    node.age(4)
    node.collect()

    assert (0, 0) == (len(node.flows()), len(node.nats()))


def test_a_live_flow_is_looked_at_again(node: Node, world: World) -> None:
    receive(node, world, outbound(UDP_NAME, world.REMOTE_POD, world.SERVER))

    assert [1, 1, 1] == [checked(node) for _ in range(3)]
    assert 2 == len(node.nats())


def test_one_flow_is_queued_once_however_often_it_is_decided(
    node: Node, world: World
) -> None:
    """A datagram a second without any answer: each is decided anew."""
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER)
    for _ in range(5):
        node.run(Hook.FROM_CONTAINER, packet.build())
        node.age(2)

    assert 2 == queued(node)


def test_a_flow_that_comes_back_is_not_collected(node: Node, world: World) -> None:
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.age(301)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.collect()

    assert (1, 2) == (len(node.flows()), len(node.nats()))


@pytest.mark.parametrize("lost", [NatDirection.FORWARD, NatDirection.REVERSE])
def test_the_half_that_is_left_of_a_pair_is_collected(
    node: Node, world: World, lost: NatDirection
) -> None:
    receive(node, world, outbound(UDP_NAME, world.REMOTE_POD, world.SERVER))
    node.forget_nat({key for key in node.nats() if key.direction is lost})
    node.collect()
    assert 1 == len(node.nats())
    node.age(301)
    node.collect()

    assert {} == node.nats()


def test_the_half_that_is_left_goes_although_its_address_changed(
    node: Node, world: World
) -> None:
    """The item in the queue was made for the flow's first egress IP."""
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    receive(node, world, packet)
    row = world.row(world.REMOTE_POD, world.NETWORK)
    node.put({row: world.via(world.HERE, world.OTHER_EGRESS_IP)})
    node.age(2)
    receive(node, world, packet)
    node.collect()
    node.forget_nat(
        {key for key in node.nats() if key.direction is NatDirection.FORWARD}
    )
    node.age(301)
    node.collect()

    assert {} == node.nats()


def test_a_port_that_went_to_another_pod_stays_with_it(
    node: Node, world: World
) -> None:
    """The first pod's flow is over, and its reverse half is the second one's now."""
    row = world.row(world.OTHER_REMOTE_POD, world.NETWORK)
    node.put({row: world.via(world.HERE)})
    receive(node, world, outbound(UDP_NAME, world.REMOTE_POD, world.SERVER))
    node.age(301)
    second = outbound(UDP_NAME, world.OTHER_REMOTE_POD, world.SERVER)
    receive(node, world, second)
    node.collect()

    assert {world.OTHER_REMOTE_POD} == {
        str(key.source if key.direction is NatDirection.FORWARD else value.address)
        for key, value in node.nats().items()
    }
    assert 2 == len(node.nats())
    assert second.reply().but(ttl=63).build() == answer(node, world, second).packet


def test_a_host_sockets_port_is_free_again_once_it_is_over(
    node: Node, world: World
) -> None:
    packet = outbound(UDP_NAME, world.HERE, world.SERVER)
    node.run(Hook.TO_NETDEV, packet.build())
    node.collect()
    assert 1 == len(node.nats())
    node.age(301)
    node.collect()

    assert {} == node.nats()
    assert 0 == queued(node)


def test_a_flow_that_fell_out_of_the_queue_is_only_left_to_the_lru_map(
    node: Node, world: World
) -> None:
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.garbage()
    node.age(301)
    node.collect()
    assert (1, 2) == (len(node.flows()), len(node.nats()))

    # A new pod's flow gets the port all the same.
    node.run(Hook.FROM_CONTAINER, packet.build())
    assert (1, 2) == (len(node.flows()), len(node.nats()))


def test_more_flows_than_one_round_takes_are_collected(
    node: Node, world: World
) -> None:
    """A round takes 256; the next one, 5 ms later, goes on."""
    name = MapName.SNAT_V4 if world.ip_size == 20 else MapName.SNAT_V6
    for port in range(3000):
        receive(
            node,
            world,
            outbound(UDP_NAME, world.REMOTE_POD, world.SERVER, 20000 + port),
        )
    node.age(301)
    records = node.collect()

    assert 3000 == sum(record.released for record in records.values())
    with node.table(name) as table:
        assert [] == list(table.rows())
