"""
Runs one program over many flows in BPF_PROG_TEST_RUN, and tells the CPU time it took.

``driver.bpf.c`` (of XDP: ``xdp_driver.bpf.c``) stands before the program and writes
each packet as another flow; the same with a program that does nothing behind it is what
that costs.  CPU time of the thread, not time: the machine may have other work.
"""

import ctypes
import sys
import time
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import count
from math import gcd
from struct import Struct

from bench.compiled import bpf_object
from bpf import outer
from bpf.harness import CONTEXT_SIZE, IFINDEX, VNI, Node
from bpf.packets import ETHERNET, IP_SIZE, Packet
from bpf.uplink import command
from outgate.kernel import syscall
from outgate.kernel.testrun import run_program
from outgate.state.entries import Address, Family, family_of

FRAME_SIZE, PORT_FIRST, PORTS = 256, 16384, 32768
"""As in ``plan.h``."""

OUTER_PORT = outer.UDP_SIZE + outer.VXLAN_SIZE
"""So far before the inner frame the outer header has its source port."""

XDP_CONTEXT = Struct("=6I")
"""``struct xdp_md``: start and end of the packet, its interface, its queue."""

GOLDEN = 0.618


class Plan(ctypes.Structure):
    """``struct plan``, which says what the fields mean."""

    _fields_ = (
        ("flows", ctypes.c_uint32),
        ("step", ctypes.c_uint32),
        ("first", ctypes.c_uint32),
        ("next", ctypes.c_uint32),
        ("pods", ctypes.c_uint32),
        ("pod_first", ctypes.c_uint16),
        ("server_first", ctypes.c_uint16),
        ("port_at", ctypes.c_uint32),
        ("pod_at", ctypes.c_uint32),
        ("server_at", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("sum_at", ctypes.c_uint32),
        ("outer_at", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("mark", ctypes.c_uint32),
        ("outer", ctypes.c_uint32),
        ("vni", ctypes.c_uint32),
        ("node", ctypes.c_uint32 * 4),
        ("frame", ctypes.c_uint8 * FRAME_SIZE),
    )


@dataclass(frozen=True, slots=True)
class Frames:
    """
    Packets of many flows, made of one.

    *packet* is flow 0's, as its sender writes it; *is_reply* tells that the server
    sends it.  *pods* is how many pods talk, 0 for one alone, whose address stays.
    *tunnel* is the node that seems to have tunnelled it here; with *is_wrapped* the
    outer header is there.
    """

    packet: Packet
    is_reply: bool = False
    pods: int = 0
    tunnel: Address | None = None
    is_wrapped: bool = False
    mark: int = 0

    def plan(self, flows: int, first: int = 0) -> Plan:
        """Return the plan for *flows* flows from number *first* on."""
        packet, raw = self.packet, self.packet.build()
        shift = 0
        if self.tunnel and self.is_wrapped:
            raw = outer.wrap(raw, self.tunnel)
            shift = len(raw) - len(self.packet.build())
        start = shift + ETHERNET + IP_SIZE[packet.family]
        source_end, destination_end = start - _size(packet.family), start
        ends = source_end, destination_end
        server_end, pod_end = ends if self.is_reply else reversed(ends)
        server = packet.source if self.is_reply else packet.destination
        pod = packet.destination if self.is_reply else packet.source
        plan = Plan(
            flows=flows,
            step=step_of(flows),
            first=first,
            pods=self.pods,
            pod_first=_last_word(pod),
            server_first=_last_word(server),
            port_at=start + 2 if self.is_reply else start,
            pod_at=pod_end - 2,
            server_at=server_end - 2,
            outer_at=shift - OUTER_PORT if shift else 0,
            size=len(raw),
            mark=self.mark,
            vni=VNI,
            frame=(ctypes.c_uint8 * FRAME_SIZE)(*raw),
        )
        if self.tunnel and not self.is_wrapped:
            is_ipv6 = family_of(self.tunnel) is Family.V6
            plan.outer = 6 if is_ipv6 else 4
            words = [int(self.tunnel), 0, 0, 0]
            if is_ipv6:
                packed = self.tunnel.packed
                words = [_native(packed[i : i + 4]) for i in range(0, 16, 4)]
            plan.node = (ctypes.c_uint32 * 4)(*words)
        return plan


def _size(family: Family) -> int:
    return 4 if family is Family.V4 else 16


def _native(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)


def _last_word(address: str) -> int:
    return int.from_bytes(ip_address(address).packed[-2:], "big")


def step_of(flows: int) -> int:
    """Return a step that comes to every flow, each far from the one before."""
    start = max(int(flows * GOLDEN), 1)
    return next(step for step in count(start) if gcd(step, flows) == 1) % flows


@dataclass(frozen=True, slots=True)
class Run:
    """What many packets took: CPU time each, and the last one's verdict."""

    nanoseconds: float
    verdict: int


class Driver:
    """The driver beside a node's programs; namespaces and pins are the node's."""

    def __init__(self, node: Node, is_xdp: bool = False) -> None:
        self._node = node
        self._is_xdp = is_xdp
        node.inside(self._load)

    def _load(self) -> None:
        folder = self._node.pins / "bench"
        names = ("xdp_driver", "xdp_empty") if self._is_xdp else ("driver", "empty")
        sources = names[:1] if self._is_xdp else names
        for source in sources:
            command(
                *("bpftool", "prog", "loadall", str(bpf_object(source)), str(folder)),
                *("pinmaps", str(folder)),
            )
        self._driver, self.empty, self._plans, self._measured = (
            syscall.obj_get(folder / name) for name in (*names, "plans", "measured")
        )
        for name in (*names, "plans", "measured"):
            (folder / name).unlink()
        folder.rmdir()

    def run(self, program: int, plan: Plan, packets: int, ifindex: int = 0) -> Run:
        """Run *program* on *packets* packets, from wherever the plan stands."""
        return self._node.inside(lambda: self._run(program, plan, packets, ifindex))

    def _run(self, program: int, plan: Plan, packets: int, ifindex: int) -> Run:
        syscall.map_update(self._measured, bytes(4), _fd(program))
        syscall.map_update(self._plans, bytes(4), bytes(plan))
        packet = bytes(plan.frame[: plan.size])
        return self._timed(self._driver, packet, packets, ifindex)

    def run_bare(self, packets: int) -> Run:
        """Run the empty program, with nothing before it, on one packet."""
        packet = bytes(60)
        return self._node.inside(lambda: self._timed(self.empty, packet, packets, 0))

    def _timed(self, program: int, packet: bytes, packets: int, ifindex: int) -> Run:
        context = self._context(len(packet), ifindex or self._node.uplink)
        begun = time.thread_time_ns()
        done = run_program(program, packet, context, packets)
        spent = time.thread_time_ns() - begun
        return Run(spent / packets, done.verdict)

    def _context(self, size: int, ifindex: int) -> bytes:
        """Return a ``struct xdp_md`` or ``struct __sk_buff``."""
        if self._is_xdp:
            return XDP_CONTEXT.pack(0, size, 0, ifindex, 0, 0)
        context = bytearray(CONTEXT_SIZE)
        context[IFINDEX : IFINDEX + 4] = _fd(ifindex)
        return bytes(context)


def _fd(number: int) -> bytes:
    return number.to_bytes(4, sys.byteorder)
