"""
What is to be written next, and when: by urgency, at a bounded rate.  Pure.

Each write to a policy is told to every agent of the cluster, so that how often may be
written is a matter of the whole cluster's load.  What agents act on is urgent; counts
for people wait, and may use only half of the room.
"""

from dataclasses import dataclass

PER_SECOND = 20.0
BURST = 200.0
"""So many writes on average at most, and so many at once after a quiet time."""


@dataclass(frozen=True, slots=True)
class _Item:
    is_urgent: bool
    due: float


class Agenda:
    """Keys that wait for their turn; *now* is of any steady clock."""

    def __init__(self, now: float) -> None:
        self._items: dict[str, _Item] = {}
        self._left = BURST
        self._since = now

    def put(self, key: str, due: float, *, is_urgent: bool) -> None:
        """Have *key* written, not before *due*."""
        self._items[key] = _Item(is_urgent, due)

    def drop(self, key: str) -> None:
        """Have *key* not written."""
        self._items.pop(key, None)

    def take(self, now: float) -> tuple[str | None, float | None]:
        """
        Return what to write now, if anything, else how long to wait for it.

        Without anything to wait for, both are None.
        """
        self._left = min(BURST, self._left + (now - self._since) * PER_SECOND)
        self._since = now
        waits = {
            key: (max(item.due - now, self._room_wait(item)), not item.is_urgent, key)
            for key, item in self._items.items()
        }
        ready = [(lazy, key) for wait, lazy, key in waits.values() if wait <= 0.0]
        if ready:
            _, key = min(ready)
            del self._items[key]
            self._left -= 1.0
            return key, None
        return None, min((wait for wait, _, _ in waits.values()), default=None)

    def _room_wait(self, item: _Item) -> float:
        needed = 1.0 if item.is_urgent else 1.0 + BURST / 2
        return (needed - self._left) / PER_SECOND
