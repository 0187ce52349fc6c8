"""
Scarce ports: what the programs remember of them spares tries, and decides nothing.

The datapath's clock is slow here (``SLOW``): a second passes for it only where a test
says so.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, SOCK_STREAM, socket

import pytest

from bpf.crowd import SLOW, Crowd
from bpf.harness import MakeNode, Node, Setup, needs_root
from bpf.nodemaps import HINT_TABLES, NAT_TABLES
from bpf.packets import MOVABLE, TCP_NAME
from bpf.test_port_range import LIFETIMES, NO_PORT, crowds
from bpf.world import World
from outgate.kernel.records import NatDirection, PortsRecord
from outgate.state.entries import Family

pytestmark = [needs_root, pytest.mark.kernel]

FIRST, LAST = 20000, 20255
SIZE = LAST - FIRST + 1
SCARCE = Setup(ports=(FIRST, LAST), jiffies_per_second=SLOW)


def hints(node: Node, world: World) -> PortsRecord | None:
    """Return what the node remembers of ports towards its one server."""
    with node.table(HINT_TABLES[world.family]) as table:
        rows = [PortsRecord.decode(key, value) for key, value in table.rows()]
    assert len(rows) < 2
    return rows[0] if rows else None


def filled(node: Node, world: World, protocol: str, size: int = SIZE) -> list[Crowd]:
    """Return two pods, of which the first has all ports, and the other was refused."""
    one, other = crowds(node, world, protocol)
    assert size == len({*one.send(range(1, size + 1))})
    assert other.refused(1)
    return [one, other]


def a_second_later(node: Node, world: World) -> None:
    """Let it pass for what is remembered of ports, and for nothing else."""
    node.age_table(HINT_TABLES[world.family], 1)


@pytest.mark.parametrize("protocol", MOVABLE)
def test_nothing_is_remembered_while_ports_are_plenty(
    make_node: MakeNode, world: World, protocol: str
) -> None:
    node = make_node(SCARCE)
    one, other = crowds(node, world, protocol)
    one.send(range(FIRST, FIRST + SIZE // 4))
    other.send(range(FIRST, FIRST + SIZE // 8))

    assert hints(node, world) is None


def test_flows_get_the_same_ports_whatever_is_remembered(
    make_node: MakeNode, world: World
) -> None:
    """At first nothing is; the collector forgets each flow's port."""
    node = make_node(SCARCE)
    free = {*range(FIRST, LAST + 1, 32)}
    node.take_ports(ip_address(world.SERVER), {*range(FIRST, LAST + 1)} - free)
    one, _ = crowds(node, world, TCP_NAME)

    def ports() -> list[int]:
        given = []
        for own in range(1, 60):
            given += one.send([own])
            one.end_alone(own, given[-1], LIFETIMES[TCP_NAME] + 1)
            node.collect()
        return given

    before = ports()
    known = hints(node, world)

    assert free == {*before}
    assert known
    assert SIZE // 2 < known.taken < SIZE
    assert (FIRST, LAST) == (known.first, known.last)
    assert before == ports()


@pytest.mark.parametrize("protocol", MOVABLE)
def test_a_port_that_the_collector_released_is_found_at_once(
    make_node: MakeNode, world: World, protocol: str
) -> None:
    node = make_node(SCARCE)
    one, other = crowds(node, world, protocol)
    given = one.send(range(1, SIZE + 1))
    assert other.refused(1)
    one.end_alone(100, given[99], LIFETIMES[protocol] + 1)
    node.collect()

    assert [given[99]] == other.send([2])
    assert other.refused(3)


@pytest.mark.parametrize("protocol", MOVABLE)
def test_a_flow_that_was_idle_for_too_long_gets_its_port_back_at_once(
    make_node: MakeNode, world: World, protocol: str
) -> None:
    """Nobody collected it, and each bit is set."""
    node = make_node(SCARCE)
    one, other = crowds(node, world, protocol)
    given = one.send(range(1, SIZE + 1))
    assert other.refused(1)
    one.end_alone(100, given[99], LIFETIMES[protocol] + 1)

    assert [given[99]] == one.send([100])
    assert other.refused(2)


def evict(node: Node, world: World, port: int) -> None:
    """Remove the entry that has *port*, as the kernel does with the least used."""
    keys = {
        key
        for key in node.nats()
        if key.direction is NatDirection.REVERSE and key.destination_port == port
    }
    assert 1 == len(keys)
    node.forget_nat(keys)


def die(node: Node, world: World, port: int) -> None:
    """Let the flow that has *port* be idle for too long; nobody collects it."""
    Crowd(node, world, TCP_NAME, world.REMOTE_POD).end_alone(
        next(
            key.source_port
            for key, nat in node.nats().items()
            if key.direction is NatDirection.FORWARD and nat.port == port
        ),
        port,
        LIFETIMES[TCP_NAME] + 1,
    )


@pytest.mark.parametrize("leave", [evict, die])
def test_a_port_that_became_free_without_a_word_is_found_a_second_later(
    make_node: MakeNode, world: World, leave: Callable[[Node, World, int], None]
) -> None:
    node = make_node(SCARCE)
    _, other = filled(node, world, TCP_NAME)
    for port in (FIRST, LAST, FIRST + 77):
        leave(node, world, port)
        a_second_later(node, world)

        assert [port] == other.send([2 + port])
        assert other.refused(3)


def test_several_ports_that_became_free_without_a_word_are_all_found(
    make_node: MakeNode, world: World
) -> None:
    """Those that are found share the round that looks at each port once a second."""
    node = make_node(SCARCE)
    _, other = filled(node, world, TCP_NAME)
    free = {*range(FIRST, LAST, 7)}
    for port in free:
        evict(node, world, port)
    a_second_later(node, world)

    assert free == {*other.send(range(1, len(free) + 1))}
    assert other.refused(1000)


def test_a_full_range_is_looked_through_once_a_second(
    make_node: MakeNode, world: World
) -> None:
    """In between a flow is refused without a try: that is what bounds the cost."""
    node = make_node(SCARCE)
    _, other = filled(node, world, TCP_NAME)
    evict(node, world, FIRST)

    assert other.refused(2)
    a_second_later(node, world)
    assert [FIRST] == other.send([2])


def test_the_port_of_a_closed_socket_is_found_a_second_later(
    make_node: MakeNode, world: World
) -> None:
    node = make_node(SCARCE)
    family = AF_INET if world.family is Family.V4 else AF_INET6
    with node.inside(lambda: socket(family, SOCK_STREAM)) as own:
        own.bind((world.HERE, FIRST + 7))
        own.listen()
        _, other = filled(node, world, TCP_NAME, SIZE - 1)
    a_second_later(node, world)

    assert [FIRST + 7] == other.send([2])
    assert other.refused(3)


@pytest.mark.parametrize("protocol", MOVABLE)
def test_flows_on_several_cpus_never_get_one_port_twice(
    make_node: MakeNode, world: World, protocol: str
) -> None:
    """Both pods search at once until all is taken, and as many times as it is free."""
    node = make_node(SCARCE)
    pair = crowds(node, world, protocol)
    halves = (range(1, SIZE // 2 + 1), range(1001, 1001 + SIZE // 2))

    def search() -> list[int]:
        with ThreadPoolExecutor(2) as threads:
            given = threads.map(lambda at: pair[at].send_here(halves[at]), (0, 1))
            return [port for ports in given for port in ports]

    for _ in range(4):
        given = node.inside(search)
        assert {*range(FIRST, LAST + 1)} == {*given}
        assert SIZE == len(given)
        assert NO_PORT not in node.counts()
        with node.table(NAT_TABLES[world.family]) as table:
            assert not table.remove_many([key for key, _ in table.rows()])
        a_second_later(node, world)
