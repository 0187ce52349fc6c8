"""
Runs one frame in the kernel and in the model, and tells where they differ.

Strict for TCP, UDP, echo, broken headers and other protocols: verdict, whole frame,
mark, counters, tables.  For what the model does not know (ICMP errors, fragments, an
answer to an expired packet) it asks for safety: no covered packet passes or leaves
with the pod's address.
"""

from collections import Counter
from typing import TypeVar

from bpf.harness import DROP, MARK_TRANSLATED, PASS, REDIRECT
from bpf.model.datapath import Arrival, Datapath, Expected
from bpf.model.packet import Kind, Tuple, is_same, read
from bpf.model.runner import FlowRow, HalfRow, Runner
from bpf.model.table import Half
from outgate.kernel.reasons import Reason
from outgate.state.entries import Hook

UNMODELLED_KINDS = (Kind.ICMP, Kind.FRAGMENT)
VERDICTS = {PASS: "pass", DROP: "drop", REDIRECT: "redirect"}
NO_ADDRESS = bytes(4)

K = TypeVar("K")
V = TypeVar("V")


class DifferenceError(AssertionError):
    """Kernel and model differ; the message holds all that is needed to repeat it."""


class Checker:
    """One node in the kernel beside the same node in the model."""

    def __init__(self, runner: Runner, datapath: Datapath) -> None:
        self.runner = runner
        self.datapath = datapath
        self.verdicts: Counter[str] = Counter()
        self._counts: Counter[tuple[Reason, int]] = Counter()
        self.reset()

    def reset(self) -> None:
        """Forget every flow on both sides."""
        self.runner.clear()
        self.datapath.table.clear()
        self._counts = Counter(self.runner.counts())

    def step(self, arrival: Arrival) -> tuple[int, bytes]:
        """Run *arrival* on both sides; return the kernel's verdict and frame."""
        verdict, frame, mark = self.runner.run(arrival)
        expected = self.datapath.expect(arrival, frame)
        difference = self._difference(arrival, expected, verdict, frame, mark)
        if difference:
            raise DifferenceError(
                f"{difference}\n{arrival.hook} mark={arrival.mark:#x} "
                f"tunnel={arrival.tunnel.hex()} vni={arrival.vni}\n"
                f"in   {arrival.frame.hex()}\nout  {frame.hex()}\n"
                f"read {read(arrival.frame)}\nexpected {expected}"
            )
        self.verdicts[VERDICTS[verdict]] += 1
        if verdict != _verdict(expected) or not _is_modelled(arrival, expected):
            # Safe, of a kind that is not modelled, and counted in the kernel's way.
            self._counts = Counter(self.runner.counts())
        elif expected.reason is not None:
            self._counts[expected.reason, expected.policy] += 1
        return verdict, frame

    def _difference(
        self,
        arrival: Arrival,
        expected: Expected,
        verdict: int,
        frame: bytes,
        mark: int,
    ) -> str:
        wanted = _verdict(expected)
        seen = read(arrival.frame)
        if verdict != wanted and not _is_modelled(arrival, expected):
            return _danger(arrival, wanted, verdict, frame)
        if verdict != wanted:
            return f"verdict {verdict}, not {wanted}"
        out = arrival.frame if expected.frame is None else expected.frame
        if frame != out and not (
            expected.frame is not None
            and seen.kind is Kind.FLOW
            and is_same(out, frame, seen)
        ):
            return f"another frame than\n     {out.hex()}"
        is_marked = mark & MARK_TRANSLATED != 0
        if is_marked != (expected.is_marked or arrival.mark == MARK_TRANSLATED):
            return f"mark {mark:#x}"
        return ""

    def compare_tables(self) -> None:
        """Compare all that both sides remember, and what they counted."""
        table = self.datapath.table
        flows: dict[Tuple, FlowRow] = {
            key: (f.decision, f.policy, f.endpoint, f.egress_ip, f.macs, f.tcp)
            for key, f in table.flows.items()
        }
        _compare("flows", flows, self.runner.flows())
        forward, backward = self.runner.halves()
        _compare("forward halves", _rows(table.forward, is_forward=True), forward)
        _compare("reverse halves", _rows(table.backward, is_forward=False), backward)
        _compare("counts", dict(self._counts), self.runner.counts())


def _is_modelled(arrival: Arrival, expected: Expected) -> bool:
    if expected.reason is Reason.DROP_TTL_EXCEEDED:
        return False
    return read(arrival.frame).kind not in UNMODELLED_KINDS


def _verdict(expected: Expected) -> int:
    if expected.is_redirected:
        return REDIRECT
    is_drop = expected.reason is not None and expected.reason is not Reason.FORWARDED
    return DROP if is_drop else PASS


def _danger(arrival: Arrival, wanted: int, verdict: int, frame: bytes) -> str:
    """Return what is unsafe about a verdict that the model does not know."""
    if verdict == PASS and wanted == DROP:
        return "passed, and not covered by a translation"
    is_from_pod = arrival.hook is Hook.FROM_OVERLAY and verdict == REDIRECT
    if is_from_pod and frame[26:34] == arrival.frame[26:34]:
        return "left the gateway with its pod's address"
    return ""


def _rows(halves: dict[Tuple, Half], *, is_forward: bool) -> dict[Tuple, HalfRow]:
    return {
        key: (
            *(h.address, h.port, h.origin.endpoint or NO_ADDRESS),
            bytes(12) if is_forward else h.origin.macs,
            *(h.policy, h.tcp, h.is_host),
        )
        for key, h in halves.items()
    }


def _compare(what: str, expected: dict[K, V], actual: dict[K, V]) -> None:
    if expected == actual:
        return
    lines = [f"{what} differ (key: model, kernel):"]
    lines += [
        f"{key}: {expected.get(key)}, {actual.get(key)}"
        for key in expected.keys() | actual.keys()
        if expected.get(key) != actual.get(key)
    ]
    raise DifferenceError("\n".join(lines[:20]))
