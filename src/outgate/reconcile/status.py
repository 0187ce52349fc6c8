"""
What became of each entry: a failure is state, with an age and a next attempt.

The ledger is written by the loop and read by status, metrics and CLI.  It decides
nothing but which keys are looked at again: those that are open.  What is done is only
counted, so that a round costs as much as it touches.  The rows of a pod are one entry
and are counted as the rows they are.  All times are of the loop's monotonic clock.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain

from outgate.errors import KernelError
from outgate.reconcile.retry import delay
from outgate.state.entries import Family, Key, Seconds
from outgate.state.plan import Operation, Remove
from outgate.state.snapshot import Snapshot, key_family, kind_name, weight


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
    """
    Where one entry stands; *since* is when the state began, None for what is done.

    *next_attempt* is set in state ERROR only.  *rows* are those of the entry that are
    in the state, *kept* those that are left there beside them.
    """

    state: State
    since: Seconds | None
    error: str = ""
    attempts: int = 0
    next_attempt: Seconds | None = None
    rows: int = 1
    kept: int = 0


class Ledger:
    """The status of every entry that is wanted or there."""

    def __init__(self) -> None:
        self._wanted: dict[Key, int] = {}
        self._totals: Counter[tuple[str, Family | None]] = Counter()
        self._open: dict[Key, EntryStatus] = {}

    @property
    def open(self) -> Mapping[Key, EntryStatus]:
        """Return every entry that is in another state than DONE."""
        return self._open

    def __iter__(self) -> Iterator[tuple[Key, EntryStatus]]:
        """Yield every entry that is wanted or there, in no order."""
        yield from self._open.items()
        for key, rows in self._wanted.items():
            if key not in self._open:
                yield key, EntryStatus(State.DONE, None, rows=rows)

    def __getitem__(self, key: Key) -> EntryStatus:
        if key in self._open:
            return self._open[key]
        return EntryStatus(State.DONE, None, rows=self._wanted[key])

    def __contains__(self, key: Key) -> bool:
        return key in self._open or key in self._wanted

    def begin(
        self,
        desired: Snapshot,
        actual: Snapshot,
        plan: Iterable[Operation],
        now: Seconds,
        touched: Iterable[Key] | None = None,
    ) -> None:
        """Record what a round found at the keys *touched* (None: all), and plans."""
        found: dict[Key, EntryStatus] = {}
        pending = _Pending(now)
        for operation in plan:
            key = operation.key
            wanted, there = weight(desired.get(key)), weight(actual.get(key))
            self._want(key, wanted)
            after = pending.status(operation, wanted, there)
            found[key] = _moved(self._open.get(key), after)
        for key in self._all(desired, actual) if touched is None else touched:
            if key in found:
                continue
            wanted, there = weight(desired.get(key)), weight(actual.get(key))
            self._want(key, wanted)
            if there > wanted:
                after = EntryStatus(State.KEPT, now, rows=there - wanted)
                found[key] = _moved(self._open.get(key), after)
            else:
                self._open.pop(key, None)
        if self._open:
            self._open.update(found)
        else:
            # A first round finds all there is: it is not held twice.
            self._open = found

    def _all(self, desired: Snapshot, actual: Snapshot) -> Iterator[Key]:
        """Yield every key that is or was wanted, there or open."""
        yield from desired
        yield from (key for key in actual if key not in desired)
        known = chain(self._wanted, self._open)
        yield from [key for key in known if key not in desired and key not in actual]

    def _want(self, key: Key, rows: int) -> None:
        before = self._wanted.get(key, 0)
        if rows:
            self._wanted[key] = rows
        elif before:
            del self._wanted[key]
        if rows != before:
            self._totals[kind_name(key), key_family(key)] += rows - before

    def finish(
        self,
        plan: Iterable[Operation],
        failures: Mapping[Key, KernelError],
        now: Seconds,
    ) -> None:
        """Record how the operations of *plan* went."""
        for operation in plan:
            key = operation.key
            if key in failures:
                continue
            status = self._open.pop(key, None)
            if status and status.kept:
                self._open[key] = EntryStatus(State.KEPT, now, rows=status.kept)
        if not self._open:
            # A dict stays as large as it ever was, and so does a walk through it.
            self._open = {}
        for key, error in failures.items():
            self._fail(key, error, now)

    def _fail(self, key: Key, error: KernelError, now: Seconds) -> None:
        before = self._open.get(key)
        rows = min(error.rows, self._wanted.get(key, error.rows))
        first = EntryStatus(
            State.ERROR, now, str(error), 1, Seconds(now + delay(1)), rows
        )
        if before is None:
            self._open[key] = first
        elif before.next_attempt is None:
            self._open[key] = replace(first, kept=before.kept)
        elif now < before.next_attempt:
            # Tried early, because something else called for a round.
            self._open[key] = replace(before, error=str(error), rows=rows)
        else:
            attempts = before.attempts + 1
            due = Seconds(now + delay(attempts))
            self._open[key] = replace(
                before,
                error=str(error),
                rows=rows,
                attempts=attempts,
                next_attempt=due,
            )

    def next_attempt(self) -> Seconds | None:
        """Return when the first failed entry is due, None when none failed."""
        due = (s.next_attempt for s in self._open.values() if s.next_attempt)
        return min(due, default=None)

    def counts(self) -> Mapping[tuple[str, Family | None, State], int]:
        """Return how many rows of each kind of key and family are in each state."""
        found: Counter[tuple[str, Family | None, State]] = Counter()
        for (kind, family), total in self._totals.items():
            found[kind, family, State.DONE] = total
        for key, status in self._open.items():
            kind, family = kind_name(key), key_family(key)
            found[kind, family, status.state] += status.rows
            found[kind, family, State.KEPT] += status.kept
            if status.state is not State.KEPT and key in self._wanted:
                found[kind, family, State.DONE] -= status.rows
        return +found


class _Pending:
    """What is planned in one round: one object for all entries that wait alike."""

    def __init__(self, now: Seconds) -> None:
        self._now = now
        self._known: dict[tuple[int, int], EntryStatus] = {}

    def status(self, operation: Operation, wanted: int, there: int) -> EntryStatus:
        if isinstance(operation, Remove):
            rows, kept = there, 0
        else:
            rows, kept = wanted, weight(operation.value) - wanted
        found = self._known.get((rows, kept))
        if found is None:
            found = EntryStatus(State.PENDING, self._now, rows=rows, kept=kept)
            self._known[rows, kept] = found
        return found


def _moved(before: EntryStatus | None, after: EntryStatus) -> EntryStatus:
    """Return *after* with the age of *before* where nothing else moved."""
    if before and before.state is after.state:
        return replace(after, since=before.since)
    if before and before.state is State.ERROR and after.state is State.PENDING:
        return replace(before, rows=after.rows, kept=after.kept)
    return after
