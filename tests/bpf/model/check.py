"""
Runs one frame in the kernel and in the model, and tells where they differ.

Strict: verdict, whole frame, mark, counters, tables.
"""

from collections import Counter
from typing import TypeVar

from bpf.harness import DROP, PASS, REDIRECT
from bpf.model.datapath import Datapath
from bpf.model.entries import DatagramRow, FlowRow, HalfRow
from bpf.model.outcome import Arrival, Expected
from bpf.model.packet import Kind, Tuple, family, read, read_quote
from bpf.model.parts import Datagram
from bpf.model.rewrite import checksums, is_same
from bpf.model.runner import Runner
from bpf.model.table import Half, Table
from outgate.kernel.reasons import Reason
from outgate.state.entries import Hook

VERDICTS = {PASS: "pass", DROP: "drop", REDIRECT: "redirect"}
ANSWERS_AT_ONCE = 40
"""Each program may send 50 answers at once; before that they are given new ones."""

Ends = Counter[tuple[Hook, str, str]]
"""How many frames ended how, by hook and family."""

K = TypeVar("K")
V = TypeVar("V")


class DifferenceError(AssertionError):
    """Kernel and model differ; the message holds all that is needed to repeat it."""


class Checker:
    """One node in the kernel beside the same node in the model."""

    def __init__(self, runner: Runner, datapath: Datapath) -> None:
        self.runner = runner
        self.datapath = datapath
        self.ends: Ends = Counter()
        self._counts: Counter[tuple[Reason, int]] = Counter()
        self._answers = 0
        self.reset()

    def reset(self) -> None:
        """Forget every flow on both sides."""
        self.runner.clear()
        self.datapath.table.clear()
        self._counts = Counter(self.runner.counts())

    def step(self, arrival: Arrival) -> tuple[int, bytes]:
        """Run *arrival* on both sides; return the kernel's verdict and frame."""
        taken = self.runner.taken
        verdict, frame, mark = self.runner.run(arrival)
        if self.runner.taken > taken:
            self.ends[Hook.XDP_NETDEV, family(arrival.frame), VERDICTS[verdict]] += 1
        expected = self.datapath.expect(arrival)
        difference = _difference(arrival, expected, (verdict, frame, mark))
        if difference:
            raise DifferenceError(
                f"{difference}\n{arrival.hook} mark={arrival.mark:#x} "
                f"tunnel={arrival.tunnel.hex()} vni={arrival.vni}\n"
                f"in   {arrival.frame.hex()}\nout  {frame.hex()}\n"
                f"read {read(arrival.frame)}\nexpected {expected}"
            )
        is_answer = verdict == REDIRECT and bool(expected.reason)
        if is_answer:
            self._allow_answers()
        end = "answer" if is_answer else VERDICTS[verdict]
        self.ends[arrival.hook, family(arrival.frame), end] += 1
        if expected.reason is not None:
            self._counts[expected.reason, expected.policy] += 1
        return verdict, frame

    def _allow_answers(self) -> None:
        self._answers += 1
        if self._answers >= ANSWERS_AT_ONCE:
            self.runner.allow_answers()
            self._answers = 0

    def age(self, seconds: int) -> None:
        """Let *seconds* pass on both sides."""
        self.runner.age(seconds)
        self.datapath.table.age(seconds)

    def renew_policies(self) -> None:
        """Tell both sides that policy rows were changed."""
        table = self.datapath.table
        table.generation = (table.generation + 1) % (1 << 16)
        self.runner.set_policy_generation(table.generation)

    def compare_tables(self) -> None:
        """Compare all that both sides remember, and what they counted."""
        table = self.datapath.table
        compare("flows", flow_rows(table), self.runner.flows())
        forward, backward = self.runner.halves()
        compare("forward halves", forward_rows(table), forward)
        compare("reverse halves", backward_rows(table), backward)
        compare("datagrams", datagram_rows(table), self.runner.datagrams())
        self.compare_counts()

    def compare_counts(self) -> None:
        """Compare what both sides counted."""
        compare("counts", dict(self._counts), self.runner.counts())


def _difference(
    arrival: Arrival, expected: Expected, actual: tuple[int, bytes, int]
) -> str:
    verdict, frame, mark = actual
    if verdict != expected.verdict:
        return f"verdict {verdict}, not {expected.verdict}"
    if verdict == DROP:
        return ""
    out = arrival.frame if expected.frame is None else expected.frame
    if frame != out and not (expected.frame and _means_the_same(arrival, out, frame)):
        return f"another frame than\n     {out.hex()}"
    wanted = arrival.mark if expected.mark is None else expected.mark
    return "" if mark == wanted else f"mark {mark:#x}, not {wanted:#x}"


def _means_the_same(arrival: Arrival, expected: bytes, actual: bytes) -> bool:
    seen = read(arrival.frame)
    if seen.kind not in (Kind.FLOW, Kind.ERROR):
        return False
    quote = read_quote(arrival.frame, seen) if seen.kind is Kind.ERROR else None
    return is_same(expected, actual, checksums(seen, quote))


def flow_rows(table: Table) -> dict[Tuple, FlowRow]:
    """Return the model's flow entries as rows."""
    return {
        key: (f.decision, f.policy, f.endpoint, f.egress_ip, f.macs, f.tcp)
        for key, f in table.flows.items()
    }


def forward_rows(table: Table) -> dict[Tuple, HalfRow]:
    """Return the model's forward halves as rows."""
    return {key: _row(half, bytes(12)) for key, half in table.forward.items()}


def backward_rows(table: Table) -> dict[Tuple, HalfRow]:
    """Return the model's reverse halves as rows."""
    return {key: _row(half, half.origin.macs) for key, half in table.backward.items()}


def datagram_rows(table: Table) -> dict[Datagram, DatagramRow]:
    """Return what the model knows of datagrams in parts as rows."""
    return {
        key: (*known.ports, known.protocol, known.state, known.is_awaited)
        for key, known in table.parts.known.items()
    }


def _row(half: Half, macs: bytes) -> HalfRow:
    to = half.address, half.port, half.origin.endpoint
    return *to, macs, half.policy, half.tcp, half.is_host


def compare(what: str, expected: dict[K, V], actual: dict[K, V]) -> None:
    """DifferenceError that shows where the two sides differ."""
    if expected == actual:
        return
    lines = [f"{what} differ (key: model, kernel):"]
    lines += [
        f"{key}: {expected.get(key)}, {actual.get(key)}"
        for key in expected.keys() | actual.keys()
        if expected.get(key) != actual.get(key)
    ]
    raise DifferenceError("\n".join(lines[:20]))
