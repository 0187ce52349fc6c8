"""
What the collector costs: fill the tables, let its timer run, print the figures.

Not a test, and judges nothing; run it as root on a machine that is idle::

    PYTHONPATH=src:tests python tests/bpf/collector_cost.py [flows]

A tick's length is told by looking every two milliseconds: the kernel's own counters
are sums.  All runs on one CPU at a time, whichever the timer was started on.
"""

import sys
import time
from collections.abc import Callable, Iterator
from struct import pack_into

from bpf.harness import CONTEXT_SIZE, IFINDEX, Node, Setup
from bpf.packets import ETHERNET, UDP_NAME, outbound
from bpf.world import IPV4, IPV6, World, gateway_entries
from outgate.kernel import syscall
from outgate.kernel.collector import read_collectors, start_collectors, stop_collectors
from outgate.kernel.records import CollectorRecord
from outgate.state.entries import Family, Hook

FLOWS = 1 << 18
STEADY_SECONDS = 20.0
PAUSE_SECONDS = 0.002


def frames(world: World, pod: str, count: int) -> Iterator[bytes]:
    """Yield first packets of *count* flows: 32,768 ports, as many servers as needed."""
    frame = bytearray(outbound(UDP_NAME, pod, world.SERVER).build())
    start = ETHERNET + world.ip_size
    for number in range(count):
        frame[start - 1] = 1 + number // 32768
        frame[start : start + 2] = (1024 + number % 32768).to_bytes(2, "big")
        yield bytes(frame)


def fill(node: Node, world: World, pod: str, count: int) -> float:
    """Open *count* flows; return nanoseconds a flow, Python's included."""
    context = bytearray(CONTEXT_SIZE)
    pack_into("=I", context, IFINDEX, node.uplink)
    program = node.program(Hook.FROM_CONTAINER, world.family)
    begun = time.monotonic_ns()
    for frame in frames(world, pod, count):
        syscall.run_program(program, frame, bytes(context))
    return (time.monotonic_ns() - begun) / count


def watch(node: Node, family: Family, until: Callable[[CollectorRecord], bool]) -> str:
    """Return what the collector did from now until the condition holds."""
    first = last = read_collectors(node.pins)[family]
    begun, largest = time.monotonic(), 0
    while not until(last):
        time.sleep(PAUSE_SECONDS)
        now = read_collectors(node.pins)[family]
        if now.ticks == last.ticks + 1:
            largest = max(largest, now.nanoseconds - last.nanoseconds)
        last = now
    spent, checked = last.nanoseconds - first.nanoseconds, last.checked - first.checked
    share = spent / 1e9 / (time.monotonic() - begun)
    return (
        f"checked {checked:7} released {last.released - first.released:7}"
        f"  {spent / max(checked, 1):6.0f} ns each  {share:6.2%} of one CPU"
        f"  largest tick {largest / 1000:5.0f} µs"
    )


def measure(world: World, pod: str, title: str, count: int) -> None:
    """Print the cost of looking at live flows, then of dropping dead ones."""
    family = world.family
    with Node() as node:
        node.put(gateway_entries(world))
        settings = Setup().datapath
        node.inside(lambda: fill(node, world, pod, count))
        assert not node.inside(lambda: start_collectors(node.pins, settings))
        end = time.monotonic() + STEADY_SECONDS
        steady = node.inside(
            lambda: watch(node, family, lambda _: time.monotonic() > end)
        )
        print(f"{world.name:5} {title:14} live  {steady}", flush=True)
        node.inside(lambda: stop_collectors(node.pins))
        node.age(301)
        assert not node.inside(lambda: start_collectors(node.pins, settings))
        end = time.monotonic() + STEADY_SECONDS
        over = node.inside(
            lambda: watch(
                node,
                family,
                lambda r: r.released >= count or time.monotonic() > end,
            )
        )
        print(f"{world.name:5} {title:14} over  {over}", flush=True)
        node.inside(lambda: stop_collectors(node.pins))


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else FLOWS
    for each in (IPV4, IPV6):
        measure(each, each.TUNNELLED_POD, "pod's node", wanted)
        measure(each, each.LOCAL_POD, "local gateway", wanted // 2)
