"""
Sets of rows: what programs find of a pair, and that pods without a set lose nothing.

All other tests have sets that say what the rows of pods say, as an agent writes them.
Here the two differ, so that it is seen which of them is read.
"""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import pytest

from bpf.harness import (
    DROP,
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
from bpf.packets import TCP_NAME, outbound
from bpf.world import POLICY, World
from outgate.kernel.maps import SETS, SOURCES
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.kernel.rows import encode_source, pack
from outgate.state.entries import (
    Excluded,
    Hook,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    RowSet,
    family_of,
)

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD
ONE, OTHER = 1000, 1001
"""Numbers of sets, far from those that the harness uses."""


def put_set(
    node: Node, world: World, number: int, rows: Mapping[str, PolicyEntry]
) -> None:
    packed = pack(RowSet({ip_network(text): row for text, row in rows.items()}))
    with node.table(SETS[world.family]) as table:
        assert not table.put_packed(packed.keys_in(number), packed.values)


def point(node: Node, pod: str, number: int, entry_of: str = "") -> None:
    """Let *pod* have a set; *entry_of* is whose address its entry holds."""
    source = ip_address(pod)
    value = encode_source(ip_address(entry_of or pod).packed, number)
    with node.table(SOURCES[family_of(source)]) as table:
        table.put(source.packed, value)


def receive(node: Node, world: World, pod: str, server: str) -> Outcome:
    packet = outbound(TCP_NAME, world.address(pod), world.address(server))
    return node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)


def translated(world: World, pod: str, server: str, egress_ip: str) -> Outcome:
    packet = outbound(TCP_NAME, world.address(pod), world.address(server))
    frame = packet.but(source=egress_ip, ttl=63).build()
    return Outcome(REDIRECT, frame, MARK_TRANSLATED)


def dropped(world: World, pod: str, server: str) -> Outcome:
    packet = outbound(TCP_NAME, world.address(pod), world.address(server))
    return Outcome(DROP, packet.build(), 0)


def test_the_set_of_a_pod_decides(node: Node, world: World) -> None:
    put_set(node, world, ONE, {world.NETWORK: NoGateway(POLICY)})
    point(node, world.REMOTE_POD, ONE)

    assert dropped(world, "REMOTE_POD", "SERVER") == receive(
        node, world, "REMOTE_POD", "SERVER"
    )
    assert {(Reason.DROP_NO_GATEWAY, OUT, POLICY): 1} == node.counts()


def test_the_longest_prefix_in_a_set_wins(node: Node, world: World) -> None:
    narrow = str(ip_network(world.SERVER))
    put_set(
        node,
        world,
        ONE,
        {
            world.EVERYTHING: Excluded(POLICY),
            world.NETWORK: NoGateway(POLICY),
            narrow: world.via(world.HERE),
        },
    )
    point(node, world.REMOTE_POD, ONE)

    for server in ("OTHER_COVERED_SERVER", "OTHER_SERVER"):
        assert dropped(world, "REMOTE_POD", server) == receive(
            node, world, "REMOTE_POD", server
        )
    assert {
        (Reason.DROP_NO_GATEWAY, OUT, POLICY): 1,
        (Reason.DROP_NO_POLICY, OUT, 0): 1,
    } == node.counts()
    assert translated(world, "REMOTE_POD", "SERVER", world.HERE) == receive(
        node, world, "REMOTE_POD", "SERVER"
    )


def test_one_set_does_not_see_the_rows_of_others(node: Node, world: World) -> None:
    """Also not those of longer prefixes, or of numbers that begin alike."""
    narrow = str(ip_network(world.SERVER))
    put_set(node, world, ONE, {world.NETWORK: world.via(world.HERE)})
    for number in (ONE - 1, ONE + 1, ONE << 8, ONE << 16, ONE >> 1, ONE | 1 << 31):
        put_set(node, world, number, {narrow: NoGateway(POLICY)})
    point(node, world.REMOTE_POD, ONE)

    assert translated(world, "REMOTE_POD", "SERVER", world.HERE) == receive(
        node, world, "REMOTE_POD", "SERVER"
    )


def test_pods_of_one_set_share_its_rows(node: Node, world: World) -> None:
    """Also a pod that has no row of its own."""
    put_set(node, world, ONE, {world.NETWORK: world.via(world.HERE)})
    for pod in ("OTHER_REMOTE_POD", "ROUTED_POD"):
        point(node, world.address(pod), ONE)
        node.forget_nat(set(node.nats()))

        assert translated(world, pod, "SERVER", world.HERE) == receive(
            node, world, pod, "SERVER"
        )


def test_what_a_set_lacks_is_not_covered(node: Node, world: World) -> None:
    """Whatever the rows of the pod say: they are older, or of somebody else's hand."""
    put_set(node, world, ONE, {world.NO_GATEWAY_NETWORK: NoGateway(POLICY)})
    point(node, world.LOCAL_POD, ONE)
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER).build()

    assert Outcome(PASS, packet, MARK_SEEN) == node.run(Hook.FROM_CONTAINER, packet)


@pytest.mark.parametrize("is_removed", [True, False])
def test_a_pod_whose_entry_is_another_address_s_goes_by_its_rows(
    node: Node, world: World, is_removed: bool
) -> None:
    """An entry that is removed may become another's before a program has read it."""
    put_set(node, world, ONE, {world.EVERYTHING: NoEgressIP(world.worker, POLICY)})
    point(node, world.REMOTE_POD, ONE, entry_of=world.OTHER_REMOTE_POD)
    if is_removed:
        put_set(node, world, OTHER, {world.EVERYTHING: Excluded(POLICY)})
        point(node, world.OTHER_REMOTE_POD, OTHER)

    assert translated(world, "REMOTE_POD", "SERVER", world.HERE) == receive(
        node, world, "REMOTE_POD", "SERVER"
    )


@pytest.mark.parametrize(
    ("pod", "server", "reason", "policy"),
    [
        ("REMOTE_POD", "SERVER", Reason.FORWARDED, POLICY),
        ("REMOTE_POD", "EXCLUDED_SERVER", Reason.DROP_NO_POLICY, 0),
        ("REMOTE_POD", "OTHER_SERVER", Reason.DROP_NO_POLICY, 0),
        ("REMOTE_POD", "NO_GATEWAY_SERVER", Reason.DROP_NO_GATEWAY, POLICY),
        ("REMOTE_POD", "NO_EGRESS_IP_SERVER", Reason.DROP_NO_EGRESS_IP, POLICY),
        ("ROUTED_POD", "SERVER", Reason.DROP_NO_POLICY, 0),
    ],
)
@pytest.mark.parametrize("has_sets", [True, False])
def test_a_gateway_does_the_same_with_sets_and_without(
    make_node: MakeNode,
    world: World,
    has_sets: bool,
    pod: str,
    server: str,
    reason: Reason,
    policy: int,
) -> None:
    node = make_node(Setup(has_sets=has_sets))
    receive(node, world, pod, server)

    assert has_sets == bool(sets_of(node, world))
    assert {(reason, OUT, policy): 1} == node.counts()


@pytest.mark.parametrize(
    ("pod", "server", "is_left_alone"),
    [
        ("LOCAL_POD", "SERVER", False),
        ("LOCAL_POD", "EXCLUDED_SERVER", True),
        ("TUNNELLED_POD", "SERVER", False),
        ("TUNNELLED_POD", "OTHER_SERVER", True),
        ("FREE_POD", "SERVER", True),
    ],
)
@pytest.mark.parametrize("has_sets", [True, False])
def test_a_pods_node_does_the_same_with_sets_and_without(
    make_node: MakeNode,
    world: World,
    has_sets: bool,
    pod: str,
    server: str,
    is_left_alone: bool,
) -> None:
    node = make_node(Setup(has_sets=has_sets))
    packet = outbound(TCP_NAME, world.address(pod), world.address(server)).build()
    outcome = node.run(Hook.FROM_CONTAINER, packet)

    assert (outcome == Outcome(PASS, packet, MARK_SEEN)) is is_left_alone
    assert (outcome.verdict == REDIRECT) is not is_left_alone


@pytest.mark.parametrize("has_sets", [True, False])
def test_to_container_remembers_the_same_flows_with_sets_and_without(
    make_node: MakeNode, world: World, has_sets: bool
) -> None:
    node = make_node(Setup(has_sets=has_sets))
    for server in (world.SERVER, world.OTHER_SERVER):
        packet = outbound(TCP_NAME, server, world.LOCAL_POD)
        node.run(Hook.TO_CONTAINER, packet.build())

    assert [str(flow.destination) for flow in node.flows()] == [world.SERVER]


def sets_of(node: Node, world: World) -> list[tuple[bytes, bytes]]:
    with node.table(SOURCES[world.family]) as table:
        return list(table.rows())
