"""
What goes into the model and what comes out: one frame at a hook, and its end.

Pure values; :mod:`bpf.model.datapath` makes the ends, :mod:`bpf.model.check` compares
them with the kernel's.
"""

from dataclasses import dataclass

from bpf.harness import DROP, MARK_SEEN, PASS, REDIRECT, VNI
from bpf.model.headers import Part
from bpf.model.packet import Kind, Quote, Read, read, read_quote
from outgate.kernel.reasons import Reason
from outgate.state.entries import Hook


@dataclass(frozen=True, slots=True)
class Arrival:
    """One frame at one hook; *tunnel* is the node that its outer header names."""

    hook: Hook
    frame: bytes
    mark: int = 0
    tunnel: bytes = b""
    vni: int = VNI


@dataclass(frozen=True, slots=True)
class Expected:
    """
    The end of one frame: *verdict*, and what was counted.

    *reason* is None where nothing is counted; *frame* and *mark* are None where they
    stay as they came.
    """

    verdict: int
    reason: Reason | None = None
    policy: int = 0
    frame: bytes | None = None
    mark: int | None = None


NO_FLOW = Quote(Kind.OTHER)


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame, read: *kind* is the quote's where an error names no flow."""

    arrival: Arrival
    read: Read
    quote: Quote
    kind: Kind

    @property
    def is_later(self) -> bool:
        """A part of a datagram that is not its first."""
        header = self.read.header
        return header is not None and header.part is Part.LATER

    @classmethod
    def of(cls, arrival: Arrival) -> "Seen":
        """Read *arrival*."""
        seen = read(arrival.frame)
        if seen.kind is not Kind.ERROR:
            return cls(arrival, seen, NO_FLOW, seen.kind)
        quote = read_quote(arrival.frame, seen)
        return cls(arrival, seen, quote, quote.kind)


UNSUPPORTED = {
    Kind.HEADLESS: Reason.DROP_INVALID,
    Kind.BROKEN: Reason.DROP_INVALID,
    Kind.FRAGMENT: Reason.DROP_FRAGMENT,
    Kind.ERROR: Reason.DROP_ICMP_NO_FLOW,
    Kind.ICMP: Reason.DROP_UNSUPPORTED_ICMP,
    Kind.PROTOCOL: Reason.DROP_UNSUPPORTED_PROTOCOL,
}
"""Why a covered frame dies that has no whole tuple."""

PASSED = Expected(PASS)
LET_PASS = Expected(PASS, mark=MARK_SEEN)
"""From a pod to the host's stack: forward-guard reads the mark."""


def dropped(reason: Reason, policy: int = 0) -> Expected:
    """Dropped, unanswered, and counted."""
    return Expected(DROP, reason, policy)


def unsupported(kind: Kind, policy: int = 0) -> Expected:
    """Dropped, because its ports cannot be told."""
    return dropped(UNSUPPORTED[kind], policy)


def released(frame: bytes) -> Expected:
    """A first part comes in again with those that waited; *frame* is the last."""
    return Expected(REDIRECT, None, 0, frame)


def sent(policy: int, frame: bytes | None = None, mark: int | None = None) -> Expected:
    """Redirected to another interface, and counted."""
    return Expected(REDIRECT, Reason.FORWARDED, policy, frame, mark)


def answered(
    reason: Reason, policy: int, frame: bytes | None, mark: int | None = None
) -> Expected:
    """Counted as dropped; *frame* goes back in its place, if there is an answer."""
    if frame is None:
        return dropped(reason, policy)
    return Expected(REDIRECT, reason, policy, frame, mark)
