"""Whole ranges of ports: filled to the last one, and the same after a failover."""

import pytest

from bpf.crowd import SLOW, Crowd
from bpf.harness import MakeNode, Node, Setup, needs_root
from bpf.nodemaps import NAT_TABLES
from bpf.packets import ECHO_NAME, MOVABLE, TCP_NAME, UDP_NAME
from bpf.world import IPV4, IPV6, POLICY, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD
NO_PORT = (Reason.DROP_SNAT_NO_PORT, OUT, POLICY)

LIFETIMES = {TCP_NAME: 60, UDP_NAME: 300, ECHO_NAME: 60}
"""Seconds without an answer after which a flow is over."""


def crowds(node: Node, world: World, protocol: str) -> list[Crowd]:
    """Return two pods that the policy selects."""
    node.put({world.row(world.OTHER_REMOTE_POD, world.NETWORK): world.via(world.HERE)})
    pods = (world.REMOTE_POD, world.OTHER_REMOTE_POD)
    return [Crowd(node, world, protocol, pod) for pod in pods]


def assert_filled(
    node: Node, world: World, protocol: str, ports: tuple[int, int], first: int
) -> None:
    """
    Fill the range *ports* by two pods that both begin at port *first*.

    The first one keeps its own ports where they are of the range; of the second one's
    the first has taken all.
    """
    size = ports[1] - ports[0] + 1
    own = range(first, first + size // 2)
    one, other = crowds(node, world, protocol)
    given = one.send(own)
    taken = given + other.send(own)

    if first in range(ports[0], ports[1] + 1):
        assert list(own) == given
    assert {*range(ports[0], ports[1] + 1)} == {*taken}
    assert size == len(taken)
    assert NO_PORT not in node.counts()

    late = first + size // 2
    assert other.refused(late)
    assert 1 == node.counts()[NO_PORT]
    with node.table(NAT_TABLES[world.family]) as table:
        assert 2 * size == sum(1 for _ in table.rows())

    last = given[size // 4]
    one.end(own[size // 4], last, LIFETIMES[protocol] - 1)
    assert other.refused(late)
    one.end(own[size // 4], last, 2)
    assert [last] == other.send([late])
    assert other.refused(late + 1)
    assert given[:9] == one.send(own[:9])


@pytest.mark.parametrize("world", [IPV4, IPV6], ids=["ipv4", "ipv6"])
def test_the_default_range_is_filled_to_its_last_port(
    make_node: MakeNode, world: World
) -> None:
    """TCP: 64,512 flows towards one server."""
    node = make_node(Setup(jiffies_per_second=SLOW))
    assert_filled(node, world, TCP_NAME, (1024, 65535), 1024)


@pytest.mark.parametrize("protocol", MOVABLE)
@pytest.mark.parametrize("first", [19000, 20000], ids=["below", "within"])
def test_a_smaller_range_is_filled_to_its_last_port(
    make_node: MakeNode, world: World, protocol: str, first: int
) -> None:
    """The pods' own ports begin within the range or below it."""
    node = make_node(Setup(ports=(20000, 22047), jiffies_per_second=SLOW))
    assert_filled(node, world, protocol, (20000, 22047), first)


@pytest.mark.parametrize("protocol", MOVABLE)
def test_a_range_of_one_port_has_one_flow(
    make_node: MakeNode, world: World, protocol: str
) -> None:
    one, other = crowds(make_node(Setup(ports=(65535, 65535))), world, protocol)

    assert [65535] == one.send([1])
    assert other.refused(65535)


@pytest.mark.parametrize("protocol", MOVABLE)
def test_a_gateway_that_takes_over_gives_every_flow_its_port(
    make_node: MakeNode, world: World, protocol: str
) -> None:
    """
    All is forgotten, and the flows arrive in another order.

    Their own ports are below the range, so that each is one of the walk's.
    """
    setup = Setup(ports=(1024, 65535))
    own = range(100, 120)
    one, other = crowds(make_node(setup), world, protocol)
    before = one.send(own), other.send(own)
    one, other = crowds(make_node(setup), world, protocol)
    after_other = other.send(reversed(own))
    after_one = one.send(reversed(own))

    assert before == (after_one[::-1], after_other[::-1])
    assert 40 == len({*before[0], *before[1]})


@pytest.mark.parametrize("protocol", MOVABLE)
def test_flows_of_different_ports_keep_their_own_in_any_order(
    make_node: MakeNode, world: World, protocol: str
) -> None:
    for order in (1, -1):
        one, other = crowds(make_node(Setup()), world, protocol)
        odd, even = range(40001, 40200, 2)[::order], range(40000, 40200, 2)[::order]
        pairs = ((one, odd), (other, even))
        for crowd, own in pairs[::order]:
            assert list(own) == crowd.send(own)
