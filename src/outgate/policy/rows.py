"""
The rows of pods: what several policies together make of one pod's traffic.

What it is: the one order that decides overlaps of equal prefixes (older policy, then
name), done once for all pods with the same fate.  Longer prefixes need no order: the
map finds them.

What it is not: it does not choose gateways (``decisions``) or select pods
(``selection``).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from outgate.policy.decisions import Fate, Seat
from outgate.policy.model import EgressPolicy, Problem
from outgate.state.entries import (
    Excluded,
    Family,
    Network,
    NodeName,
    PolicyEntry,
    RowSet,
)

Lot = tuple[Fate, int]
"""A policy that selects a pod, and which of its seats the pod has."""


@dataclass(frozen=True, slots=True)
class Defeat:
    """A network of *loser* that belongs to *winner* for some pods."""

    loser: Fate
    network: Network
    is_excluded: bool
    winner: Fate


class SharedRows:
    """
    Rows that all pod addresses with the same lots have, on one node.

    *counts* says how many each policy has, by its key; *defeats* are told only where
    the pods are this node's own; *addresses* counts who has these rows.
    """

    __slots__ = ("addresses", "counts", "defeats", "key", "rows")

    def __init__(
        self,
        key: "_RowsOf",
        rows: Mapping[Network, PolicyEntry],
        counts: Mapping[str, int],
        defeats: tuple[Defeat, ...],
    ) -> None:
        self.key = key
        self.rows = RowSet(rows)
        self.counts = counts
        self.defeats = defeats
        self.addresses = 0


_RowsOf = tuple[Family, bool, tuple[Lot, ...]]


class RowPool:
    """All ``SharedRows`` of a node that somebody has, each once."""

    def __init__(self, node: NodeName) -> None:
        self._node = node
        self._shared: dict[_RowsOf, SharedRows] = {}
        self._by_rows: dict[int, SharedRows] = {}

    def take(
        self, lots: Sequence[Lot], family: Family, *, is_local: bool
    ) -> SharedRows:
        """
        Return the rows of a pod address, for one more address: ``release`` them.

        *lots* are in order of seniority.  A node uses rows of its own pods, and, as a
        gateway, rows that send pods to it.  The winner is found among all policies
        before that filter: else a gateway would keep a row that the pod's node never
        uses.  Without any row the address need not be released.
        """
        if not is_local and not any(f.seats[i].node == self._node for f, i in lots):
            lots = ()
        key = (family, is_local, tuple(lots))
        shared = self._shared.get(key)
        if shared is None:
            shared = self._merge(key)
        if shared.rows:
            self._shared[key] = shared
            self._by_rows[id(shared.rows)] = shared
            shared.addresses += 1
        return shared

    def release(self, rows: RowSet) -> None:
        """Let one address have *rows* no more."""
        shared = self._by_rows[id(rows)]
        shared.addresses -= 1
        if not shared.addresses:
            del self._by_rows[id(rows)]
            del self._shared[shared.key]

    def in_use(self) -> Iterable[SharedRows]:
        """Return all that some address has."""
        return self._shared.values()

    def _merge(self, key: _RowsOf) -> SharedRows:
        family, is_local, lots = key
        winners: dict[Network, Fate] = {}
        rows: dict[Network, PolicyEntry] = {}
        counts: Counter[str] = Counter()
        defeats: list[Defeat] = []
        for fate, index in lots:
            seat = fate.seats[index]
            for network, entry in _own_rows(fate, seat, family).items():
                winner = winners.setdefault(network, fate)
                if winner is not fate:
                    is_excluded = isinstance(entry, Excluded)
                    defeats.append(Defeat(fate, network, is_excluded, winner))
                elif is_local or seat.node == self._node:
                    rows[network] = entry
                    counts[fate.key] += 1
        return SharedRows(key, rows, counts, tuple(defeats) if is_local else ())


def _own_rows(fate: Fate, seat: Seat, family: Family) -> Mapping[Network, PolicyEntry]:
    """Return the rows of one policy; what it excludes is excluded."""
    is_v6 = family is Family.V6
    rows = dict.fromkeys(fate.reach.destinations[is_v6], seat.entry(family))
    if excluded := fate.reach.excluded[is_v6]:
        rows |= dict.fromkeys(excluded, Excluded(fate.id))
    return rows


def tell_defeats(
    defeats: Mapping[Defeat, int], policies: Mapping[str, EgressPolicy]
) -> Iterable[Problem]:
    """Tell the losers of *defeats*, each with its count of pod addresses."""
    for defeat, count in defeats.items():
        loser = policies[defeat.loser.key]
        name, networks = "destinationCIDRs", loser.destinations
        if defeat.is_excluded:
            name, networks = "excludedCIDRs", loser.excluded
        pods = "one pod address" if count == 1 else f"{count} pod addresses"
        yield Problem(
            loser.reference,
            f"spec.{name}[{networks.index(defeat.network)}]",
            f"{defeat.network}: {defeat.winner.reference} comes first (older, then by"
            f" name) and wins for {pods} of this node",
        )
