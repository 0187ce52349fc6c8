"""
Who of several controllers may write: decisions around one Lease.  Pure.

What it is: the rules of leader election as Kubernetes components know them: whoever
holds the Lease renews it; others take it only when it has not changed for as long as
its holder asked for, by their own steady clock.  Clocks of two machines are never
compared: the times inside a Lease are for people.

What it is not: requests; ``lease`` makes them.

::

    STANDBY --Lease absent, released or unchanged for duration--> LEADING
    LEADING --not renewed for renew_deadline, or somebody else holds it--> STANDBY

A leader stops before anybody may follow it: *renew_deadline* counts from before its
last successful request, *duration* from after it was seen, and the former is shorter.
"""

from dataclasses import dataclass, replace

from outgate.state.entries import Seconds


@dataclass(frozen=True, slots=True)
class Times:
    """How long a leader is believed, how long it believes itself, and the pace."""

    duration: Seconds
    renew_deadline: Seconds
    retry: Seconds


TIMES = Times(Seconds(15.0), Seconds(10.0), Seconds(2.0))
"""As other components of Kubernetes have them."""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """
    What a Lease says.

    Shape: *acquired* and *renewed* are RFC 3339 text with microseconds; *version* is
    the resourceVersion that a write must name; an empty *holder* has let go.
    """

    holder: str = ""
    duration_seconds: int = 0
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0
    version: str = ""


class Election:
    """One controller's view of the Lease; *now* is of any steady clock."""

    def __init__(self, identity: str, times: Times) -> None:
        self.identity = identity
        self.times = times
        self._seen: LeaseRecord | None = None
        self._seen_at = 0.0
        self._renewed_at: float | None = None

    @property
    def holder(self) -> str:
        """Return who holds the Lease, as far as is known; empty: nobody."""
        return self._seen.holder if self._seen else ""

    def is_leader(self, now: float) -> bool:
        """Return whether this controller may write at *now*."""
        return (
            self._renewed_at is not None
            and now - self._renewed_at < self.times.renew_deadline
        )

    def observe(self, record: LeaseRecord | None, now: float) -> None:
        """Take the Lease as the API has it; None: there is none."""
        if record != self._seen:
            self._seen, self._seen_at = record, now
        if record is None or record.holder != self.identity:
            self._renewed_at = None

    def attempt(self, wall: str, now: float) -> LeaseRecord | None:
        """
        Return the Lease to write, None when another one holds it.

        *wall* is the time of day, for people.
        """
        seen = self._seen
        if seen is None:
            return LeaseRecord(self.identity, self._duration, wall, wall, 0, "")
        if seen.holder == self.identity:
            return replace(seen, duration_seconds=self._duration, renewed=wall)
        if seen.holder and now - self._seen_at < self._patience(seen):
            return None
        return replace(
            seen,
            holder=self.identity,
            duration_seconds=self._duration,
            acquired=wall,
            renewed=wall,
            transitions=seen.transitions + 1,
        )

    def wrote(self, record: LeaseRecord, asked_at: float, now: float) -> None:
        """Take that the API accepted *record*; the request began at *asked_at*."""
        self._seen, self._seen_at = record, now
        self._renewed_at = asked_at if record.holder == self.identity else None

    def release(self, wall: str) -> LeaseRecord | None:
        """Return the Lease to write when going; None when it is not ours."""
        if self._seen is None or self._seen.holder != self.identity:
            return None
        return replace(self._seen, holder="", duration_seconds=1, renewed=wall)

    @property
    def _duration(self) -> int:
        return max(1, round(self.times.duration))

    def _patience(self, seen: LeaseRecord) -> float:
        """Return how long an unchanged Lease is respected: what its holder asked."""
        return float(seen.duration_seconds or self.times.duration)
