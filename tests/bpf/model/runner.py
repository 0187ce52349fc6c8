"""
Runs programs and reads maps with as little Python as possible: for millions of frames.

One buffer and one open map each; the caller runs it inside the node's namespaces
(:meth:`bpf.harness.Node.inside`).  What it reads comes back in the model's own types.
"""

import ctypes
import os
from dataclasses import replace
from struct import Struct, pack_into, unpack_from
from types import TracebackType
from typing import Self

from bpf import outer
from bpf.harness import (
    CB,
    CONTEXT_SIZE,
    IFINDEX,
    MARK,
    MARK_MASK,
    MARK_TRANSLATED,
    PASS,
    REDIRECT,
    Node,
)
from bpf.model.entries import (
    FORWARD,
    DatagramRow,
    FlowRow,
    HalfRow,
    aged,
    flow_row,
    forward_row,
    half_row,
)
from bpf.model.outcome import Arrival
from bpf.model.packet import Tuple
from bpf.model.parts import Datagram
from bpf.model.rules import address
from bpf.model.unpinned import (
    ANSWERERS,
    HELD_PARTS,
    UnpinnedMap,
    allow_answers,
    unpinned,
)
from bpf.nodemaps import NAT_TABLES
from bpf.wrapper import tunnel_source
from outgate.errors import KernelError
from outgate.kernel import syscall
from outgate.kernel.maps import COUNTERS, FLOWS, MapName
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.reasons import Reason
from outgate.kernel.records import FragmentRecord, read_counts
from outgate.kernel.settings import CONFIG_KEY, RuntimeConfig, TunnelWay
from outgate.kernel.testrun import RunAttributes
from outgate.state.entries import Family, Hook

ROOM = 4096
SHORTEST = 14
"""Bytes of a frame that XDP may be tested with."""

KEYS = {Family.V4: Struct("!4s4sHHBBxx"), Family.V6: Struct("!16s16sHHBBxx")}
SIZES = {4: Family.V4, 16: Family.V6}
FAMILIES = {b"\x08\x00": (Family.V4,), b"\x86\xdd": (Family.V6,)}
BOTH = (Family.V4, Family.V6)
"""As an interface runs them."""

EVERY = 16
"""So often a frame is shown to the other family's program too, which must pass it."""

FRAGMENT_TABLES = {Family.V4: MapName.FRAG_V4, Family.V6: MapName.FRAG_V6}


class Runner:
    """Fast doors to one node; see the module's docstring."""

    def __init__(
        self,
        node: Node,
        jiffies_per_second: int,
        tunnel_way: TunnelWay = TunnelWay.AUTO,
    ) -> None:
        self._node = node
        self._tunnel_way = tunnel_way
        self.jiffies_per_second = jiffies_per_second
        self._flows = {f: node.table(FLOWS[f]) for f in Family}
        self._nats = {f: node.table(NAT_TABLES[f]) for f in Family}
        self._parts = {f: node.table(FRAGMENT_TABLES[f]) for f in Family}
        self._counters = [node.table(name) for name in COUNTERS]
        self._config = node.table(MapName.CONFIG)
        self._given = ctypes.create_string_buffer(ROOM)
        self._out = ctypes.create_string_buffer(ROOM)
        self._context = ctypes.create_string_buffer(CONTEXT_SIZE)
        self._context_out = ctypes.create_string_buffer(CONTEXT_SIZE)
        pack_into("=I", self._context, IFINDEX, node.uplink)
        self._sources: dict[tuple[bytes, int], bytes] = {(b"", 0): bytes(20)}
        self._answerers: list[int] = []
        self._held: list[UnpinnedMap] = []
        self._programs: dict[tuple[Hook, Family, bool], int] = {}
        self._count = 0
        self._contexts = (
            ctypes.addressof(self._context),
            ctypes.addressof(self._context_out),
        )
        self._run = RunAttributes(
            data_in=ctypes.addressof(self._given),
            data_out=ctypes.addressof(self._out),
            repeat=1,
        )
        self.find_programs()

    def find_programs(self) -> None:
        """Take the node's programs; again after they were replaced."""
        self._close_unpinned()
        self._programs = {
            (hook, family, is_tunnelled): self._node.program(
                hook, family, is_tunnelled=is_tunnelled
            )
            for hook in Hook
            for family in Family
            for is_tunnelled in (False, True)
        }
        plain_ones = [
            fd
            for (_, _, is_tunnelled), fd in self._programs.items()
            if not is_tunnelled
        ]
        self._answerers = unpinned(plain_ones, ANSWERERS)
        self._held = [UnpinnedMap(fd) for fd in unpinned(plain_ones, HELD_PARTS)]

    @property
    def taken(self) -> int:
        """Return how many frames XDP sent."""
        return self._node.xdp.taken if self._node.xdp else 0

    def _close_unpinned(self) -> None:
        for fd in self._answerers:
            os.close(fd)
        for table in self._held:
            table.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for table in (*self._aging, *self._counters, self._config):
            table.close()
        self._close_unpinned()

    def run(self, arrival: Arrival) -> tuple[int, bytes, int]:
        """Return the verdict, the frame and the mark that came out."""
        self._count += 1
        families = FAMILIES.get(arrival.frame[12:14], BOTH)
        if self._count % EVERY == 0:
            families = BOTH
        if arrival.tunnel and self._tunnel_way is TunnelWay.AUTO:
            # From the wire; from-netdev takes it, or leaves it to the tunnel device.
            frame = outer.wrap(
                arrival.frame, address(arrival.tunnel), arrival.vni, self._tos()
            )
            arrived = PASS, frame, arrival.mark
            ended = self._arrive(families, frame, arrival.mark)
            if ended != arrived:
                return self._of_device(ended, arrival.mark)
        elif arrival.hook is Hook.FROM_NETDEV:
            ended = self._arrive(families, arrival.frame, arrival.mark)
            return self._of_device(ended, arrival.mark)
        is_tunnelled = bool(arrival.tunnel)
        source = self._source(arrival)
        ctypes.memmove(ctypes.addressof(self._context) + CB, source, len(source))
        ended = self._pass(
            arrival.hook, families, arrival.frame, arrival.mark, is_tunnelled
        )
        return self._of_device(ended, arrival.mark)

    def _arrive(
        self, families: tuple[Family, ...], frame: bytes, mark: int
    ) -> tuple[int, bytes, int]:
        """Show a frame from the wire to XDP, and to tc if that passed it."""
        xdp = self._node.xdp
        if xdp and len(frame) >= SHORTEST:
            verdict, seen, _ = self._run_one(xdp.program, frame, None)
            sent = xdp.judge(frame, verdict, seen)
            if sent is not None:
                return REDIRECT, sent, mark & ~MARK_MASK | MARK_TRANSLATED
        return self._pass(Hook.FROM_NETDEV, families, frame, mark)

    def _of_device(
        self, ended: tuple[int, bytes, int], mark: int
    ) -> tuple[int, bytes, int]:
        """Show what a program tunnelled by itself as if the device were to do it."""
        verdict, frame, _ = ended
        if verdict != REDIRECT or self._tunnel_way is not TunnelWay.AUTO:
            return ended
        inner = outer.unwrap(frame)
        return (verdict, inner.frame, mark) if inner else ended

    def _tos(self) -> int:
        """Return what routers on the way have written into the outer header."""
        return self._count % 8

    def _pass(
        self,
        hook: Hook,
        families: tuple[Family, ...],
        frame: bytes,
        mark: int,
        is_tunnelled: bool = False,
    ) -> tuple[int, bytes, int]:
        verdict = PASS
        for family in families:
            program = self._programs[hook, family, is_tunnelled]
            verdict, frame, mark = self._run_one(program, frame, mark)
            if verdict != PASS:
                break
        return verdict, frame, mark

    def _source(self, arrival: Arrival) -> bytes:
        key = arrival.tunnel, arrival.vni if arrival.tunnel else 0
        if key not in self._sources:
            self._sources[key] = tunnel_source(address(key[0]), key[1])
        return self._sources[key]

    def _run_one(
        self, program: int, frame: bytes, mark: int | None
    ) -> tuple[int, bytes, int]:
        """Run a program; *mark* None: one of XDP, which has no such context."""
        run = self._run
        ctypes.memmove(self._given, frame, len(frame))
        pack_into("=I", self._context, MARK, mark or 0)
        run.prog_fd = program
        run.data_size_in, run.data_size_out = len(frame), ROOM
        run.ctx_size_in = 0 if mark is None else CONTEXT_SIZE
        run.ctx_size_out = run.ctx_size_in
        run.ctx_in, run.ctx_out = self._contexts if run.ctx_size_in else (0, 0)
        syscall.bpf(syscall.Command.PROG_TEST_RUN, run)
        out = ctypes.string_at(run.data_out, run.data_size_out)
        (mark_after,) = unpack_from("=I", self._context_out, MARK)
        return ctypes.c_int32(run.retval).value, out, mark_after

    def flows(self) -> dict[Tuple, FlowRow]:
        """Return all flow entries."""
        return {
            KEYS[family].unpack(key)[:5]: flow_row(value, family)
            for family, table in self._flows.items()
            for key, value in table.rows()
        }

    def halves(self) -> tuple[dict[Tuple, HalfRow], dict[Tuple, HalfRow]]:
        """Return the forward and the reverse halves of all translations."""
        forward: dict[Tuple, HalfRow] = {}
        backward: dict[Tuple, HalfRow] = {}
        for family, table in self._nats.items():
            for raw, value in table.rows():
                *key, direction = KEYS[family].unpack(raw)
                if direction == FORWARD:
                    forward[tuple(key)] = forward_row(value, family)
                else:
                    backward[tuple(key)] = half_row(value, family)
        return forward, backward

    def datagrams(self) -> dict[Datagram, DatagramRow]:
        """Return what is known of datagrams in parts."""
        found: dict[Datagram, DatagramRow] = {}
        for table in self._parts.values():
            for key, value in table.rows():
                row = FragmentRecord.decode(key, value)
                pair = row.source.packed, row.destination.packed
                protocol = key[2 * len(pair[0]) + 4]
                found[*pair, row.identification, protocol] = (
                    *(row.source_port, row.destination_port, row.protocol),
                    *(int(row.state), row.is_awaited),
                )
        return found

    def row(self, key: Tuple, direction: int = 0) -> bytes | None:
        """Return one entry as it is, None if it is not there; *direction* 0: a flow."""
        family = SIZES[len(key[0])]
        try:
            return self._table(family, direction).get(
                KEYS[family].pack(*key, direction)
            )
        except KernelError:
            return None

    def write(self, key: Tuple, direction: int, value: bytes) -> None:
        """Write one entry as it is."""
        family = SIZES[len(key[0])]
        table = self._table(family, direction)
        table.put(KEYS[family].pack(*key, direction), value)

    def _table(self, family: Family, direction: int) -> PinnedMap:
        return self._nats[family] if direction else self._flows[family]

    def port_of(self, key: Tuple) -> int:
        """Return the port that a flow was given; 0: none."""
        value, at = self.row(key, FORWARD), len(key[0])
        return int.from_bytes(value[at : at + 2], "big") if value else 0

    def counts(self) -> dict[tuple[Reason, int], int]:
        """Return how many packets were counted, by reason and policy."""
        found: dict[tuple[Reason, int], int] = {}
        rows, slots = (table.rows() for table in self._counters)
        for record in read_counts(rows, slots):
            row = Reason(record.reason), int(record.policy)
            found[row] = found.get(row, 0) + record.packets
        return found

    def set_policy_generation(self, number: int) -> None:
        """Tell programs which generation of policy rows they see."""
        key = CONFIG_KEY.pack(0)
        config = RuntimeConfig.decode(self._config.get(key))
        self._config.put(key, replace(config, policy_generation=number).encode())

    def allow_answers(self) -> None:
        """Let every program send as many ICMP answers as when it was loaded."""
        for fd in self._answerers:
            allow_answers(fd)

    def clear(self) -> None:
        """Forget every flow."""
        for table in (*self._aging, *self._held):
            assert not table.remove_many([key for key, _ in table.rows()])

    def evict(self, key: Tuple, direction: int = 0) -> None:
        """Remove one entry, as a table under pressure does; *direction* 0: a flow."""
        family = SIZES[len(key[0])]
        table = self._table(family, direction)
        assert not table.remove_many([KEYS[family].pack(*key, direction)])

    def age(self, seconds: int) -> None:
        """Let *seconds* pass for every flow; parts that are held are lost."""
        for table in self._aging:
            self._age(table, seconds * self.jiffies_per_second)
        self.forget_held()

    def forget_held(self) -> None:
        """Lose all parts that wait for the first of their datagram."""
        for table in self._held:
            assert not table.remove_many([key for key, _ in table.rows()])

    @property
    def _aging(self) -> tuple[PinnedMap, ...]:
        tables = self._flows, self._nats, self._parts
        return tuple(table for by in tables for table in by.values())

    def _age(self, table: PinnedMap, jiffies: int) -> None:
        rows = {key: aged(value, jiffies) for key, value in table.rows()}
        assert not table.put_many(rows)
