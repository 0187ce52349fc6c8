"""
Whether a list that lost objects is to be believed.  Pure.

Why: an API server whose storage was lost, or another cluster behind the same address,
answers with a list that is whole, well-formed, and empty.  Believed, it would remove
every row of this node, and pods would leave with the wrong address.  So a new list
that would take away everything, or more than half of ten or more, must repeat; and one
without an *anchor*, an object that every sound list has, is never believed.

What it is not: a judge of watch events.  They name each object that goes, and its uid.
"""

from collections.abc import Mapping, Set
from typing import Protocol

FEWEST_LISTS = 3
FEWEST_OBJECTS = 10


class _Identified(Protocol):
    @property
    def uid(self) -> str: ...


class ShrinkGuard:
    """
    The doubts about one kind's lists.

    *anchors* are keys that must not go once they were there; *confirm* is how many
    seconds a list that shrank must repeat, in at least ``FEWEST_LISTS`` lists.
    """

    def __init__(self, confirm: float, anchors: Set[str] = frozenset()) -> None:
        self._confirm = confirm
        self._anchors = anchors
        self._since: float | None = None
        self._lists = 0

    @property
    def wait(self) -> float:
        """Return after how many seconds to list again."""
        return self._confirm / FEWEST_LISTS

    def doubt(
        self,
        held: Mapping[str, _Identified],
        listed: Mapping[str, _Identified],
        now: float,
    ) -> str:
        """Return why *listed* must not replace *held*; empty: it may."""
        lost = sum(not _is_there(held[key], listed.get(key)) for key in held)
        absent = sorted(key for key in self._anchors & held.keys() - listed.keys())
        if absent:
            return (
                f"the list lacks {absent[0]!r}, which was there: nothing is removed;"
                " is this still the same cluster?"
            )
        if not _is_suspicious(lost, len(held)):
            self._since, self._lists = None, 0
            return ""
        if self._since is None:
            self._since = now
        self._lists += 1
        if self._lists >= FEWEST_LISTS and now - self._since >= self._confirm:
            self._since, self._lists = None, 0
            return ""
        return (
            f"the list lost {lost} of {len(held)} objects at once: not believed"
            f" until it repeats for {self._confirm:g} s"
        )


def _is_there(held: _Identified, listed: _Identified | None) -> bool:
    """Return whether the same object is there; an equal name alone is no proof."""
    return listed is not None and held.uid == listed.uid


def _is_suspicious(lost: int, held: int) -> bool:
    if not lost:
        return False
    return lost == held or (held >= FEWEST_OBJECTS and 2 * lost > held)
