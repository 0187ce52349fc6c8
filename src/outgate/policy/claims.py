"""
Who claims what: mostly one claimant, sometimes several.

What it is: a mapping that keeps a single claimant as itself and several as a tuple,
because there are a hundred thousand of the first kind.  Addresses, networks and
destinations are claimed by pods, nodes and policies.  Beside it, how plain indexes of
users forget one.
"""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
W = TypeVar("W", bound=Hashable)


class Claims(Generic[K, W]):
    """The claimants of each key, in the order in which they came."""

    def __init__(self) -> None:
        self._one: dict[K, W] = {}
        self._more: dict[K, tuple[W, ...]] = {}

    def add(self, key: K, who: W) -> None:
        """Let *who* claim *key* once more."""
        before = len(self._one)
        self._one.setdefault(key, who)
        if len(self._one) == before:
            self._more[key] = (*self.of(key), who)

    def drop(self, key: K, who: W) -> None:
        """End one claim of *who*, who has one."""
        more = list(self._more.pop(key, ())) if self._more else []
        if not more:
            del self._one[key]
            return
        more.remove(who)
        self._one[key] = more[0]
        if len(more) > 1:
            self._more[key] = tuple(more)

    def of(self, key: K) -> tuple[W, ...]:
        """Return the claimants of *key*."""
        more = self._more.get(key) if self._more else None
        if more is not None:
            return more
        one = self._one.get(key)
        return () if one is None else (one,)

    @property
    def contested(self) -> Iterator[K]:
        """Return the keys with several claimants."""
        return iter(self._more)

    def __contains__(self, key: K) -> bool:
        return key in self._one


def drop_user(users: dict[K, set[str]], used: K, key: str) -> None:
    """Let *key* use *used* no more, if it did; what nobody uses is forgotten."""
    found = users.get(used, set())
    found.discard(key)
    if not found:
        users.pop(used, None)
