"""
What the status of every policy should be, kept current as the cluster changes.  Pure.

What it is: the model of the cluster as the controller needs it, and which policies a
change concerns; ``policy.conditions`` judges them.

What it is not: a second choice of gateways.  It asks ``policy.gateways`` as agents do,
with the health that it is about to publish, so that what it says is selected is what
agents, reading it, select.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass, field, replace

from outgate.controller.freshness import Freshness
from outgate.policy.claims import drop_user
from outgate.policy.conditions import Listed, Situation, judge
from outgate.policy.gateways import (
    Chosen,
    canonical_text,
    choose,
    needed_families,
    share,
)
from outgate.policy.health import Candidate, Life, Verdict, assess
from outgate.policy.model import (
    NO_NODE,
    BadPolicy,
    ClusterChanges,
    EgressPolicy,
    GatewayAtAddress,
    GatewayOnNodes,
    Node,
)
from outgate.policy.nodes import Candidates, NodeIndex
from outgate.policy.ranking import health_of
from outgate.policy.reports import NodeReport
from outgate.policy.selection import Selection
from outgate.policy.status import PolicyStatus
from outgate.state.entries import Address, NodeName

MOST_LISTED = 16
"""So many candidates are judged in one status; a further one is taken as it is."""


@dataclass(slots=True)
class _Policy:
    """A policy: the version in force, the newer one that is wrong, what it watches."""

    uid: str
    good: EgressPolicy | None = None
    bad: BadPolicy | None = None
    watched: list[Candidates] = field(default_factory=list)
    listed: frozenset[NodeName] = frozenset()


class Statuses:
    """Feed it changes and reports; ask it for the policies that they concern."""

    def __init__(self, freshness: Freshness) -> None:
        self._freshness = freshness
        self._selection = Selection()
        self._nodes = NodeIndex()
        self._policies: dict[str, _Policy] = {}
        self._by_uid: dict[str, str] = {}
        self._watchers: dict[Candidates, set[str]] = {}
        self._at_address: dict[Address, set[str]] = {}
        self._listed_on: dict[NodeName, set[str]] = {}
        self._reports: dict[NodeName, NodeReport] = {}
        self._concerned: set[str] = set()

    def has_node(self, name: str) -> bool:
        """Return whether the cluster has a node of that name."""
        return self._nodes.get(NodeName(name)) is not None

    def change(self, changes: ClusterChanges, now: float) -> None:
        """Take what changed in the cluster, in any order."""
        for name, node in changes.nodes.items():
            self._put_node(NodeName(name), node)
        for name, namespace in changes.namespaces.items():
            self._selection.put_namespace(name, namespace)
        for key, pod in changes.pods.items():
            self._selection.put_pod(key, pod)
        for key, policy in changes.policies.items():
            self._put_policy(key, policy)
        if changes.nodes or changes.policies:
            self._freshness.expect(self._candidates(), now)
        _, policies = self._selection.take_touched()
        self._concerned |= policies

    def report(
        self,
        node: NodeName,
        report: NodeReport | None,
        now: float,
        *,
        is_old: bool = False,
    ) -> None:
        """Take what the agent on *node* says; *is_old* as in ``Freshness.note``."""
        renewed = report.renew_time if report else ""
        self._freshness.note(node, renewed, now, is_old=is_old)
        was_first = not self._reports
        before = self._reports.pop(node, None)
        if report is not None:
            self._reports[node] = report
        if was_first != (not self._reports):
            self._concerned.update(self._policies)
        self._note_difference(node, before, report)

    def note_time(self, turned: Iterable[NodeName]) -> None:
        """Take that agents on *turned* live, or do not any more."""
        for node in turned:
            self._concerned |= self._listed_on.get(node, set())

    def take_concerned(self) -> set[str]:
        """Return the policies whose status may be another since the last call."""
        taken, self._concerned = self._concerned, set()
        return taken

    def judge(self, key: str, now: float) -> PolicyStatus | None:
        """Return the status of a policy; None when it is gone."""
        policy = self._policies.get(key)
        if policy is None:
            return None
        if policy.good is None:
            return judge(Situation(None, policy.bad, reports=self._reports))
        listed, lacking = self._list(policy.good, now)
        self._note_listed(key, policy, {item.node for item in listed})
        pods = dict(self._selection.nodes_of(key))
        pods.pop(NO_NODE, None)
        return judge(
            Situation(
                policy=policy.good,
                bad=policy.bad,
                listed=listed,
                lacking=lacking,
                pods=pods,
                serving=self._serving(key, listed) if pods else frozenset(),
                reports=self._reports,
            )
        )

    def _put_node(self, name: NodeName, node: Node | None) -> None:
        old = self._nodes.get(name)
        for candidates in self._nodes.put(name, node):
            self._concerned |= self._watchers.get(candidates, set())
        for known in (old, node):
            for address in known.addresses if known else ():
                self._concerned |= self._at_address.get(address, set())
        self._selection.put_node(name, node.labels if node else None)

    def _put_policy(self, key: str, found: EgressPolicy | BadPolicy | None) -> None:
        self._concerned.add(key)
        held = self._policies.get(key)
        if held is not None and (found is None or found.uid != held.uid):
            self._drop(key, held)
        if found is None:
            return
        policy = self._policies.setdefault(key, _Policy(found.uid))
        self._by_uid[found.uid] = key
        if isinstance(found, BadPolicy):
            policy.bad = found
            return
        self._unwatch(key, policy)
        policy.good, policy.bad = found, None
        self._watch(key, policy, found)
        self._selection.put_policy(key, found.rules)

    def _drop(self, key: str, policy: _Policy) -> None:
        self._unwatch(key, policy)
        self._note_listed(key, policy, frozenset())
        self._selection.put_policy(key, None)
        self._by_uid.pop(policy.uid, None)
        del self._policies[key]

    def _watch(self, key: str, policy: _Policy, found: EgressPolicy) -> None:
        for gateway in found.gateways:
            if isinstance(gateway, GatewayOnNodes):
                candidates = self._nodes.watch(gateway.nodes)
                policy.watched.append(candidates)
                self._watchers.setdefault(candidates, set()).add(key)
            else:
                self._at_address.setdefault(gateway.egress_ip, set()).add(key)

    def _unwatch(self, key: str, policy: _Policy) -> None:
        for candidates in policy.watched:
            drop_user(self._watchers, candidates, key)
            self._nodes.unwatch(candidates)
        policy.watched.clear()
        for gateway in policy.good.gateways if policy.good else ():
            if isinstance(gateway, GatewayAtAddress):
                drop_user(self._at_address, gateway.egress_ip, key)

    def _candidates(self) -> Set[NodeName]:
        """Return the nodes that renew their reports, as they see it themselves."""
        owners = map(self._nodes.owner, self._at_address)
        found = {node.name for node in owners if node is not None}
        return found.union(*(candidates.subjects for candidates in self._watchers))

    def _note_difference(
        self, node: NodeName, before: NodeReport | None, after: NodeReport | None
    ) -> None:
        """Find the policies that two reports of a node tell different things of."""
        old, new = before.policies if before else {}, after.policies if after else {}
        for uid in old.keys() | new.keys():
            if old.get(uid) != new.get(uid) and uid in self._by_uid:
                self._concerned.add(self._by_uid[uid])
        if before is None or after is None or _condition(before) != _condition(after):
            self._concerned |= self._listed_on.get(node, set())
            for pod in self._selection.pods_on(node):
                self._concerned.update(self._selection.policies_of(pod))
        elif before.facts != after.facts:
            self._concerned |= self._listed_on.get(node, set())

    def _note_listed(self, key: str, policy: _Policy, nodes: Set[NodeName]) -> None:
        for node in policy.listed - nodes:
            drop_user(self._listed_on, node, key)
        for node in nodes - policy.listed:
            self._listed_on.setdefault(node, set()).add(key)
        policy.listed = frozenset(nodes)

    def _list(
        self, policy: EgressPolicy, now: float
    ) -> tuple[tuple[Listed, ...], tuple[GatewayOnNodes | GatewayAtAddress, ...]]:
        """
        Return the candidates that matter, and the gateways that have none.

        Agents take the best candidate of which nothing bad is published.  So that one
        is judged and published, until all that they would take have been.
        """
        found: dict[tuple[str, NodeName], tuple[Chosen, Verdict]] = {}
        while True:
            health = tuple(
                verdict.to_health(node) for (_, node), (_, verdict) in found.items()
            )
            choices = choose(replace(policy, health=health), self._nodes)
            new = {
                (choice.gateway.path, choice.node): choice
                for choice in choices
                if choice.node is not None
                and (choice.gateway.path, choice.node) not in found
            }
            if not new:
                break
            is_last = len(found) + len(new) >= MOST_LISTED
            for place, choice in new.items():
                verdict = self._assess(policy, choice, now)
                if is_last and not verdict.is_usable:
                    # Nobody looks for a better one any more: agents stay there.
                    verdict = replace(verdict, is_usable=None)
                found[place] = choice, verdict
        selected = {(c.gateway.path, c.node) for c in choices if c.is_selected}
        listed = tuple(
            Listed(c.gateway, place[1], v, place in selected, c.tunnel_endpoint)
            for place, (c, v) in found.items()
        )
        return listed, tuple(c.gateway for c in choices if c.node is None)

    def _assess(self, policy: EgressPolicy, choice: Chosen, now: float) -> Verdict:
        assert choice.node is not None
        node = self._nodes.get(choice.node)
        assert node is not None, "only known nodes are chosen"
        life = self._freshness.life(node.name, now) if self._reports else Life.UNKNOWN
        candidate = Candidate(node, self._reports.get(node.name), life)
        verdict = assess(choice.gateway, needed_families(policy), candidate)
        before = health_of(policy, choice.gateway, node.name)
        if verdict.is_usable is None and before is not None and not before.is_usable:
            # What was bad stays so until its agent says otherwise: no pod moves there.
            return replace(verdict, is_usable=False)
        return verdict

    def _serving(self, key: str, listed: Iterable[Listed]) -> frozenset[NodeName]:
        """Return the selected gateways that at least one pod leaves through."""
        selected = [item for item in listed if item.is_selected]
        texts = [canonical_text(item.gateway) for item in selected]
        if len(selected) < 2:
            return frozenset(item.node for item in selected)
        seen: set[int] = set()
        for pod in self._selection.pods_of(key):
            seen.add(share(pod, texts))
            if len(seen) == len(texts):
                break
        return frozenset(selected[index].node for index in seen)


def _condition(report: NodeReport) -> tuple[bool, str]:
    return report.is_ready, report.message
