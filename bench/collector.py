"""
Cases ``snat/collect…``: what it costs to look after a million entries, and drop them.

A gateway with so many translations open, two entries each, whose collector runs by its
timer: it looks at each of them once while they live; then all of them are over.  The
figures are the collector's own sums; a tick's length is told by looking every two
milliseconds.
"""

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from bench.driver import Driver, Frames
from bench.results import Result
from bench.tables import crowd_packet, put_rows
from bpf.collecting import put_garbage, take_garbage
from bpf.harness import JIFFIES_PER_SECOND, Node, Setup
from bpf.nodemaps import NAT_TABLES, STAMP
from bpf.packets import UDP_NAME
from bpf.world import IPV4, World, gateway_entries
from outgate.kernel.collector import read_collectors, start_collectors, stop_collectors
from outgate.kernel.records import CollectorRecord
from outgate.state.entries import Family, Hook

PAUSE_SECONDS = 0.002
DEADLINE_SECONDS = 60.0
OVER_SECONDS = 301
"""After the lifetime of a UDP flow."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    flows: int = 1 << 19


QUICK = Sizes(500)


def run(sizes: Sizes) -> list[Result]:
    """Measure both, for IPv4."""
    flows = sizes.flows
    setup = Setup(flow_table_size=ceil(flows * 1.25))
    with Node(setup) as node:
        _open(node, IPV4, flows)
        live = _collect(node, setup, lambda record: record.checked >= flows)
        age(node, Family.V4, OVER_SECONDS)
        over = _collect(node, setup, lambda record: record.released >= flows)
    spent = over.nanoseconds
    return [
        Result("snat/collect", round(spent / 1e9, 4), "s", flows),
        Result("snat/collect/entry", round(spent / (2 * flows), 1), "ns", flows),
        Result("snat/collect/longest_tick", round(over.longest / 1e3), "µs", flows),
        Result("snat/collect/live", round(live.nanoseconds / flows, 1), "ns", flows),
    ]


def _open(node: Node, world: World, flows: int) -> None:
    """Let pods of another node begin so many UDP flows."""
    node.put(gateway_entries(world))
    pods = put_rows(node, world, 10)
    packet = crowd_packet(world).but(protocol=UDP_NAME)
    frames = Frames(packet, pods=pods, tunnel=world.worker)
    program = node.program(Hook.FROM_OVERLAY, world.family)
    Driver(node).run(program, frames.plan(flows), flows)


def age(node: Node, family: Family, seconds: int) -> None:
    """Let *seconds* pass for every translation: the last word of an entry is a time."""
    older = seconds * JIFFIES_PER_SECOND
    with node.table(NAT_TABLES[family]) as table:
        words = table.shape.value_size // STAMP
        for keys, values in list(table.packed_rows()):
            numbers = array("Q", values)
            stamps = numbers[words - 1 :: words]
            numbers[words - 1 :: words] = array("Q", [s - older for s in stamps])
            assert not table.put_packed(keys, numbers.tobytes())


@dataclass(frozen=True, slots=True)
class Watched:
    """Nanoseconds of the collector: all, and of the longest tick that was seen."""

    nanoseconds: int
    longest: int


def _collect(
    node: Node, setup: Setup, is_done: Callable[[CollectorRecord], bool]
) -> Watched:
    """Let the collector look at all flows from now on; return what it takes."""

    def inside() -> Watched:
        put_garbage(node.pins, take_garbage(node.pins))  # due at once
        assert not start_collectors(node.pins, setup.datapath)
        try:
            return _watch(node, is_done)
        finally:
            stop_collectors(node.pins)

    return node.inside(inside)


def _watch(node: Node, is_done: Callable[[CollectorRecord], bool]) -> Watched:
    last = read_collectors(node.pins)[Family.V4]
    deadline, longest = time.monotonic() + DEADLINE_SECONDS, 0
    while not is_done(last):
        if time.monotonic() > deadline:
            raise AssertionError(f"the collector came to an end at {last}")
        time.sleep(PAUSE_SECONDS)
        now = read_collectors(node.pins)[Family.V4]
        if now.ticks == last.ticks + 1:
            longest = max(longest, now.nanoseconds - last.nanoseconds)
        last = now
    return Watched(last.nanoseconds, longest)
