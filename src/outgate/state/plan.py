"""
The difference between two snapshots, as ordered operations.

``diff`` decides nothing about policies: it says which entries to put and which to
remove so that *actual* becomes *desired*, adds before removes, always in the same
order.  The kernel side applies one operation at a time or in batches.
"""

from collections.abc import Callable
from dataclasses import dataclass

from outgate.state.entries import Key, Value
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


def _keep_none(key: Key, value: Value) -> bool:
    return False


def diff(
    desired: Snapshot,
    actual: Snapshot,
    keep: Callable[[Key, Value], bool] = _keep_none,
) -> tuple[Operation, ...]:
    """
    Return what to do, in order, so that *actual* becomes *desired*.

    *keep* is asked for each entry that would be removed; True leaves it there (a
    policy that became bad keeps what it covered; a broken source keeps all).
    """
    changed = [key for key, value in desired.items() if actual.get(key) != value]
    unwanted = [
        key
        for key, value in actual.items()
        if key not in desired and not keep(key, value)
    ]
    return (
        *(Put(key, desired[key]) for key in sorted(changed, key=sort_key)),
        *(Remove(key) for key in sorted(unwanted, key=sort_key, reverse=True)),
    )
