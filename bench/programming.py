"""
Cases ``program/…``: how fast Python writes the datapath's maps, by the product's code.

``hash``, ``lpm`` and ``delete`` hand bytes that are encoded already to the kernel, as
``PinnedMap`` does it.  ``policy_10k_pods`` begins with the operations of a plan, one
for each pod that a policy with one network begins to select, and ends with the rows in
the kernel.  CPU time of the thread, which waits for nothing.  Python's memory is set as
the agent's: a full collection in the midst would take as long as everything else.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from statistics import median

from bench.results import Result
from bench.stable import stable_median
from bpf.harness import Node, Setup
from bpf.world import IPV4
from outgate.agent.memory import expect_many_objects
from outgate.kernel.linux import KernelConfig, LinuxKernel
from outgate.kernel.maps import MapName, encode_key, encode_value
from outgate.kernel.pinned import PinnedMap
from outgate.state.entries import (
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    PolicyKey,
    RowSet,
    RowsKey,
)
from outgate.state.plan import Operation, Put, Remove

HASH_PER_SECOND, LPM_PER_SECOND = 2_000_000, 700_000
POLICY_MILLISECONDS = 10.0
"""Targets."""

FIRST_POD = IPv4Address("10.64.0.0")
NETWORK = IPv4Network("203.0.113.0/24")
PODS_OF_POLICY = 10_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    hash_rows: int = 60_000
    """The map of local addresses has room for 65,536."""
    lpm_rows: int = 100_000
    pods: int = PODS_OF_POLICY
    rounds: int = 12


QUICK = Sizes(200, 200, 200, 2)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a map, one behind the other."""

    name: MapName
    keys: bytes
    values: bytes
    count: int

    def put(self, table: PinnedMap) -> float:
        """Write all; return nanoseconds."""
        begun = time.thread_time_ns()
        refused = table.put_packed(self.keys, self.values)
        return _since(begun, refused)

    def remove(self, table: PinnedMap) -> float:
        """Remove all; return nanoseconds."""
        begun = time.thread_time_ns()
        refused = table.remove_packed(self.keys)
        return _since(begun, refused)


def _since(begun: int, refused: object) -> float:
    spent = time.thread_time_ns() - begun
    assert not refused, refused
    return spent


def hash_rows(count: int) -> Rows:
    """Return rows of local addresses."""
    pod = EndpointEntry(EndpointFlag.POD)
    keys = [EndpointKey(FIRST_POD + number) for number in range(count)]
    value = encode_value(keys[0], pod)
    packed = b"".join(encode_key(key)[1] for key in keys)
    return Rows(MapName.ENDPOINT, packed, value * count, count)


def lpm_rows(count: int) -> Rows:
    """Return policy rows of so many pods, of one network each."""
    keys = [PolicyKey(FIRST_POD + number, NETWORK) for number in range(count)]
    value = encode_value(keys[0], IPV4.via(IPV4.HERE))
    packed = b"".join(encode_key(key)[1] for key in keys)
    return Rows(MapName.EGRESS_V4, packed, value * count, count)


def run(sizes: Sizes) -> list[Result]:
    """Measure all cases."""
    expect_many_objects()
    with Node() as node:
        results = [
            *_rates(node, "hash", hash_rows(sizes.hash_rows), HASH_PER_SECOND, sizes),
            *_rates(node, "lpm", lpm_rows(sizes.lpm_rows), LPM_PER_SECOND, sizes),
        ]
        node.reset()
        spent = node.inside(lambda: asyncio.run(_policy(node, sizes)))
    return [*results, *spent]


def _rates(
    node: Node, name: str, rows: Rows, target: int, sizes: Sizes
) -> Iterator[Result]:
    removals: list[float] = []
    with node.table(rows.name) as table:

        def once() -> float:
            spent = rows.put(table)
            removals.append(rows.remove(table))
            return spent

        spent = stable_median(once, sizes.rounds)
    removed = median(removals)
    rate = round(rows.count / spent * 1e9)
    ratio = round(rate / target, 2)
    wanted = f"target {target:,} entries/s"
    unit = "entries/s"
    yield Result(f"program/{name}", rate, unit, 0, rows.count, wanted, ratio)
    rate = round(rows.count / removed * 1e9)
    yield Result(f"program/delete/{name}", rate, unit, 0, rows.count)


async def _policy(node: Node, sizes: Sizes) -> list[Result]:
    """Let a policy begin to select pods, and no longer select them."""
    config = KernelConfig(node.pins, "tunnel", Setup().datapath)
    kernel = LinuxKernel(config)
    await kernel.open()
    try:
        await kernel.observe()
        keys = [RowsKey(FIRST_POD + number) for number in range(sizes.pods)]
        removals: list[float] = []

        async def once() -> float:
            rows = RowSet({NETWORK: IPV4.via(IPV4.HERE)})
            spent = await _apply(kernel, [Put(key, rows) for key in keys])
            removals.append(await _apply(kernel, [Remove(key) for key in keys]))
            return spent

        values = [await once() for _ in range(sizes.rounds)]
    finally:
        kernel.close()
    put, removed = (round(median(spent) / 1e6, 3) for spent in (values, removals))
    name, wanted = "policy_10k_pods", f"target {POLICY_MILLISECONDS:g} ms"
    ratio = round(put / POLICY_MILLISECONDS, 2)
    return [
        Result(f"program/{name}", put, "ms", 0, sizes.pods, wanted, ratio),
        Result(f"program/delete/{name}", removed, "ms", 0, sizes.pods),
    ]


async def _apply(kernel: LinuxKernel, operations: list[Operation]) -> float:
    begun = time.thread_time_ns()
    failures = await kernel.apply(operations)
    return _since(begun, failures)
