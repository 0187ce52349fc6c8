"""
Runs programs and reads maps with as little Python as possible: for millions of frames.

One buffer and one open map each; the caller runs it inside the node's namespaces
(:meth:`bpf.harness.Node.inside`).  What it reads comes back in the model's own types.
"""

import ctypes
import sys
from struct import Struct, pack_into, unpack_from
from types import TracebackType
from typing import Self

from bpf.harness import CB, CONTEXT_SIZE, FLOW_STAMP, IFINDEX, MARK, NAT_STAMP, Node
from bpf.model.datapath import Arrival
from bpf.model.packet import Tuple
from bpf.model.table import INBOUND, LOCAL_GATEWAY, TO_GATEWAY
from outgate.kernel import syscall
from outgate.kernel.maps import MapName
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.reasons import Reason
from outgate.kernel.records import FLOW, NAT, NAT_HOST_SOCKET, MetricRecord
from outgate.state.entries import Hook

ROOM = 2048
KEY = Struct("!4s4sHHBBxx")
DECISIONS = {1: TO_GATEWAY, 2: LOCAL_GATEWAY, 3: INBOUND}
FORWARD = 1
STAMPS = ((MapName.FLOW, FLOW_STAMP), (MapName.SNAT, NAT_STAMP))

FlowRow = tuple[str, int, bytes, bytes, bytes, int]
"""Decision, policy, tunnel endpoint, egress IP, MACs, TCP state."""

HalfRow = tuple[bytes, int, bytes, bytes, int, int, bool]
"""Address, port, tunnel endpoint, MACs, policy, TCP state, of a host socket."""


class Runner:
    """Fast doors to one node; see the module's docstring."""

    def __init__(self, node: Node, jiffies_per_second: int) -> None:
        self._node = node
        self._jiffies_per_second = jiffies_per_second
        self._tables = {
            name: node.table(name)
            for name in (MapName.FLOW, MapName.SNAT, MapName.METRICS)
        }
        self._given = ctypes.create_string_buffer(ROOM)
        self._out = ctypes.create_string_buffer(ROOM + 512)
        self._context = ctypes.create_string_buffer(CONTEXT_SIZE)
        self._context_out = ctypes.create_string_buffer(CONTEXT_SIZE)
        pack_into("=I", self._context, IFINDEX, node.uplink)
        self._programs = {hook: node.program(hook) for hook in Hook}
        self._tunnelled = node.program(Hook.FROM_OVERLAY, is_tunnelled=True)
        self._run = syscall.TestRun(
            data_in=ctypes.addressof(self._given),
            data_out=ctypes.addressof(self._out),
            ctx_in=ctypes.addressof(self._context),
            ctx_out=ctypes.addressof(self._context_out),
            repeat=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for table in self._tables.values():
            table.close()

    def run(self, arrival: Arrival) -> tuple[int, bytes, int]:
        """Return the verdict, the frame and the mark that came out."""
        frame, run = arrival.frame, self._run
        ctypes.memmove(self._given, frame, len(frame))
        pack_into("=I", self._context, MARK, arrival.mark)
        tunnel = int.from_bytes(arrival.tunnel, "big")
        pack_into("=II", self._context, CB, tunnel, arrival.vni if tunnel else 0)
        run.prog_fd = self._tunnelled if tunnel else self._programs[arrival.hook]
        run.data_size_in, run.data_size_out = len(frame), ROOM + 512
        run.ctx_size_in = run.ctx_size_out = CONTEXT_SIZE
        syscall.bpf(syscall.Command.PROG_TEST_RUN, run)
        out = ctypes.string_at(run.data_out, run.data_size_out)
        (mark,) = unpack_from("=I", self._context_out, MARK)
        return run.retval, out, mark

    def flows(self) -> dict[Tuple, FlowRow]:
        """Return all flow entries."""
        found: dict[Tuple, FlowRow] = {}
        for key, value in self._tables[MapName.FLOW].rows():
            decision, tcp, policy, endpoint, egress, _, *macs, _ = FLOW.unpack(value)
            row = (DECISIONS[decision], policy, endpoint, egress, b"".join(macs), tcp)
            found[KEY.unpack(key)[:5]] = row
        return found

    def halves(self) -> tuple[dict[Tuple, HalfRow], dict[Tuple, HalfRow]]:
        """Return the forward and the reverse halves of all translations."""
        forward: dict[Tuple, HalfRow] = {}
        backward: dict[Tuple, HalfRow] = {}
        for key, value in self._tables[MapName.SNAT].rows():
            *tuple_, direction = KEY.unpack(key)
            address, port, tcp, flags, endpoint, policy, *_, mac, host_mac, _ = (
                NAT.unpack(value)
            )
            row = (
                *(address, int.from_bytes(port, "big"), endpoint, mac + host_mac),
                *(policy, tcp, bool(flags & NAT_HOST_SOCKET)),
            )
            (forward if direction == FORWARD else backward)[tuple(tuple_)] = row
        return forward, backward

    def port_of(self, key: Tuple) -> int:
        """Return the port that a flow was given."""
        value = self._tables[MapName.SNAT].get(KEY.pack(*key, FORWARD))
        return int.from_bytes(value[4:6], "big")

    def counts(self) -> dict[tuple[Reason, int], int]:
        """Return how many packets were counted, by reason and policy."""
        found: dict[tuple[Reason, int], int] = {}
        for key, value in self._tables[MapName.METRICS].rows():
            record = MetricRecord.decode(key, value)
            row = Reason(record.reason), int(record.policy)
            found[row] = found.get(row, 0) + record.packets
        return found

    def clear(self) -> None:
        """Forget every flow."""
        for name, _ in STAMPS:
            table = self._tables[name]
            assert not table.remove_many([key for key, _ in table.rows()])

    def evict(self, key: Tuple, direction: int = 0) -> None:
        """Remove one entry, as a table under pressure does; *direction* 0: a flow."""
        name = MapName.SNAT if direction else MapName.FLOW
        assert not self._tables[name].remove_many([KEY.pack(*key, direction)])

    def age(self, seconds: int) -> None:
        """Let *seconds* pass for every flow."""
        for name, stamp in STAMPS:
            table: PinnedMap = self._tables[name]
            rows = {}
            for key, value in table.rows():
                (seen,) = unpack_from("=Q", value, stamp)
                older = (seen - seconds * self._jiffies_per_second) % (1 << 64)
                rows[key] = value[:stamp] + older.to_bytes(8, sys.byteorder)
            assert not table.put_many(rows)
