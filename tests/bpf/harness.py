"""
Runs the real programs on one packet at a time, in the real kernel (BPF_PROG_TEST_RUN).

A ``Node`` is one node's datapath without wires: its own network and mount namespace,
its own maps, an uplink with a default route so that route lookups work.  Namespaces
belong to one worker thread of the test process and vanish with it.
"""

import ctypes
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from struct import pack_into, unpack_from
from tempfile import TemporaryDirectory
from typing import Self, TypeVar

import pytest

from outgate.kernel import syscall
from outgate.kernel.maps import (
    CONFIG_KEY,
    DatapathSettings,
    GatewayPath,
    MapName,
    RuntimeConfig,
    encode_key,
    encode_value,
)
from outgate.kernel.objects import load_program
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.reasons import Reason
from outgate.kernel.records import (
    NAT,
    NAT_HOST_SOCKET,
    TUPLE,
    FlowRecord,
    MetricDirection,
    MetricRecord,
    NatDirection,
    NatRecord,
    Tuple4,
)
from outgate.kernel.syscall import AttachType
from outgate.state.entries import Hook, Key, Value

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent.parent

ETH_P_ALL, ETH_P_8021Q, ETH_IPV4 = 3, 0x8100, b"\x08\x00"
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 0x10
"""From <linux/if_ether.h> and <linux/if_packet.h>."""

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_REC_PRIVATE = 0x4000 | 0x40000

PASS, DROP, REDIRECT = 0, 2, 7

VNI = 25959
TUNNEL_MTU = 1450
TUNNEL_MAC = bytes.fromhex("020000000aa0")
UPLINK_ADDRESS = IPv4Address("172.18.0.5")

CONTEXT_SIZE = 192
MARK, IFINDEX, CB, GSO_SIZE = 8, 40, 48, 176
"""Offsets in ``struct __sk_buff``."""

JIFFIES_PER_SECOND = 250
FLOW_STAMP, NAT_STAMP = 32, 40
"""Offsets of ``last_seen`` in ``struct flow_entry`` and ``struct nat_entry``."""

HTTP = (80).to_bytes(2, "big")
NO_ROUTE = (bytes(4), 0, 0, bytes(4), 0, bytes(6), bytes(6))
FAR_FUTURE = 1 << 60
"""Parts of a translation's key and value that :meth:`Node.take_ports` writes."""

MARK_SEEN, MARK_TRANSLATED, MARK_OVERLAY, MARK_MASK = 0x10, 0x20, 0x40, 0x70


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program did with a packet."""

    verdict: int
    packet: bytes
    mark: int


@dataclass(frozen=True, slots=True)
class Wire:
    """A frame as it came out of the node, and the VLAN that it was tagged with."""

    frame: bytes
    vlan: int | None


@dataclass(frozen=True, slots=True)
class Setup:
    """Settings that tests vary."""

    gateway_path: GatewayPath = GatewayPath.DIRECT
    ports: tuple[int, int] = (1024, 65535)
    has_route: bool = True
    jiffies_per_second: int = JIFFIES_PER_SECOND


def _isolate() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    if libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "make mounts private")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


class Node:
    """The six programs and their maps; see the module's docstring."""

    def __init__(self, setup: Setup | None = None) -> None:
        self._setup = setup or Setup()
        self._folder = TemporaryDirectory(prefix="outgate-bpf-")
        self._pins = Path(self._folder.name) / "bpf"
        self._programs: dict[Hook, int] = {}
        self._wrapper = -1
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
        self._pins.mkdir()
        _run("mount", "-t", "bpf", "bpf", str(self._pins))
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "wire")
        _run("ip", "address", "add", f"{UPLINK_ADDRESS}/16", "dev", "uplink")
        for link in ("uplink", "wire"):
            _run("ip", "link", "set", link, "up")
        if self._setup.has_route:
            _run("ip", "route", "add", "default", "via", "172.18.0.1")
        else:
            _run("ip", "route", "flush", "dev", "uplink")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        self.uplink = socket.if_nametoindex("uplink")
        settings = DatapathSettings(
            tunnel_vni=VNI,
            mark_mask=MARK_MASK,
            mark_translated=MARK_TRANSLATED,
            mark_overlay=MARK_OVERLAY,
            mark_seen=MARK_SEEN,
            jiffies_per_second=self._setup.jiffies_per_second,
            port_first=self._setup.ports[0],
            port_last=self._setup.ports[1],
            gateway_path=self._setup.gateway_path,
        ).encode()
        for hook in Hook:
            self._programs[hook] = load_program(hook, self._pins, settings).fd
        config = RuntimeConfig(self.uplink, 0, TUNNEL_MAC, TUNNEL_MTU)
        with PinnedMap(self._pins / "outgate_config") as table:
            table.put(CONFIG_KEY.pack(0), config.encode())
        self._load_wrapper()

    def _load_wrapper(self) -> None:
        pin = self._pins / "tunnel_source"
        source = Path(self._folder.name) / "tunnel_source.o"
        compile_wrapper(source)
        _run(
            *("bpftool", "prog", "load", str(source), str(pin)),
            *("type", "tc", "pinmaps", str(self._pins)),
        )
        self._wrapper = syscall.obj_get(pin)
        array = syscall.obj_get(self._pins / "program_under_test")
        program = self._programs[Hook.FROM_OVERLAY].to_bytes(4, sys.byteorder)
        syscall.map_update(array, bytes(4), program)
        os.close(array)

    def _tear_down(self) -> None:
        for fd in (*self._programs.values(), self._wrapper):
            os.close(fd)
        _run("umount", str(self._pins))
        _run("ip", "link", "delete", "uplink")

    def ip(self, *arguments: str) -> None:
        """Run the ``ip`` command in the node's namespaces."""
        self.inside(lambda: _run("ip", *arguments))

    def put(self, entries: Mapping[Key, Value]) -> None:
        """Write *entries* into their maps."""
        for key, value in entries.items():
            name, raw = encode_key(key)
            with self._table(name) as table:
                table.put(raw, encode_value(value))

    def remove(self, *keys: Key) -> None:
        """Remove *keys* from their maps."""
        for key in keys:
            name, raw = encode_key(key)
            with self._table(name) as table:
                assert not table.remove_many([raw])

    def _table(self, name: str) -> PinnedMap:
        return self.inside(lambda: PinnedMap(self._pins / name))

    def program(self, hook: Hook, *, is_tunnelled: bool = False) -> int:
        """Return the file descriptor to run for *hook*, for tests that run many."""
        return self._wrapper if is_tunnelled else self._programs[hook]

    def table(self, name: MapName) -> PinnedMap:
        """Open one of the node's maps."""
        return self._table(name)

    def run(
        self,
        hook: Hook,
        packet: bytes,
        *,
        mark: int = 0,
        tunnel: IPv4Address | None = None,
        vni: int = VNI,
        gso_size: int = 0,
    ) -> Outcome:
        """
        Run *hook* on *packet*; *tunnel* is the node that tunnelled it here.

        With *gso_size* it is a super-packet whose segments carry that many bytes.
        """
        context = bytearray(CONTEXT_SIZE)
        pack_into("=I", context, MARK, mark)
        pack_into("=I", context, IFINDEX, self.uplink)
        pack_into("=I", context, GSO_SIZE, gso_size)
        program = self._programs[hook]
        if tunnel:
            pack_into("=II", context, CB, int(tunnel), vni)
            program = self._wrapper
        outcome = self.inside(
            lambda: syscall.run_program(program, packet, bytes(context))
        )
        (mark_after,) = unpack_from("=I", outcome.context, MARK)
        return Outcome(outcome.verdict, outcome.packet, mark_after)

    def send_tagged(self, hook: Hook, packet: bytes, vlan: int) -> Wire:
        """Run *hook* on a frame that really arrives, with a VLAN tag, on the uplink."""
        return self.inside(lambda: self._send_tagged(hook, packet, vlan))

    def _send_tagged(self, hook: Hook, packet: bytes, vlan: int) -> Wire:
        tag = ETH_P_8021Q.to_bytes(2, "big") + vlan.to_bytes(2, "big")
        everything = socket.htons(ETH_P_ALL)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, everything) as wire:
            wire.bind(("wire", ETH_P_ALL))
            wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            wire.settimeout(2)
            with self.attached(hook):
                wire.send(packet[:12] + tag + packet[12:])
                while True:
                    frame, [(_, _, auxiliary)], _, source = wire.recvmsg(2048, 256)
                    if source[2] != socket.PACKET_OUTGOING and frame[12:14] == ETH_IPV4:
                        status, vlan_after = unpack_from("=I12xH", auxiliary)
                        has_tag = bool(status & TP_STATUS_VLAN_VALID)
                        return Wire(frame, vlan_after if has_tag else None)

    @contextmanager
    def attached(self, hook: Hook) -> Iterator[None]:
        """Let *hook* have what arrives on the uplink; to be used inside the node."""
        ingress = AttachType.TCX_INGRESS
        link = syscall.link_create(self._programs[hook], self.uplink, ingress)
        try:
            yield
        finally:
            os.close(link)

    def flows(self) -> dict[Tuple4, FlowRecord]:
        """Return the flow entries."""
        with self._table(MapName.FLOW) as table:
            return {Tuple4.decode(k): FlowRecord.decode(v) for k, v in table.rows()}

    def nats(self) -> dict[Tuple4, NatRecord]:
        """Return both halves of every translation."""
        with self._table(MapName.SNAT) as table:
            return {Tuple4.decode(k): NatRecord.decode(v) for k, v in table.rows()}

    def age(self, seconds: int) -> None:
        """
        Let *seconds* pass for every flow and translation.

        Negative: another CPU touched them after a program looked at the clock.
        """
        for name, stamp in ((MapName.FLOW, FLOW_STAMP), (MapName.SNAT, NAT_STAMP)):
            with self._table(name) as table:
                for key, value in list(table.rows()):
                    (seen,) = unpack_from("=Q", value, stamp)
                    older = seen - seconds * self._setup.jiffies_per_second
                    table.put(key, value[:stamp] + older.to_bytes(8, sys.byteorder))

    def take_ports(self, server: IPv4Address, ports: Iterable[int]) -> None:
        """Let sockets of this node have these TCP ports towards port 80 of *server*."""
        taken = NAT.pack(bytes(4), bytes(2), 0, NAT_HOST_SOCKET, *NO_ROUTE, FAR_FUTURE)
        egress_ip, direction = UPLINK_ADDRESS.packed, NatDirection.REVERSE
        rows = {
            TUPLE.pack(
                *(server.packed, egress_ip, HTTP, port.to_bytes(2, "big")),
                *(socket.IPPROTO_TCP, direction),
            ): taken
            for port in ports
        }
        with self._table(MapName.SNAT) as table:
            assert not table.put_many(rows)

    def forget_nat(self, keys: set[Tuple4]) -> None:
        """Remove NAT entries, as an eviction would."""
        with self._table(MapName.SNAT) as table:
            raw = [k for k, _ in table.rows() if Tuple4.decode(k) in keys]
            assert not table.remove_many(raw)

    def counts(self) -> dict[tuple[Reason, MetricDirection, int], int]:
        """Return packets by (reason, direction, policy)."""
        with self._table(MapName.METRICS) as table:
            records = [MetricRecord.decode(k, v) for k, v in table.rows()]
        return {(Reason(r.reason), r.direction, r.policy): r.packets for r in records}


def compile_wrapper(output: Path) -> None:
    """Compile ``tunnel_source.bpf.c`` the way the datapath is compiled."""
    build = runpy.run_path(str(ROOT / "bpf" / "compile.py"))
    source = Path(__file__).with_name("tunnel_source.bpf.c")
    _run(*build["compiler"](), *build["FLAGS"], "-c", str(source), "-o", str(output))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root")
