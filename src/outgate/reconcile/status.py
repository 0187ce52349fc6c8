"""
What became of each entry: a failure is state, with an age and a next attempt.

The ledger is written by the loop and read by status, metrics and CLI.  It decides
nothing: each round is planned from what was observed, never from this.  All times
are of the loop's monotonic clock.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from outgate.reconcile.retry import delay
from outgate.state.entries import Family, Key, Seconds, key_family
from outgate.state.plan import Operation, Remove
from outgate.state.snapshot import KEY_ORDER, Snapshot

_KINDS = {kind: kind.__name__.removesuffix("Key").lower() for kind in KEY_ORDER}


class State(StrEnum):
    """Where an entry stands."""

    PENDING = "pending"
    """Planned, not tried yet."""

    DONE = "done"
    """The kernel holds what it should."""

    ERROR = "error"
    """The kernel refused it; it is tried again."""

    KEPT = "kept"
    """Not wanted, and left there: knowledge is partial, or its policy is bad."""


@dataclass(frozen=True, slots=True)
class EntryStatus:
    """*since* is when the state began; *next_attempt* is set in state ERROR only."""

    state: State
    since: Seconds
    error: str = ""
    attempts: int = 0
    next_attempt: Seconds | None = None


class Ledger:
    """The status of every entry that is wanted or there."""

    def __init__(self) -> None:
        self._entries: dict[Key, EntryStatus] = {}

    def __iter__(self) -> Iterator[tuple[Key, EntryStatus]]:
        return iter(self._entries.items())

    def __getitem__(self, key: Key) -> EntryStatus:
        return self._entries[key]

    def begin(
        self,
        desired: Snapshot,
        actual: Snapshot,
        plan: Iterable[Operation],
        now: Seconds,
    ) -> None:
        """Record what a round found and means to do."""
        before = self._entries
        states = dict.fromkeys(actual, State.KEPT)
        states.update(dict.fromkeys(desired, State.DONE))
        states.update({operation.key: State.PENDING for operation in plan})
        self._entries = {
            key: self._moved(before.get(key), state, now)
            for key, state in states.items()
        }

    @staticmethod
    def _moved(before: EntryStatus | None, state: State, now: Seconds) -> EntryStatus:
        if before and (
            before.state is state
            or (before.state is State.ERROR and state is State.PENDING)
        ):
            return before
        return EntryStatus(state, now)

    def finish(
        self, plan: Iterable[Operation], failures: Mapping[Key, Exception], now: Seconds
    ) -> None:
        """Record how the operations of *plan* went."""
        for operation in plan:
            key = operation.key
            if key in failures:
                self._fail(key, str(failures[key]), now)
            elif isinstance(operation, Remove):
                self._entries.pop(key, None)
            else:
                self._entries[key] = EntryStatus(State.DONE, now)
        for key in failures:
            if key not in self._entries:
                self._fail(key, str(failures[key]), now)

    def _fail(self, key: Key, error: str, now: Seconds) -> None:
        before = self._entries.get(key)
        if before is None or before.next_attempt is None:
            after = EntryStatus(State.ERROR, now, error, 1, Seconds(now + delay(1)))
        elif now < before.next_attempt:
            # Tried early, because something else called for a round.
            after = EntryStatus(
                State.ERROR, before.since, error, before.attempts, before.next_attempt
            )
        else:
            attempts = before.attempts + 1
            due = Seconds(now + delay(attempts))
            after = EntryStatus(State.ERROR, before.since, error, attempts, due)
        self._entries[key] = after

    def next_attempt(self) -> Seconds | None:
        """Return when the first failed entry is due, None when none failed."""
        due = (s.next_attempt for s in self._entries.values() if s.next_attempt)
        return min(due, default=None)

    def counts(self) -> Mapping[tuple[str, Family | None, State], int]:
        """Return how many entries of each kind of key and family are in each state."""
        return Counter(
            (_KINDS[type(key)], key_family(key), status.state)
            for key, status in self._entries.items()
        )
