"""
Packets of many UDP flows through a path, all of it on one CPU, and what it took.

Live frames leave one end of a veth as a NIC would receive them; a sink at the far end
counts what arrives.  The figure is CPU time, of the thread and of the CPU's softirq
thread: everything between is done in one of the two, whatever else the machine does.
"""

import ctypes
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.compiled import bpf_object
from bench.driver import FRAME_SIZE, PORT_FIRST, Plan, step_of
from bench.network import Namespace
from bpf.packets import ETHERNET, IP_SIZE, UDP_NAME, Packet
from bpf.uplink import command
from outgate.kernel import syscall
from outgate.kernel.syscall import AttachType, Command
from outgate.kernel.testrun import RunAttributes
from outgate.state.entries import Family

LIVE_FRAMES, BATCH = 1 << 1, 64
CPU = 0
UDP_SIZE = 8

PAYLOAD = b"\xff\xff" + bytes(16)
"""A word that keeps the checksum right, and what makes 60 bytes."""


def datagram(source: str, destination: str, **fields: object) -> Packet:
    """Return flow 0's packet from a pod, 60 bytes long."""
    packet = Packet(UDP_NAME, source, PORT_FIRST, destination, 80, payload=PAYLOAD)
    return packet.but(**fields)


@dataclass(frozen=True, slots=True)
class Stream:
    """
    What a generator sends: frame *raw* of flow 0, out of *interface*.

    *start* is where the IP header of the flow's packet lies; with *is_reply* the
    server sends it.  A frame with *is_tunnelled* has another one around that.
    """

    raw: bytes
    interface: str
    is_reply: bool = False
    is_tunnelled: bool = False

    def plan(self, flows: int, ifindex: int) -> Plan:
        """Return the plan; up to as many flows as there are ports for."""
        size = len(self.raw)
        l4 = size - len(PAYLOAD) - UDP_SIZE
        return Plan(
            flows=flows,
            step=step_of(flows),
            port_at=l4 + 2 if self.is_reply else l4,
            # Nothing but the port changes: the server's address is written as it is.
            server_at=l4 - 2,
            server_first=int.from_bytes(self.raw[l4 - 2 : l4], "big"),
            sum_at=l4 + UDP_SIZE,
            outer_at=ETHERNET + IP_SIZE[Family.V4] if self.is_tunnelled else 0,
            ifindex=ifindex,
            size=size,
            frame=(ctypes.c_uint8 * FRAME_SIZE)(*self.raw),
        )


class Traffic:
    """Generator and sink, loaded once; *pins* is a folder on a bpf file system."""

    def __init__(self, pins: Path) -> None:
        folder = pins / "traffic"
        command(
            *("bpftool", "prog", "loadall", str(bpf_object("traffic")), str(folder)),
            *("pinmaps", str(folder)),
        )
        self._generate = syscall.obj_get(folder / "generate")
        self._sink = syscall.obj_get(folder / "sink")
        self._xdp_sink = syscall.obj_get(folder / "xdp_sink")
        self._plans = syscall.obj_get(folder / "plans")
        self._arrived = syscall.obj_get(folder / "arrived")

    @contextmanager
    def sink(self, at: Namespace, interface: str) -> Iterator[None]:
        """Let packets end where they arrive on *interface*, before all programs."""
        link = at.inside(
            lambda: syscall.link_create(
                self._sink,
                socket.if_nametoindex(interface),
                AttachType.TCX_INGRESS,
                is_first=True,
            )
        )
        try:
            yield
        finally:
            syscall.link_detach(link)
            os.close(link)

    @contextmanager
    def xdp_sink(self, at: Namespace, interface: str) -> Iterator[None]:
        """Let frames end where they arrive, before they become an skb."""
        number = syscall.program_id(self._xdp_sink)
        at.run(f"bpftool net attach xdpdrv id {number} dev {interface}")
        try:
            yield
        finally:
            at.run(f"bpftool net detach xdpdrv dev {interface}")

    def arrived(self) -> int:
        """Return how many packets ended in a sink so far."""
        cpus = os.cpu_count() or 1
        raw = syscall.map_lookup(self._arrived, bytes(4), 8 * cpus)
        return sum(
            int.from_bytes(raw[i : i + 8], sys.byteorder) for i in range(0, len(raw), 8)
        )

    def send(self, at: Namespace, stream: Stream, flows: int, packets: int) -> "Sent":
        """Send *packets* packets out of an interface of *at*."""
        return at.inside(lambda: self._send(stream, flows, packets))

    def _send(self, stream: Stream, flows: int, packets: int) -> "Sent":
        os.sched_setaffinity(0, {CPU})
        ifindex = socket.if_nametoindex(stream.interface)
        plan = bytes(stream.plan(flows, ifindex))
        syscall.map_update(self._plans, bytes(4), plan)
        before, begun = self.arrived(), _cpu_time()
        _run_live(self._generate, stream.raw, packets)
        # What is still queued is the softirq thread's; it is a few packets.
        spent = _cpu_time() - begun
        time.sleep(0.005)
        return Sent(packets, self.arrived() - before, spent)


@dataclass(frozen=True, slots=True)
class Sent:
    """How many packets began and ended, and nanoseconds of CPU time for all."""

    packets: int
    arrived: int
    spent: int

    @property
    def nanoseconds(self) -> float:
        """Of one packet that arrived."""
        return self.spent / max(self.arrived, 1)


def _run_live(program: int, raw: bytes, packets: int) -> None:
    given = ctypes.create_string_buffer(raw, len(raw))
    run = RunAttributes(
        prog_fd=program,
        data_size_in=len(raw),
        data_in=ctypes.addressof(given),
        repeat=packets,
    )
    run.tail[0], run.tail[2] = LIVE_FRAMES, BATCH
    syscall.bpf(Command.PROG_TEST_RUN, run)


def _cpu_time() -> int:
    return time.thread_time_ns() + _softirq_time()


def _softirq_time() -> int:
    """Return nanoseconds that the CPU's softirq thread ran."""
    return int(Path(f"/proc/{_softirq_thread()}/schedstat").read_text().split()[0])


def _softirq_thread() -> int:
    found = _threads.get(CPU)
    if found is None:
        for path in Path("/proc").glob("[0-9]*/comm"):
            if path.read_text().strip() == f"ksoftirqd/{CPU}":
                found = _threads[CPU] = int(path.parent.name)
                break
        else:
            raise RuntimeError(
                f"no thread ksoftirqd/{CPU}: run in the first PID namespace"
            )
    return found


_threads: dict[int, int] = {}
