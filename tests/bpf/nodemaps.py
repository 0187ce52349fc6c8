"""
The maps of a test's node: written as an agent does, read back, and aged.

They are pinned in a mount namespace that belongs, like the node's network namespace, to
one worker thread of the test process, and vanishes with it.  Programs are ``harness``'
business, whose ``Node`` is one of these.
"""

import ctypes
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from bpf import sharing
from bpf.collecting import collect_all, take_events, take_garbage
from bpf.seals import seal_of
from bpf.uplink import UPLINK
from outgate.kernel.collector import COLLECTORS
from outgate.kernel.events import Event
from outgate.kernel.free import WORD_BITS, WORDS, bit_of
from outgate.kernel.layouts import ADDRESS_SIZES, FREE_KEY, FREE_VALUE, NAT
from outgate.kernel.maps import COUNTERS, FLOWS, MapName, encode_key, encode_value
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.reasons import Reason
from outgate.kernel.records import (
    NAT_HOST_SOCKET,
    CollectorRecord,
    FlowRecord,
    FlowTuple,
    MetricDirection,
    MetricRecord,
    NatDirection,
    NatRecord,
    read_counts,
)
from outgate.kernel.runtime import Runtime
from outgate.kernel.settings import DatapathSettings
from outgate.state.entries import (
    Address,
    Family,
    Key,
    NodeKey,
    PolicyEntry,
    PolicyKey,
    RowSet,
    RowsKey,
    Value,
    family_of,
)

T = TypeVar("T")

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_REC_PRIVATE = 0x4000 | 0x40000

STAMP = 8
"""Size of the time, the last field of entries of flows and their like."""

NAT_TABLES = {Family.V4: MapName.SNAT_V4, Family.V6: MapName.SNAT_V6}
HINT_TABLES = {Family.V4: MapName.PORTS_V4, Family.V6: MapName.PORTS_V6}
AGEING = (
    *(*FLOWS.values(), *NAT_TABLES.values()),
    *(MapName.FRAG_V4, MapName.FRAG_V6),
    *HINT_TABLES.values(),
)

FAR_FUTURE = 1 << 60
"""A time that stays ahead, in jiffies."""

ALL_FREE = b"\xff" * FREE_VALUE.size


def _isolate() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    if libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "make mounts private")


def host_half(key: bytes, family: Family) -> bytes:
    """Return the entry under *key* of a socket of the node, which is never over."""
    none, port, macs = bytes(ADDRESS_SIZES[family]), bytes(2), bytes(6)
    seal = seal_of(key, none, port)
    fields = none, port, 0, NAT_HOST_SOCKET, none, 0, 0, none, 0, 0, macs, macs, seal
    return NAT[family].pack(*fields, FAR_FUTURE)


class NodeMaps:
    """All maps of one node, in namespaces of its own; ``leave`` them at the end."""

    def __init__(self, settings: DatapathSettings, *, has_sets: bool) -> None:
        self._settings = settings
        self._has_sets = has_sets
        self._folder = TemporaryDirectory(prefix="outgate-bpf-")
        self.pins = Path(self._folder.name) / "bpf"
        self._taken: dict[bytes, bytes] = {}
        self._worker = ThreadPoolExecutor(1, initializer=_isolate)

    def leave(self) -> None:
        """Let the namespaces go; whatever is mounted there went before."""
        self._worker.shutdown()
        self._folder.cleanup()

    def inside(self, call: Callable[[], T]) -> T:
        """Run *call* in the node's namespaces."""
        return self._worker.submit(call).result()

    def table(self, name: str) -> PinnedMap:
        """Open one of the node's maps."""
        return self.inside(lambda: PinnedMap(self.pins / name))

    def free_all(self) -> None:
        """Tell programs that no address has rows or flows, as an agent that starts."""
        every = {FREE_KEY.pack(number): ALL_FREE for number in range(WORDS)}
        with PinnedMap(self.pins / MapName.FREE) as table:
            assert not table.put_many(every)

    def take(self, *sources: Address) -> None:
        """Tell programs that *sources* are about to have rows, as an agent does."""
        with self.table(MapName.FREE) as table:
            for source in sources:
                number, bit = divmod(bit_of(source.packed), WORD_BITS)
                key = FREE_KEY.pack(number)
                (word,) = FREE_VALUE.unpack(table.get(key))
                table.put(key, FREE_VALUE.pack(word & ~(1 << bit)))
                self._taken[key] = ALL_FREE

    def forget(self) -> None:
        """Remove every row; arrays get what an agent that starts gives them."""
        self.events()
        self.garbage()
        arrays = {MapName.CONFIG, MapName.FORWARDED, MapName.FREE}
        for name in set(MapName) - {*arrays, *COLLECTORS.values()}:
            with self.table(name) as table:
                assert not table.remove_many([key for key, _ in table.rows()])
        with self.table(MapName.FORWARDED) as table:
            for key, value in table.rows():
                if any(value):
                    table.put(key, bytes(len(value)))
        with self.table(MapName.FREE) as table:
            assert not table.put_many(self._taken)
        self._taken.clear()

    def put(self, entries: Mapping[Any, Value | PolicyEntry]) -> None:
        """Write *entries* into their maps."""
        for key, value in entries.items():
            if isinstance(key, RowsKey) and isinstance(value, RowSet):
                self.put({PolicyKey(key.source, to): row for to, row in value.items()})
                continue
            if isinstance(key, PolicyKey):
                self.take(key.source)
            name, raw = encode_key(key)
            with self.table(name) as table:
                table.put(raw, encode_value(key, value))
        self._share_rows(entries)

    def remove(self, *keys: Key | PolicyKey) -> None:
        """Remove *keys* from their maps; of nodes the programs are told."""
        for key in keys:
            name, raw = encode_key(key)
            with self.table(name) as table:
                assert not table.remove_many([raw])
        if any(isinstance(key, NodeKey) for key in keys):
            with self.table(MapName.CONFIG) as table:
                Runtime(table).begin_route_generation()
        self._share_rows(keys)

    def _share_rows(self, changed: Iterable[object]) -> None:
        if self._has_sets and any(isinstance(key, PolicyKey) for key in changed):
            self.inside(lambda: sharing.share_rows(self.pins))

    def flows(self) -> dict[FlowTuple, FlowRecord]:
        """Return the flow entries."""
        return {
            FlowTuple.decode(key): FlowRecord.decode(value)
            for name in FLOWS.values()
            for key, value in self._rows(name)
        }

    def nats(self) -> dict[FlowTuple, NatRecord]:
        """Return both halves of every translation."""
        return {
            FlowTuple.decode(key): NatRecord.decode(value)
            for name in NAT_TABLES.values()
            for key, value in self._rows(name)
        }

    def _rows(self, name: MapName) -> list[tuple[bytes, bytes]]:
        with self.table(name) as table:
            return list(table.rows())

    def age(self, seconds: int) -> None:
        """
        Let *seconds* pass for every flow, translation and fragmented datagram.

        Negative: another CPU touched them after a program looked at the clock.
        """
        for name in AGEING:
            self.age_table(name, seconds)

    def age_table(self, name: MapName, seconds: int) -> None:
        """Let *seconds* pass for the entries of one map."""
        with self.table(name) as table:
            for key, value in list(table.rows()):
                seen = int.from_bytes(value[-STAMP:], sys.byteorder)
                older = seen - seconds * self._settings.jiffies_per_second
                stamp = max(older, 0).to_bytes(STAMP, sys.byteorder)
                table.put(key, value[:-STAMP] + stamp)

    def events(self) -> list[Event]:
        """Take what the programs told since the last time."""
        return self.inside(lambda: take_events(self.pins))

    def garbage(self) -> dict[MapName, list[bytes]]:
        """Take the items that the collector would look at, oldest first."""
        return self.inside(lambda: take_garbage(self.pins))

    def collect(self) -> dict[Family, CollectorRecord]:
        """Let the collector look at every flow once, whether due or not."""
        return self.inside(lambda: collect_all(self.pins, self._settings))

    def take_ports(self, server: Address, ports: Iterable[int]) -> None:
        """Let sockets of this node have these TCP ports towards port 80 of *server*."""
        family = family_of(server)
        egress_ip = UPLINK[family].address
        end = bytes([socket.IPPROTO_TCP, NatDirection.REVERSE, 0, 0])
        start = server.packed + egress_ip.packed + (80).to_bytes(2, "big")
        keys = [start + port.to_bytes(2, "big") + end for port in ports]
        rows = {key: host_half(key, family) for key in keys}
        with self.table(NAT_TABLES[family]) as table:
            assert not table.put_many(rows)

    def forget_nat(self, keys: set[FlowTuple]) -> None:
        """Remove NAT entries, as an eviction would."""
        for name in NAT_TABLES.values():
            with self.table(name) as table:
                raw = [k for k, _ in table.rows() if FlowTuple.decode(k) in keys]
                assert not table.remove_many(raw)

    def counts(self) -> dict[tuple[Reason, MetricDirection, int], int]:
        """Return packets by (reason, direction, policy)."""
        records = self.count_records()
        return {(Reason(r.reason), r.direction, r.policy): r.packets for r in records}

    def count_records(self) -> tuple[MetricRecord, ...]:
        """Return the same with bytes."""
        rows, slots = (self._rows(name) for name in COUNTERS)
        return read_counts(rows, slots)
