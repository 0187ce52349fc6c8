"""
Tables without room: what is refused is dropped and counted, what is pushed out returns.

The real tables make room for themselves (LRU) and in practice refuse nobody.  That a
refusal is a counted drop is shown with the same programs over tables that refuse.
"""

import runpy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from bpf.harness import (
    DROP,
    MARK_OVERLAY,
    MARK_TRANSLATED,
    PASS,
    REDIRECT,
    MakeNode,
    Node,
    Outcome,
    Setup,
    needs_root,
)
from bpf.nodemaps import NAT_TABLES
from bpf.packets import (
    MOVABLE,
    PROTOCOLS,
    TCP_NAME,
    UDP_NAME,
    Packet,
    outbound,
    source_port_of,
)
from bpf.uplink import command
from bpf.world import POLICY, World, gateway_entries
from outgate.kernel.maps import FLOWS, MapName
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.kernel.settings import GatewayPath
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

ROOT = Path(__file__).resolve().parent.parent.parent

OUT = MetricDirection.TO_WORLD
ROOM = 8
"""Entries that fit, as ``full_tables.h`` has it."""

FLOW_ROOM, NAT_ROOM = 1 << 18, 1 << 19
"""The same of the real tables, as ``maps.h`` has it."""


@pytest.fixture(scope="module")
def small_objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every program, compiled for tables that refuse."""
    folder = tmp_path_factory.mktemp("full-tables")
    build = runpy.run_path(str(ROOT / "bpf" / "compile.py"))
    before = ("-include", str(Path(__file__).with_name("full_tables.h")))
    for hook, family in product(Hook, build["FAMILIES"]):
        flags = (*build["compiler"](), *build["FLAGS"], f"-DOUTGATE_FAMILY={family}")
        source = ROOT / "bpf" / f"{hook}.bpf.c"
        output = folder / f"{hook}_v{family}.bpf.o"
        command(*flags, *before, "-c", str(source), "-o", str(output))
    return folder


@pytest.fixture(scope="module")
def small_nodes(small_objects: Path) -> Iterator[MakeNode]:
    """Nodes by their settings, over those programs."""
    with ExitStack() as stack:

        def make(setup: Setup) -> Node:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("OUTGATE_BPF_OBJECTS", str(small_objects))
                return stack.enter_context(Node(setup))

        yield cache(make)


@pytest.fixture(params=list(GatewayPath))
def path(request: pytest.FixtureRequest) -> GatewayPath:
    """The setting ``gateway-path``."""
    path: GatewayPath = request.param
    return path


@pytest.fixture
def small_node(small_nodes: MakeNode, world: World, path: GatewayPath) -> Node:
    """The gateway, with tables that refuse."""
    node = small_nodes(Setup(gateway_path=path))
    node.reset()
    node.put(gateway_entries(world))
    return node


def send(node: Node, world: World, packet: Packet) -> Outcome:
    """Let a pod send *packet*, from here or by the other node, up to the uplink."""
    if packet.source == world.REMOTE_POD:
        sent = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    else:
        sent = node.run(Hook.FROM_CONTAINER, packet.build())
    if sent.mark == MARK_OVERLAY:
        sent = node.run(Hook.TO_NETDEV, sent.packet, mark=sent.mark)
    return sent


def is_sent(outcome: Outcome, path: GatewayPath) -> bool:
    """Did it leave translated?"""
    verdict = PASS if path is GatewayPath.STACK else REDIRECT
    return (verdict, MARK_TRANSLATED) == (outcome.verdict, outcome.mark)


@pytest.mark.parametrize("path", [GatewayPath.DIRECT], indirect=True)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_flow_without_room_is_dropped_and_counted(
    small_node: Node, world: World, protocol: str
) -> None:
    flows = [
        outbound(protocol, world.TUNNELLED_POD, world.SERVER, port=40000 + i)
        for i in range(ROOM + 1)
    ]
    sent = [small_node.run(Hook.FROM_CONTAINER, flow.build()) for flow in flows]
    again = small_node.run(Hook.FROM_CONTAINER, flows[0].build())

    assert [Outcome(REDIRECT, f.build(), 0) for f in flows[:-1]] == sent[:-1]
    assert Outcome(DROP, flows[-1].build(), 0) == sent[-1]
    assert 1 == small_node.counts()[(Reason.DROP_FLOW_TABLE_FULL, OUT, POLICY)]
    assert Outcome(REDIRECT, flows[0].build(), 0) == again


@pytest.mark.parametrize("path", [GatewayPath.STACK], indirect=True)
def test_a_gateway_without_room_for_a_flow_hands_nothing_to_the_stack(
    small_node: Node, world: World
) -> None:
    for i in range(ROOM + 1):
        packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER, port=40000 + i)
        frame = packet.build()
        handed = small_node.run(Hook.FROM_OVERLAY, frame, tunnel=world.worker)

    assert Outcome(DROP, frame, 0) == handed
    assert {(Reason.DROP_FLOW_TABLE_FULL, OUT, POLICY): 1} == small_node.counts()


@pytest.mark.parametrize("path", [GatewayPath.DIRECT], indirect=True)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_reply_to_who_called_is_dropped_where_the_call_had_no_room(
    small_node: Node, world: World, protocol: str
) -> None:
    """It might be a flow of the pod's own: nobody knows."""
    for i in range(ROOM):
        packet = outbound(UDP_NAME, world.TUNNELLED_POD, world.SERVER, port=50000 + i)
        small_node.run(Hook.FROM_CONTAINER, packet.build())
    request = outbound(protocol, world.SERVER, world.TUNNELLED_POD)
    received = small_node.run(Hook.TO_CONTAINER, request.build())
    reply = request.reply().build()

    assert Outcome(PASS, request.build(), 0) == received
    assert Outcome(DROP, reply, 0) == small_node.run(Hook.FROM_CONTAINER, reply)
    assert 1 == small_node.counts()[(Reason.DROP_FLOW_TABLE_FULL, OUT, POLICY)]


@pytest.mark.parametrize("pod", ["LOCAL_POD", "REMOTE_POD"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_translation_without_room_is_dropped_and_counted(
    small_node: Node, world: World, path: GatewayPath, protocol: str, pod: str
) -> None:
    """Two halves each: the fifth flow has room for none."""
    source = world.address(pod)
    flows = [
        outbound(protocol, source, world.SERVER, port=40000 + i)
        for i in range(ROOM // 2 + 1)
    ]
    sent = [send(small_node, world, flow) for flow in flows]

    assert all(is_sent(outcome, path) for outcome in sent[:-1])
    assert DROP == sent[-1].verdict
    assert 1 == small_node.counts()[(Reason.DROP_NAT_TABLE_FULL, OUT, POLICY)]
    assert is_sent(send(small_node, world, flows[0]), path)


@pytest.mark.parametrize("pod", ["LOCAL_POD", "REMOTE_POD"])
def test_half_a_translation_is_taken_back(
    small_node: Node, world: World, path: GatewayPath, pod: str
) -> None:
    """A socket of the node has one entry: the fourth pair has room for half."""
    own = outbound(TCP_NAME, world.HERE, world.SERVER, port=50000)
    small_node.run(Hook.TO_NETDEV, own.build())
    sent = [
        send(small_node, world, outbound(TCP_NAME, world.address(pod), world.SERVER, p))
        for p in range(40000, 40000 + ROOM // 2)
    ]

    assert all(is_sent(outcome, path) for outcome in sent[:-1])
    assert DROP == sent[-1].verdict
    assert 1 == small_node.counts()[(Reason.DROP_NAT_TABLE_FULL, OUT, POLICY)]
    assert ROOM - 1 == len(small_node.nats())


def test_a_full_table_is_no_harm_to_the_node_itself(
    small_node: Node, world: World
) -> None:
    for i in range(ROOM // 2):
        packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER, port=40000 + i)
        send(small_node, world, packet)
    own = outbound(UDP_NAME, world.HERE, world.SERVER, port=50000).build()

    assert Outcome(PASS, own, 0) == small_node.run(Hook.TO_NETDEV, own)


PORTS_AT = {16: 8, 40: 32}
"""Where the two ports lie in a tuple, by the tuple's size."""


def crowd(node: Node, name: MapName, size: int) -> None:
    """Fill a table with copies of its one kind of entry, all of them live."""
    with node.table(name) as table:
        key, value = next(iter(table.rows()))
        at = PORTS_AT[len(key)]
        rows = {
            key[:at] + i.to_bytes(4, "big") + key[at + 4 :]: value
            for i in range(1 << 31, (1 << 31) + size)
        }
        assert not table.put_many(rows)


def flow_size(node: Node, world: World) -> int:
    with node.table(FLOWS[world.family]) as table:
        return sum(1 for _ in table.rows())


def test_a_real_table_makes_room_for_new_flows(own_node: Node, world: World) -> None:
    first = outbound(UDP_NAME, world.TUNNELLED_POD, world.SERVER)
    own_node.run(Hook.FROM_CONTAINER, first.build())
    crowd(own_node, FLOWS[world.family], FLOW_ROOM)
    for port in range(41000, 41200):
        packet = outbound(UDP_NAME, world.TUNNELLED_POD, world.SERVER, port).build()
        sent = own_node.run(Hook.FROM_CONTAINER, packet)
        assert Outcome(REDIRECT, packet, 0) == sent

    assert flow_size(own_node, world) <= FLOW_ROOM
    assert {Reason.FORWARDED} == {reason for reason, _, _ in own_node.counts()}


def test_a_real_table_makes_room_for_new_translations(
    own_node: Node, world: World
) -> None:
    first = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    send(own_node, world, first)
    crowd(own_node, NAT_TABLES[world.family], NAT_ROOM)
    for port in range(20000, 20200):
        packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER, port)
        expected = packet.but(source=world.HERE, ttl=63)
        sent = send(own_node, world, packet)
        reply = expected.reply().but(ttl=64)
        back = reply.but(destination=world.REMOTE_POD, ttl=63).build()
        received = own_node.run(Hook.FROM_NETDEV, reply.build())

        assert Outcome(REDIRECT, expected.build(), MARK_TRANSLATED) == sent
        assert Outcome(REDIRECT, back, 0) == received


EVICTIONS: dict[str, Callable[[Node], None]] = {
    "flow": lambda node: empty(node, *FLOWS.values()),
    "translation": lambda node: empty(node, *NAT_TABLES.values()),
    "both": lambda node: empty(node, *FLOWS.values(), *NAT_TABLES.values()),
}


def empty(node: Node, *names: MapName) -> None:
    """Remove every row of those tables, as evictions would."""
    for name in names:
        with node.table(name) as table:
            assert not table.remove_many([key for key, _ in table.rows()])


@pytest.mark.parametrize("lost", EVICTIONS)
@pytest.mark.parametrize("pod", ["LOCAL_POD", "REMOTE_POD"])
@pytest.mark.parametrize("protocol", MOVABLE)
def test_a_flow_that_was_pushed_out_is_decided_as_before(
    node: Node, world: World, protocol: str, pod: str, lost: str
) -> None:
    """In its middle, and back to the port that it had."""
    packet = outbound(protocol, world.address(pod), world.SERVER, port=80)
    port = source_port_of(send(node, world, packet).packet)
    EVICTIONS[lost](node)
    later = packet.but(flags="A")
    expected = later.but(source=world.HERE, source_port=port, ttl=63).build()

    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == send(node, world, later)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_reply_of_a_call_that_was_pushed_out_goes_to_the_gateway(
    node: Node, world: World, protocol: str
) -> None:
    """The caller does not get it, but nobody sees another address than the policy's."""
    request = outbound(protocol, world.SERVER, world.TUNNELLED_POD)
    node.run(Hook.TO_CONTAINER, request.build())
    empty(node, *FLOWS.values())
    reply = request.reply().build()

    assert Outcome(REDIRECT, reply, 0) == node.run(Hook.FROM_CONTAINER, reply)
