"""
The rows that a story may have touched, looked up one by one.

Reading a whole map walks all its buckets, which takes milliseconds however few rows
there are; that is done once, at the story's end.
"""

from bpf.model.check import (
    Checker,
    backward_rows,
    compare,
    flow_rows,
    forward_rows,
)
from bpf.model.entries import FORWARD, aged, flow_row, forward_row, half_row
from bpf.model.outcome import Arrival, Seen
from bpf.model.packet import Tuple, reverse
from bpf.model.runner import SIZES

FLOW, BACKWARD = 0, 2


class Rows:
    """See the module's docstring; to be used inside the node."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._keys: set[Tuple] = set()

    def note(self, arrival: Arrival) -> None:
        """Note whom a packet speaks of."""
        seen, table = Seen.of(arrival), self._checker.datapath.table
        for key in (seen.read.tuple, seen.quote.tuple):
            if key:
                self._keys |= {key, reverse(key)}
        self._keys |= table.flows.keys() | table.forward.keys() | table.backward.keys()

    def compare(self) -> None:
        """Compare them on both sides, and what was counted."""
        table = self._checker.datapath.table
        flows = {k: flow_row(v, SIZES[len(k[0])]) for k, v in self._rows(FLOW)}
        compare("flows", flow_rows(table), flows)
        forward = {k: forward_row(v, SIZES[len(k[0])]) for k, v in self._rows(FORWARD)}
        compare("forward halves", forward_rows(table), forward)
        backward = {k: half_row(v, SIZES[len(k[0])]) for k, v in self._rows(BACKWARD)}
        compare("reverse halves", backward_rows(table), backward)
        self._checker.compare_counts()

    def _rows(self, direction: int) -> list[tuple[Tuple, bytes]]:
        runner = self._checker.runner
        found = [(key, runner.row(key, direction)) for key in self._keys]
        return [(key, value) for key, value in found if value is not None]

    def age(self, seconds: int) -> None:
        """Let *seconds* pass on both sides."""
        runner = self._checker.runner
        jiffies = seconds * runner.jiffies_per_second
        for direction in (FLOW, FORWARD, BACKWARD):
            for key, value in self._rows(direction):
                runner.write(key, direction, aged(value, jiffies))
        runner.forget_held()
        self._checker.datapath.table.age(seconds)
