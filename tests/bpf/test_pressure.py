"""
Tables that are too small for the flows that come: who is lost, and who is not.

Every packet of a flow in use touches its entries, so the LRU maps prefer to lose those
that nobody uses.  That is their habit, no promise: the claims hold for flows that send
at least once while a table fills.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from struct import pack_into

import pytest

from bpf.harness import (
    CONTEXT_SIZE,
    IFINDEX,
    REDIRECT,
    MakeNode,
    Node,
    Setup,
    needs_root,
)
from bpf.packets import ETHERNET, TCP_NAME, Packet, outbound, source_port_of
from bpf.world import World
from outgate.kernel.events import EventKind
from outgate.kernel.records import NatDirection
from outgate.kernel.testrun import RunOutcome, run_program
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

TABLE = 4096
FLOOD = 4 * TABLE
ROUND = TABLE // 16
"""New flows between two packets of each flow in use."""

IN_USE = range(1100, 1200)
IDLE = range(1300, 1600)
FINISHED = range(1700, 2000)


class Speaker:
    """
    Sends packets of a local pod's flows, and the world's answers, fast.

    To be used in the node's namespaces.
    """

    def __init__(self, node: Node, world: World) -> None:
        self._node, self._world = node, world
        self._first = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
        self._frames: dict[Packet, bytes] = {}
        self._context = bytearray(CONTEXT_SIZE)
        pack_into("=I", self._context, IFINDEX, node.uplink)
        self._start = ETHERNET + world.ip_size

    def _run(self, hook: Hook, frame: bytes) -> RunOutcome:
        program = self._node.program(hook, self._world.family)
        return run_program(program, frame, bytes(self._context))

    def open(self, ports: range) -> None:
        """Let one flow of each port begin, and be answered."""
        for port in ports:
            self._run(Hook.FROM_CONTAINER, self._frame(port, "S"))
            self._run(Hook.FROM_NETDEV, self._answer(port, "SA"))

    def talk(self, ports: range, flags: str = "A") -> Counter[str]:
        """Let each flow carry a packet both ways; count those that do not arrive."""
        failures: Counter[str] = Counter()
        for port in ports:
            sent = self._run(Hook.FROM_CONTAINER, self._frame(port, flags))
            is_same = source_port_of(sent.packet) == port
            failures["sent"] += not (sent.verdict == REDIRECT and is_same)
            answered = self._run(Hook.FROM_NETDEV, self._answer(port, flags))
            failures["answered"] += answered.verdict != REDIRECT
        return +failures

    def flood(self, count: int) -> Iterator[int]:
        """Open flows that nobody answers, to many servers; yield after each round."""
        frame = bytearray(self._first.build())
        server, port_at = self._start - 1, self._start
        for number in range(count):
            frame[server] = (
                64 + number % 64 if self._world.ip_size == 20 else number % 64
            )
            port = 2500 + number // 64
            frame[port_at : port_at + 2] = port.to_bytes(2, "big")
            self._run(Hook.FROM_CONTAINER, bytes(frame))
            if number % ROUND == 0:
                yield number

    def _frame(self, port: int, flags: str) -> bytes:
        packet = self._first.but(source_port=port, flags=flags)
        return self._built(packet)

    def _answer(self, port: int, flags: str) -> bytes:
        wire = self._first.but(source=self._world.HERE, source_port=port)
        return self._built(wire.reply().but(flags=flags))

    def _built(self, packet: Packet) -> bytes:
        if packet not in self._frames:
            self._frames[packet] = packet.build()
        return self._frames[packet]


def opened_again(node: Node, ports: range) -> int:
    kinds = (EventKind.FLOW_OPENED, EventKind.NAT_MADE)
    return sum(e.source_port in ports for e in node.events() if e.kind in kinds)


@pytest.fixture
def small_node(make_node: MakeNode) -> Node:
    return make_node(Setup(flow_table_size=TABLE))


def test_flows_in_use_survive_a_flood_that_idle_ones_do_not(
    small_node: Node, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    node, speaker = small_node, Speaker(small_node, world)
    for ports in (IDLE, IN_USE):
        node.inside(partial(speaker.open, ports))
    node.events()
    failures: Counter[str] = Counter()
    again = 0
    flood = speaker.flood(FLOOD)
    while node.inside(lambda: next(flood, None)) is not None:
        failures += node.inside(partial(speaker.talk, IN_USE))
        again += opened_again(node, IN_USE)
    left = remaining(node)
    with capsys.disabled():
        print(f"\n{world.name}: {FLOOD} new flows, room for {TABLE}: {left}")

    assert ({}, 0) == (failures, again)
    assert len(IN_USE) == left["in use"] == left["in use, translated"]
    assert left["idle"] < len(IDLE)


def remaining(node: Node) -> dict[str, int]:
    flows = Counter(key.source_port for key in node.flows())
    pairs = Counter(
        key.source_port for key in node.nats() if key.direction is NatDirection.FORWARD
    )
    return {
        "in use": sum(flows[port] for port in IN_USE),
        "in use, translated": sum(pairs[port] for port in IN_USE),
        "idle": sum(flows[port] for port in IDLE),
        "all": flows.total(),
    }


def test_finished_flows_make_room_once_the_collector_has_seen_them(
    small_node: Node, world: World
) -> None:
    """The LRU maps alone would keep them: they have carried more than a flood does."""
    node, speaker = small_node, Speaker(small_node, world)
    node.inside(partial(speaker.open, FINISHED))
    node.inside(partial(speaker.talk, FINISHED, flags="FA"))
    node.age(11)
    node.collect()

    assert (0, 0) == (len(node.flows()), len(node.nats()))
