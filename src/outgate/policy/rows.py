"""
Policy rows of one node: (pod address, destination) -> what happens to it.

What it is: selection, and the one order that decides overlaps of equal
destinations (older policy, then name).  Longer prefixes need no order: the map
finds them.

What it is not: it does not choose gateways (``gateways``) or fill other maps.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from outgate.policy.addresses import is_never_routed
from outgate.policy.endpoints import identity_labels
from outgate.policy.gateways import Decision
from outgate.policy.model import EgressPolicy, Endpoint, Namespace, Problem
from outgate.state.entries import (
    Address,
    Family,
    Key,
    Network,
    NodeName,
    PolicyKey,
    Value,
    family_of,
)


@dataclass(frozen=True, slots=True)
class DecidedPolicy:
    """A policy and what its rows say on this node."""

    policy: EgressPolicy
    decision: Decision


@dataclass(frozen=True, slots=True)
class CompiledRows:
    """
    The rows that a node can use, and the policies that lost somewhere.

    *other_family* are addresses of this node's pods that policies cover in the other
    IP family only: they have no row, and still are no pods that nobody named.
    """

    rows: Mapping[Key, Value]
    problems: tuple[Problem, ...]
    other_family: frozenset[Address]

    @property
    def selected(self) -> frozenset[Address]:
        """Return the addresses of pods that have rows."""
        return frozenset(k.source for k in self.rows if isinstance(k, PolicyKey))


@dataclass(frozen=True, slots=True)
class _Defeat:
    """*loser*'s destination *index* belongs to *winner* for some pods."""

    loser: EgressPolicy
    index: int
    winner: EgressPolicy


def compile_rows(
    node: NodeName,
    holders: Mapping[Address, Endpoint],
    namespaces: Mapping[str, Namespace],
    policies: Sequence[DecidedPolicy],
) -> CompiledRows:
    """
    Return what *node* needs of *policies*.

    *policies* are in order of seniority.  A node uses rows of its own pods, and, as
    a gateway, rows that send pods to it.  The winner is found among all policies
    before that filter: else a gateway would keep a row that the pod's node never
    uses.
    """
    rows: dict[Key, Value] = {}
    defeats: Counter[_Defeat] = Counter()
    other_family = set()
    is_gateway = any(p.decision.gateway_node == node for p in policies)
    named = [(decided, _networks(decided.policy)) for decided in policies]
    for address, endpoint in holders.items():
        is_local = endpoint.node == node
        namespace = namespaces.get(endpoint.namespace)
        if namespace is None or not (is_local or is_gateway):
            continue
        labels = identity_labels(endpoint, namespace)
        selected = [n for n in named if n[0].policy.selects(labels)]
        family = family_of(address)
        winners: dict[Network, DecidedPolicy] = {}
        for decided, networks in selected:
            for index, network in networks[family]:
                winner = winners.setdefault(network, decided)
                if is_local and winner is not decided:
                    defeats[_Defeat(decided.policy, index, winner.policy)] += 1
        for network, winner in winners.items():
            if is_local or winner.decision.gateway_node == node:
                rows[PolicyKey(address, network)] = winner.decision.entries[family]
        if is_local and not winners and any(any(n[1].values()) for n in selected):
            other_family.add(address)
    problems = tuple(_tell(defeat, count) for defeat, count in defeats.items())
    return CompiledRows(rows, problems, frozenset(other_family))


def _networks(policy: EgressPolicy) -> dict[Family, list[tuple[int, Network]]]:
    """Return the destinations that have rows, each with its index, by family."""
    found: dict[Family, list[tuple[int, Network]]] = {f: [] for f in Family}
    for index, network in enumerate(policy.destinations):
        if not is_never_routed(network):
            found[family_of(network)].append((index, network))
    return found


def _tell(defeat: _Defeat, count: int) -> Problem:
    network = defeat.loser.destinations[defeat.index]
    pods = "one pod address" if count == 1 else f"{count} pod addresses"
    return Problem(
        defeat.loser.reference,
        f"spec.destinationCIDRs[{defeat.index}]",
        f"{network}: {defeat.winner.reference} comes first (older, then by name)"
        f" and wins for {pods} of this node",
    )
