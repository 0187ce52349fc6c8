"""
Runs the real programs on one packet at a time, in the real kernel (BPF_PROG_TEST_RUN).

A ``Node`` is one node's datapath without wires: its own network and mount namespace,
its own maps, an uplink with a default route so that route lookups work.  Namespaces
belong to one worker thread of the test process and vanish with it.
"""

import ctypes
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from struct import pack_into, unpack_from
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

import pytest

from bpf import outer, sharing
from bpf.collecting import collect_all, take_events, take_garbage
from bpf.gateway_xdp import GatewayXdp
from bpf.uplink import ROUTER_MAC, UPLINK, build_uplink, command
from bpf.wrapper import tunnel_source, wrapper_object
from outgate.kernel import syscall
from outgate.kernel.collector import COLLECTORS
from outgate.kernel.datapath import load_programs
from outgate.kernel.events import Event
from outgate.kernel.free import WORD_BITS, WORDS, bit_of
from outgate.kernel.layouts import FREE_KEY, FREE_VALUE, XDP_DEVICE, XDP_DEVICE_KEY
from outgate.kernel.maps import COUNTERS, MapName, encode_key, encode_value
from outgate.kernel.objects import Pair, load_program
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
from outgate.kernel.settings import (
    CONFIG_KEY,
    DatapathSettings,
    ExistingFlows,
    GatewayPath,
    OtherFamily,
    RuntimeConfig,
    TunnelWay,
)
from outgate.kernel.testrun import run_program
from outgate.kernel.xdp import join_families
from outgate.state.entries import (
    Address,
    Family,
    Hook,
    Key,
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

PASS, DROP, REDIRECT = -1, 2, 7
"""PASS: the next program shall look at the packet, and at the end the host's stack."""

VNI = 25959
TUNNEL_PORT = 8472
TUNNEL_MTU = 1450
UPLINK_MTU = 1500
TUNNEL_MAC = bytes.fromhex("020000000aa0")
CONTEXT_SIZE = 192
MARK, IFINDEX, CB, GSO_SIZE = 8, 40, 48, 176
"""Offsets in ``struct __sk_buff``."""

JIFFIES_PER_SECOND = 250
STAMP = 8
"""Size of the time, the last field of entries of flows and their like."""

FLOW_TABLES = {Family.V4: MapName.FLOW_V4, Family.V6: MapName.FLOW_V6}
NAT_TABLES = {Family.V4: MapName.SNAT_V4, Family.V6: MapName.SNAT_V6}
HINT_TABLES = {Family.V4: MapName.PORTS_V4, Family.V6: MapName.PORTS_V6}
AGEING = (
    *(*FLOW_TABLES.values(), *NAT_TABLES.values()),
    *(MapName.FRAG_V4, MapName.FRAG_V6),
    *HINT_TABLES.values(),
)

NAT_SIZE, NAT_FLAGS = {Family.V4: 48, Family.V6: 88}, {Family.V4: 7, Family.V6: 19}
FAR_FUTURE = (1 << 60).to_bytes(STAMP, sys.byteorder)
"""Of a translation: size, offset of its flags, and a time that stays ahead."""

ALL_FREE = b"\xff" * FREE_VALUE.size

MARK_SEEN, MARK_TRANSLATED, MARK_OVERLAY, MARK_MASK = 0x10, 0x20, 0x40, 0x70


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a hook's programs did with a packet."""

    verdict: int
    packet: bytes
    mark: int


@dataclass(frozen=True, slots=True)
class Setup:
    """Settings that tests vary."""

    gateway_path: GatewayPath = GatewayPath.DIRECT
    existing_flows: ExistingFlows = ExistingFlows.KEEP
    other_family: OtherFamily = OtherFamily.PASS
    ports: tuple[int, int] = (1024, 65535)
    has_route: bool = True
    has_sets: bool = True
    """Pods have their rows by sets; else only one by one, as where there is no room."""
    flow_table_size: int | None = None
    jiffies_per_second: int = JIFFIES_PER_SECOND
    tunnel_way: TunnelWay = TunnelWay.AUTO
    has_xdp: bool = False

    @property
    def datapath(self) -> DatapathSettings:
        """Return what every program is loaded with."""
        return DatapathSettings(
            tunnel_vni=VNI,
            mark_mask=MARK_MASK,
            mark_translated=MARK_TRANSLATED,
            mark_overlay=MARK_OVERLAY,
            mark_seen=MARK_SEEN,
            jiffies_per_second=self.jiffies_per_second,
            port_first=self.ports[0],
            port_last=self.ports[1],
            gateway_path=self.gateway_path,
            existing_flows=self.existing_flows,
            other_family=self.other_family,
            tunnel_port=TUNNEL_PORT,
            tunnel_way=self.tunnel_way,
            flow_table_size=self.flow_table_size,
        )


def _isolate() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    if libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "make mounts private")


class Node:
    """Every hook's two programs, and their maps; see the module's docstring."""

    def __init__(self, setup: Setup | None = None) -> None:
        self._setup = setup or Setup()
        self._folder = TemporaryDirectory(prefix="outgate-bpf-")
        self.pins = Path(self._folder.name) / "bpf"
        self._programs: dict[tuple[Hook, Family], int] = {}
        self._wrappers: dict[Family, int] = {}
        self.xdp: GatewayXdp | None = None
        self._taken: dict[bytes, bytes] = {}
        self.uplink = 0
        self._worker = ThreadPoolExecutor(1, initializer=_isolate)
        self.inside(self._build)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.inside(self._tear_down)
        self._worker.shutdown()
        self._folder.cleanup()

    def inside(self, call: Callable[[], T]) -> T:
        """Run *call* in the node's namespaces."""
        return self._worker.submit(call).result()

    def _build(self) -> None:
        self.pins.mkdir()
        command("mount", "-t", "bpf", "bpf", str(self.pins))
        build_uplink(self._setup.has_route)
        self.uplink = socket.if_nametoindex("uplink")
        programs = load_programs(self.pins, self._setup.datapath)
        for hook, pair in programs.items():
            for family, program in pair.items():
                self._programs[hook, family] = program.fd
        if self._setup.has_xdp:
            self._build_xdp(programs[Hook.XDP_NETDEV])
        for family in Family:
            self._wrappers[family] = self._load_wrapper(family)
        self._configure()
        self._free_all()

    def _build_xdp(self, pair: Pair) -> None:
        """Let the XDP programs find each other, and neighbours."""
        with PinnedMap(self.pins / MapName.XDP) as programs:
            join_families(programs, pair)
        self.xdp = GatewayXdp(pair[Family.V4].fd)
        for at in UPLINK.values():
            way = ("lladdr", ROUTER_MAC, "dev", "uplink")
            command("ip", "neighbour", "replace", at.router, *way)

    def configure(
        self,
        *,
        tunnel: int = 0,
        policy_generation: int = 0,
        route_generation: int = 0,
        source: IPv6Address | None = None,
    ) -> None:
        """Set what programs read anew with each packet; *tunnel* 0 is the uplink."""
        self.inside(
            lambda: self._configure(tunnel, policy_generation, route_generation, source)
        )

    def _configure(
        self,
        tunnel: int = 0,
        policy_generation: int = 0,
        route_generation: int = 0,
        source: IPv6Address | None = None,
    ) -> None:
        config = RuntimeConfig(
            tunnel or self.uplink,
            tunnel_mac=TUNNEL_MAC,
            tunnel_mtu=TUNNEL_MTU,
            policy_generation=policy_generation,
            route_generation=route_generation,
            tunnel_source=source,
        )
        with PinnedMap(self.pins / MapName.CONFIG) as table:
            table.put(CONFIG_KEY.pack(0), config.encode())
        with PinnedMap(self.pins / MapName.XDP_DEVICE) as table:
            table.put(
                XDP_DEVICE_KEY.pack(self.uplink), XDP_DEVICE.pack(UPLINK_MTU, True)
            )

    def _free_all(self) -> None:
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

    def _load_wrapper(self, family: Family) -> int:
        folder = self.pins / f"v{family}"
        folder.mkdir()
        pin = folder / "tunnel_source"
        command(
            *("bpftool", "prog", "load", str(wrapper_object()), str(pin)),
            *("type", "tc", "pinmaps", str(folder)),
        )
        array = syscall.obj_get(folder / "program_under_test")
        program = self._programs[Hook.FROM_OVERLAY, family]
        syscall.map_update(array, bytes(4), program.to_bytes(4, sys.byteorder))
        os.close(array)
        return syscall.obj_get(pin)

    def _tear_down(self) -> None:
        for fd in (*self._programs.values(), *self._wrappers.values()):
            os.close(fd)
        command("umount", str(self.pins))
        command("ip", "link", "delete", "uplink")

    def reset(self) -> None:
        """Forget every row; interfaces, routes and neighbours stay."""
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
        self.configure()

    def ip(self, *arguments: str) -> None:
        """Run the ``ip`` command in the node's namespaces."""
        self.inside(lambda: command("ip", *arguments))

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
        """Remove *keys* from their maps."""
        for key in keys:
            name, raw = encode_key(key)
            with self.table(name) as table:
                assert not table.remove_many([raw])
        self._share_rows(keys)

    def _share_rows(self, changed: Iterable[object]) -> None:
        if self._setup.has_sets and any(isinstance(key, PolicyKey) for key in changed):
            self.inside(lambda: sharing.share_rows(self.pins))

    def restart(self, hook: Hook, family: Family) -> None:
        """Replace a program by a fresh one over the same maps, as a new agent does."""
        self.inside(lambda: self._restart(hook, family))

    def _restart(self, hook: Hook, family: Family) -> None:
        os.close(self._programs[hook, family])
        fresh = self._load(hook, family)
        self._programs[hook, family] = fresh
        if hook is Hook.FROM_OVERLAY:
            array = syscall.obj_get(self.pins / f"v{family}" / "program_under_test")
            syscall.map_update(array, bytes(4), fresh.to_bytes(4, sys.byteorder))
            os.close(array)

    def _load(self, hook: Hook, family: Family) -> int:
        settings = self._setup.datapath
        raw, sizes = settings.encode(), settings.sizes
        return load_program(hook, family, self.pins, raw, sizes).fd

    def table(self, name: str) -> PinnedMap:
        """Open one of the node's maps."""
        return self.inside(lambda: PinnedMap(self.pins / name))

    def program(self, hook: Hook, family: Family, *, is_tunnelled: bool = False) -> int:
        """Return the file descriptor to run for *hook*, for tests that run many."""
        return self._wrappers[family] if is_tunnelled else self._programs[hook, family]

    def run(
        self,
        hook: Hook,
        packet: bytes,
        *,
        mark: int = 0,
        tunnel: Address | None = None,
        vni: int = VNI,
        gso_size: int = 0,
        ifindex: int = 0,
    ) -> Outcome:
        """
        Run *hook* on *packet*; *tunnel* is the node that tunnelled it here.
        *ifindex* is the interface, 0 the uplink.

        As on an interface, the next family's program sees what the first one passed.
        With *gso_size* it is a super-packet whose segments carry that many bytes.
        """
        context = bytearray(CONTEXT_SIZE)
        pack_into("=I", context, IFINDEX, ifindex or self.uplink)
        pack_into("=I", context, GSO_SIZE, gso_size)
        if tunnel:
            context[CB : CB + 20] = tunnel_source(tunnel, vni)
        before = Outcome(PASS, packet, mark)
        if tunnel and self._setup.tunnel_way is TunnelWay.AUTO:
            # From the wire; from-netdev takes it, or leaves it to the tunnel device.
            arrived = Outcome(PASS, outer.wrap(packet, tunnel, vni), mark)
            outcome = self._arrive(arrived, context, is_plain=not gso_size)
            if outcome != arrived:
                return self._of_device(outcome, mark)
        if hook is Hook.FROM_NETDEV:
            is_plain = not gso_size and ifindex in (0, self.uplink)
            outcome = self._arrive(before, context, is_plain=is_plain)
            return self._of_device(outcome, mark)
        is_tunnelled = tunnel is not None
        outcome = self._pass(hook, before, context, is_tunnelled=is_tunnelled)
        return self._of_device(outcome, mark)

    def _arrive(
        self, arrived: Outcome, context: bytearray, *, is_plain: bool
    ) -> Outcome:
        """Show a frame from the wire to XDP, and to tc if that passed it."""
        xdp = self.xdp
        if xdp and is_plain:
            sent = self.inside(lambda: xdp.run(arrived.packet))
            if sent is not None:
                mark = arrived.mark & ~MARK_MASK | MARK_TRANSLATED
                return Outcome(REDIRECT, sent, mark)
        return self._pass(Hook.FROM_NETDEV, arrived, context)

    def _of_device(self, outcome: Outcome, mark: int) -> Outcome:
        """Show what a program tunnelled by itself as if the device were to do it."""
        if outcome.verdict != REDIRECT:
            return outcome
        frame = self.untunnelled(outcome.packet)
        if frame == outcome.packet:
            return outcome
        assert MARK_TRANSLATED == outcome.mark & MARK_MASK
        return Outcome(REDIRECT, frame, mark)

    def untunnelled(self, frame: bytes) -> bytes:
        """Return what is in the tunnel, where a program put it there by itself."""
        is_auto = self._setup.tunnel_way is TunnelWay.AUTO
        inner = outer.unwrap(frame) if is_auto else None
        return inner.frame if inner else frame

    def _pass(
        self,
        hook: Hook,
        outcome: Outcome,
        context: bytearray,
        *,
        is_tunnelled: bool = False,
    ) -> Outcome:
        """Show a packet to one family's program, and the other's if that passed it."""
        for family in Family:
            if outcome.verdict == PASS:
                program = self.program(hook, family, is_tunnelled=is_tunnelled)
                outcome = self._run(program, outcome, context)
        return outcome

    def raw(self, hook: Hook, packet: bytes, *, gso_size: int = 0) -> bytes:
        """Return what *hook* makes of *packet*, in its tunnel if it is in one."""
        context = bytearray(CONTEXT_SIZE)
        pack_into("=I", context, IFINDEX, self.uplink)
        pack_into("=I", context, GSO_SIZE, gso_size)
        return self._pass(hook, Outcome(PASS, packet, 0), context).packet

    def _run(self, program: int, before: Outcome, context: bytearray) -> Outcome:
        pack_into("=I", context, MARK, before.mark)
        after = self.inside(lambda: run_program(program, before.packet, bytes(context)))
        (mark,) = unpack_from("=I", after.context, MARK)
        return Outcome(after.verdict, after.packet, mark)

    def flows(self) -> dict[FlowTuple, FlowRecord]:
        """Return the flow entries."""
        return {
            FlowTuple.decode(key): FlowRecord.decode(value)
            for name in FLOW_TABLES.values()
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
                older = seen - seconds * self._setup.jiffies_per_second
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
        settings = self._setup.datapath
        return self.inside(lambda: collect_all(self.pins, settings))

    def take_ports(self, server: Address, ports: Iterable[int]) -> None:
        """Let sockets of this node have these TCP ports towards port 80 of *server*."""
        family = family_of(server)
        egress_ip = UPLINK[family].address
        value = bytearray(NAT_SIZE[family])
        value[NAT_FLAGS[family]] = NAT_HOST_SOCKET
        value[-STAMP:] = FAR_FUTURE
        http, direction = (80).to_bytes(2, "big"), NatDirection.REVERSE
        rows = {
            server.packed
            + egress_ip.packed
            + http
            + port.to_bytes(2, "big")
            + bytes([socket.IPPROTO_TCP, direction, 0, 0]): bytes(value)
            for port in ports
        }
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


MakeNode = Callable[[Setup], Node]
"""What makes, or finds, a node with settings of the caller's choice."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root")
