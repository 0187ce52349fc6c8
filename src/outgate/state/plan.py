"""
The difference between two snapshots, as ordered operations.

``diff`` decides nothing about policies: it says which entries to put and which to
remove so that *actual* becomes *desired*, adds before removes, always in the same
order.  The kernel side applies one operation at a time or in batches.

The rows of one pod are one entry: a Put of them is written row by row where it differs,
new rows before old ones go.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from outgate.state.entries import (
    Address,
    EndpointEntry,
    EndpointKey,
    Key,
    Network,
    PolicyEntry,
    PolicyKey,
    RowSet,
    RowsKey,
    Value,
)
from outgate.state.snapshot import Snapshot, sort_key


@dataclass(frozen=True, slots=True)
class Put:
    """Make *key* hold *value*, whether or not it is there."""

    key: Key
    value: Value


@dataclass(frozen=True, slots=True)
class Remove:
    """Make *key* be gone."""

    key: Key


Operation = Put | Remove

Keep = Callable[[Key | PolicyKey, Value | PolicyEntry], bool]
"""Whether an entry stays that is not wanted; of rows it is asked one by one."""


def keep_none(key: Key | PolicyKey, value: Value | PolicyEntry) -> bool:
    """Let go of whatever is not wanted."""
    return False


def keep_but_inheritances(desired: Snapshot, actual: Snapshot, keep: Keep) -> Keep:
    """
    Let go of nothing, but of rows whose address is another pod's now, as *keep* says.

    They are wrong however little is known: who has the address is known.
    """

    def keeps(key: Key | PolicyKey, value: Value | PolicyEntry) -> bool:
        if isinstance(key, PolicyKey) and is_inherited(key.source, desired, actual):
            return keep(key, value)
        return True

    return keeps


def is_inherited(address: Address, desired: Snapshot, actual: Snapshot) -> bool:
    """Return whether *address* shall be another owner's than it is, or somebody's."""
    wanted, was = (side.get(EndpointKey(address)) for side in (desired, actual))
    if not isinstance(wanted, EndpointEntry):
        return False
    return not isinstance(was, EndpointEntry) or was.owner != wanted.owner


def diff(
    desired: Snapshot,
    actual: Snapshot,
    keep: Keep = keep_none,
    touched: Iterable[Key] | None = None,
) -> tuple[Operation, ...]:
    """
    Return what to do, in order, so that *actual* becomes *desired*.

    *keep* is asked for each entry that would be removed; True leaves it there (a
    policy that became bad keeps what it covered; a broken source keeps all).  Only
    keys in *touched* are looked at; None means all.
    """
    if touched is None:
        touched = {**desired, **actual}
    rows = _Rows(keep)
    puts: list[Put] = []
    removes: list[Remove] = []
    for key in touched:
        wanted, was = desired.get(key), actual.get(key)
        if wanted is was:
            continue
        if isinstance(key, RowsKey):
            wanted = rows.merged(
                key, cast("RowSet | None", wanted), cast("RowSet | None", was)
            )
            is_same = wanted is was
        else:
            is_same = wanted == was
        if is_same:
            continue
        if wanted is not None:
            puts.append(Put(key, wanted))
        elif isinstance(key, RowsKey) or not keep(key, cast("Value", was)):
            removes.append(Remove(key))
    return (
        *_inheritances(puts, removes, actual),
        *sorted(puts, key=_order),
        *sorted(removes, key=_order, reverse=True),
    )


def _inheritances(
    puts: Iterable[Put], removes: list[Remove], actual: Snapshot
) -> list[Remove]:
    """
    Return what must go first, taken out of *removes*.

    An address gets another owner, who has no rows: those of the former one go before
    the new one is known, and while they go, the address is nobody's.
    """
    known: dict[Key, Value] = {
        put.key: put.value for put in puts if isinstance(put.key, EndpointKey)
    }
    heirs = {
        put.key.address
        for put in puts
        if isinstance(put.key, EndpointKey)
        and is_inherited(put.key.address, known, actual)
    }
    first: list[Remove] = []
    others: list[Remove] = []
    for operation in removes if heirs else ():
        key = operation.key
        if isinstance(key, RowsKey) and key.source in heirs:
            former = EndpointKey(key.source)
            first += [Remove(former), operation] if former in actual else [operation]
        else:
            others.append(operation)
    if first:
        removes[:] = others
    return first


def _order(operation: Operation) -> tuple[int, int, int | str, int, int]:
    return sort_key(operation.key)


class _Rows:
    """Compares rows, each pair of sets once, however many pods share them."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._equal: dict[tuple[int, int], bool] = {}
        self._shared: dict[RowSet, RowSet] = {}

    def merged(
        self, key: RowsKey, wanted: RowSet | None, was: RowSet | None
    ) -> RowSet | None:
        """Return the rows to be held: *wanted*, and what is kept; *was* if equal."""
        if was is None:
            return wanted or None
        if wanted is not None and self._is_equal(wanted, was):
            return was
        wanted = wanted if wanted is not None else RowSet({})
        kept = dict(self._kept(key, wanted, was))
        if not kept:
            return wanted or None
        if len(kept) == len(was) and not wanted:
            return was
        rows = RowSet({**wanted, **kept})
        if rows == was:
            return was
        return self._shared.setdefault(rows, rows)

    def _is_equal(self, wanted: RowSet, was: RowSet) -> bool:
        pair = id(wanted), id(was)
        if pair not in self._equal:
            self._equal[pair] = wanted == was
        return self._equal[pair]

    def _kept(
        self, key: RowsKey, wanted: RowSet, was: RowSet
    ) -> Iterator[tuple[Network, PolicyEntry]]:
        if self._keep is keep_none:
            return
        for destination, entry in was.items():
            if destination not in wanted and self._keep(
                PolicyKey(key.source, destination), entry
            ):
                yield destination, entry
