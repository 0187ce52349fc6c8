"""
Policy rows of one node: (pod address, destination) -> what happens to it.

What it is: selection, and the one order that decides overlaps of equal
destinations (older policy, then name).  Longer prefixes need no order: the map
finds them.

What it is not: it does not choose gateways (``gateways``) or fill other maps.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from outgate.policy.addresses import is_never_routed
from outgate.policy.endpoints import identity_labels
from outgate.policy.gateways import Decision
from outgate.policy.model import EgressPolicy, Endpoint, Namespace, Problem
from outgate.state.entries import (
    Address,
    Key,
    Network,
    NodeName,
    PolicyEntry,
    PolicyKey,
    Value,
    family_of,
)


@dataclass(frozen=True, slots=True)
class DecidedPolicy:
    """A policy and what its rows say on this node."""

    policy: EgressPolicy
    decision: Decision

    def entry(self, network: Network) -> PolicyEntry:
        """Return what its rows for *network* say."""
        return self.decision.entries[family_of(network)]


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
    for address, endpoint in holders.items():
        is_local = endpoint.node == node
        namespace = namespaces.get(endpoint.namespace)
        if namespace is None or not (is_local or is_gateway):
            continue
        labels = identity_labels(endpoint, namespace)
        winners: dict[Network, DecidedPolicy] = {}
        families = set()
        for decided, index, network in _selected(policies, labels):
            families.add(network.version)
            if network.version != address.version:
                continue
            winner = winners.setdefault(network, decided)
            if is_local and winner is not decided:
                defeats[_Defeat(decided.policy, index, winner.policy)] += 1
        for network, winner in winners.items():
            if is_local or winner.decision.gateway_node == node:
                rows[PolicyKey(address, network)] = winner.entry(network)
        if is_local and families and address.version not in families:
            other_family.add(address)
    problems = tuple(_tell(defeat, count) for defeat, count in defeats.items())
    return CompiledRows(rows, problems, frozenset(other_family))


def _selected(
    policies: Sequence[DecidedPolicy], labels: Mapping[str, str]
) -> Iterator[tuple[DecidedPolicy, int, Network]]:
    for decided in policies:
        policy = decided.policy
        if any(selector.matches(labels) for selector in policy.selectors):
            for index, network in enumerate(policy.destinations):
                if not is_never_routed(network):
                    yield decided, index, network


def _tell(defeat: _Defeat, count: int) -> Problem:
    network = defeat.loser.destinations[defeat.index]
    pods = "one pod address" if count == 1 else f"{count} pod addresses"
    return Problem(
        defeat.loser.reference,
        f"spec.destinationCIDRs[{defeat.index}]",
        f"{network}: {defeat.winner.reference} comes first (older, then by name)"
        f" and wins for {pods} of this node",
    )
