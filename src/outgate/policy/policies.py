"""
The policies in force, and what each of them says on one node.

What it is: keeps a bad policy's last good version, knows which policies a change of
a node or of facts concerns, and decides only these again (``decisions``).
What it is not: pods (``selection``) and their rows (``rows``).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from outgate.policy.claims import drop_user
from outgate.policy.decisions import Decision, Fate, Reach, decide, reach_of
from outgate.policy.model import (
    BadPolicy,
    EgressPolicy,
    GatewayAtAddress,
    Problem,
    Rule,
)
from outgate.policy.nodes import Candidates, NodeIndex
from outgate.state.entries import Address, Family, NodeName, PolicyId
from outgate.state.facts import NodeFacts


@dataclass(frozen=True, slots=True)
class FateChange:
    """The policy *key* says something else now; None: it is not there."""

    key: str
    old: Fate | None
    new: Fate | None


class PolicyBook:
    """All policies by their keys, as one *node* must know them."""

    def __init__(self, node: NodeName, nodes: NodeIndex) -> None:
        self._node = node
        self._nodes = nodes
        self.good: dict[str, EgressPolicy] = {}
        self.bad: dict[str, BadPolicy] = {}
        self.fates: dict[str, Fate] = {}
        self._reaches: dict[str, Reach] = {}
        self._in_family: Counter[Family] = Counter()
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._here: set[str] = set()
        self._watched: dict[str, tuple[Candidates, ...]] = {}
        self._candidate_users: dict[Candidates, set[str]] = {}
        self._address_users: dict[Address, set[str]] = {}
        self._undecided: set[str] = set()

    def put(
        self, key: str, policy: EgressPolicy | BadPolicy | None
    ) -> tuple[Rule, ...] | None:
        """
        Take a policy, None when it is gone; return the rules that count from now on.

        A bad version leaves the last good one of the same object in force.
        """
        old = self.good.get(key)
        self.bad.pop(key, None)
        good = policy if isinstance(policy, EgressPolicy) else None
        if isinstance(policy, BadPolicy):
            self.bad[key] = policy
            good = old if old is not None and old.uid == policy.uid else None
        if good is not old:
            self._replace(key, old, good)
        if good is not None:
            return good.rules
        return policy.rules if policy is not None else None

    def touch_nodes(
        self, candidates: Iterable[Candidates], addresses: Iterable[Address]
    ) -> None:
        """Decide policies again after a change of nodes that could be their gateway."""
        for watched in candidates:
            self._undecided |= self._candidate_users[watched]
        for address in addresses:
            self._undecided |= self._address_users.get(address, set())

    def touch_facts(self) -> None:
        """Decide policies again whose gateway is here: this node's facts changed."""
        self._undecided |= self._here

    def decide(self, facts: NodeFacts) -> Iterator[FateChange]:
        """Decide what must be decided again; yield what came out differently."""
        undecided, self._undecided = self._undecided, set()
        for key in sorted(undecided):
            old = self.fates.get(key)
            new = self._note(key, self._decide(key, facts))
            if new is not old:
                yield FateChange(key, old, new)

    @property
    def here(self) -> Set[str]:
        """Return the policies whose gateway is this node; not to be kept."""
        return self._here

    @property
    def is_any_here(self) -> bool:
        """Return whether this node is the gateway of any policy."""
        return bool(self._here)

    @property
    def is_candidate(self) -> bool:
        """Return whether this node could be the gateway of any policy."""
        own = self._nodes.get(self._node)
        return own is not None and (
            bool(self._nodes.watched_by(self._node))
            or any(
                address in self._address_users and self._nodes.owner(address) is own
                for address in own.addresses
            )
        )

    def is_here(self, key: str) -> bool:
        """Return whether a gateway of the policy is this node."""
        return key in self._here

    @property
    def rules_here(self) -> Iterator[Rule]:
        """Return the rules of the policies whose gateway is this node."""
        for key in self._here:
            yield from self.good[key].rules

    @property
    def egress_ips(self) -> set[Address]:
        """Return the addresses under which pods leave here."""
        return {
            address
            for key in self._here
            for seat in self.fates[key].seats
            if seat.node == self._node
            for address in seat.egress_ips
        }

    @property
    def families(self) -> frozenset[Family]:
        """Return the families in which anything is covered."""
        return frozenset(f for f, policies in self._in_family.items() if policies)

    @property
    def problems(self) -> Iterator[Problem]:
        """Return what users should know of their policies, in no order."""
        for bad in self.bad.values():
            yield from bad.problems
        for found in self._problems.values():
            yield from found

    @property
    def kept(self) -> Iterator[tuple[str, BadPolicy]]:
        """Return the bad policies of which no good version is known."""
        return (item for item in self.bad.items() if item[0] not in self.good)

    @property
    def kept_ids(self) -> frozenset[PolicyId]:
        """Return the numbers of ``kept``, but for those that good ones have too."""
        kept = {bad.id for _, bad in self.kept}
        if kept:
            kept -= {policy.id for policy in self.good.values()}
        return frozenset(kept)

    @property
    def kept_ids_with_rules(self) -> frozenset[PolicyId]:
        """Return the numbers of ``kept`` whose rules could be read."""
        return frozenset(bad.id for _, bad in self.kept if bad.rules)

    @property
    def names(self) -> Mapping[PolicyId, str]:
        """Return how users write each policy, bad ones too."""
        names = {bad.id: f"{bad.kind} {bad.name}" for bad in self.bad.values()}
        names.update((good.id, good.reference) for good in self.good.values())
        return names

    def _replace(
        self, key: str, old: EgressPolicy | None, new: EgressPolicy | None
    ) -> None:
        watched = tuple(
            self._nodes.watch(gateway.nodes)
            for gateway in (new.gateways if new else ())
            if not isinstance(gateway, GatewayAtAddress)
        )
        for gone in self._watched.pop(key, ()):
            drop_user(self._candidate_users, gone, key)
            self._nodes.unwatch(gone)
        for address in _addresses(old):
            drop_user(self._address_users, address, key)
        self._undecided.add(key)
        if new is None:
            del self.good[key]
            self._put_reach(key, None)
            return
        self.good[key] = new
        if old is None or (old.destinations, old.excluded) != (
            new.destinations,
            new.excluded,
        ):
            self._put_reach(key, reach_of(new))
        self._watched[key] = watched
        for candidates in watched:
            self._candidate_users.setdefault(candidates, set()).add(key)
        for address in _addresses(new):
            self._address_users.setdefault(address, set()).add(key)

    def _put_reach(self, key: str, reach: Reach | None) -> None:
        if key in self._reaches:
            self._in_family.subtract(self._reaches.pop(key).families)
        if reach is not None:
            self._reaches[key] = reach
            self._in_family.update(reach.families)

    def _decide(self, key: str, facts: NodeFacts) -> Decision | None:
        policy = self.good.get(key)
        if policy is None:
            return None
        return decide(policy, self._reaches[key], self._nodes, self._node, facts)

    def _note(self, key: str, decision: Decision | None) -> Fate | None:
        """Remember *decision*; return its fate, the old one if nothing differs."""
        old = self.fates.pop(key, None)
        self._problems.pop(key, None)
        self._here.discard(key)
        if decision is None:
            return None
        fate = decision.fate
        if old is not None and old.is_like(fate):
            fate = old
        self.fates[key] = fate
        if decision.problems:
            self._problems[key] = decision.problems
        if any(seat.node == self._node for seat in fate.seats):
            self._here.add(key)
        return fate


def _addresses(policy: EgressPolicy | None) -> set[Address]:
    return {
        gateway.egress_ip
        for gateway in (policy.gateways if policy else ())
        if isinstance(gateway, GatewayAtAddress)
    }
