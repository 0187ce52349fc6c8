"""
Which networks policies cover, and in whose name.

What it is: an index from networks to the policies that name them, kept current by
``engine``, which writes its answers into the entries.
"""

from collections.abc import Mapping, Set

from outgate.policy.claims import Claims
from outgate.policy.decisions import Fate
from outgate.state.entries import CoveredEntry, CoveredKey


class Covering:
    """The networks that *fates* cover, by the keys of their policies."""

    def __init__(self, fates: Mapping[str, Fate]) -> None:
        self._fates = fates
        self._claims: Claims[CoveredKey, str] = Claims()

    def replace(
        self, policy: str, old: Fate | None, new: Fate | None
    ) -> Set[CoveredKey]:
        """Let *policy* cover what *new* says; return the networks to look at again."""
        if old is not None and new is not None and old.covers_like(new):
            return frozenset()
        was, now = _networks(old), _networks(new)
        for network in was:
            self._claims.drop(network, policy)
        for network in now:
            self._claims.add(network, policy)
        return was | now

    def entry(self, network: CoveredKey) -> CoveredEntry | None:
        """Return the first (oldest, then by name) policy's; None where none covers."""
        keys = self._claims.of(network)
        if not keys:
            return None
        fates = [self._fates[key] for key in keys]
        if len(fates) == 1:
            return fates[0].covered
        return min(fates, key=lambda fate: fate.seniority).covered


def _networks(fate: Fate | None) -> Set[CoveredKey]:
    return {CoveredKey(network) for network in (fate.networks if fate else ())}
