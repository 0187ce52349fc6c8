"""
Which pods each policy selects, kept current as objects change.

What it is: an index of pods, namespaces, nodes' labels and the rules of policies.
Pods that show the same labels share one *identity*, so a policy is compared with
identities, not with pods.  The engine and the controller both ask it.

What it is not: which pod holds an address (``endpoints``), or what becomes of a
selected pod (``rows``).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from outgate.policy.claims import drop_user
from outgate.policy.endpoints import (
    IdentityLabels,
    holds_addresses,
    namespace_labels,
)
from outgate.policy.matching import Matches, Watched
from outgate.policy.model import Endpoint, Labels, Namespace, Rule
from outgate.state.entries import NodeName


class Identity:
    """
    Pods of one namespace with equal labels.

    *policies* are those with a rule for its labels, as of *version* of the selection:
    each with None, or with the node selectors of which one must match as well; without
    any of these, *everywhere* holds their keys.
    """

    __slots__ = (
        "everywhere",
        "key",
        "labels",
        "namespace",
        "pods",
        "policies",
        "version",
    )

    def __init__(self, key: tuple[str, ...], namespace: str, labels: Labels) -> None:
        self.key = key
        self.namespace = namespace
        self.labels = labels
        self.pods: set[str] = set()
        self.version = -1
        self.everywhere: tuple[str, ...] | None = None
        self.policies: tuple[tuple[str, frozenset[_Nodes] | None], ...] = ()


_Pods = Watched[Identity]
_Nodes = Watched[NodeName]


@dataclass(frozen=True, slots=True)
class _Rules:
    rules: tuple[Rule, ...]
    watched: tuple[tuple[_Pods, _Nodes | None], ...]


class Selection:
    """
    Pods, and the policies whose rules select them; pods and policies go by their keys.

    A pod whose namespace is unknown is selected by nobody: its labels are unknown.
    """

    def __init__(self) -> None:
        self._namespaces: dict[str, Labels] = {}
        self._pods: dict[str, tuple[Endpoint, Identity]] = {}
        self._identities: dict[tuple[str, ...], Identity] = {}
        self._of_namespace: dict[str, set[Identity]] = {}
        self._on_node: dict[NodeName, set[str]] = {}
        self._rules: dict[str, _Rules] = {}
        self._identity_users: dict[_Pods, set[str]] = {}
        self._node_users: dict[_Nodes, set[str]] = {}
        self._matches: Matches[Identity] = Matches()
        self._node_matches: Matches[NodeName] = Matches()
        self._version = 0
        self._touched_pods: set[str] = set()
        self._touched_policies: set[str] = set()

    def put_pod(self, key: str, pod: Endpoint | None) -> Endpoint | None:
        """Take the pod *key*, None when it is gone; return what it was before."""
        held = self._pods.get(key)
        old, was = held if held is not None else (None, None)
        if old == pod:
            return old
        self._touch_pod(key)
        if old is not None and was is not None:
            self._leave(key, old, was, pod)
        if pod is None:
            self._pods.pop(key, None)
            return old
        identity = self._identity(pod, old, was)
        identity.pods.add(key)
        self._on_node.setdefault(pod.node, set()).add(key)
        self._pods[key] = pod, identity
        self._touch_pod(key)
        return old

    def put_namespace(self, name: str, namespace: Namespace | None) -> None:
        """Take a namespace, None when it is gone."""
        labels = namespace_labels(namespace) if namespace else None
        if labels == self._namespaces.get(name):
            return
        for identity in self._of_namespace.get(name, ()):
            self._touch(identity.pods)
        if labels is None:
            del self._namespaces[name]
        else:
            self._namespaces[name] = labels
        for identity in self._of_namespace.get(name, ()):
            self._match(identity)
            self._touch(identity.pods)

    def put_node(self, name: NodeName, labels: Labels | None) -> None:
        """Take the labels of a node, None when it is gone."""
        if labels is None:
            changed = self._node_matches.remove(name)
        else:
            changed = self._node_matches.put(name, labels)
        for watched in changed:
            for policy in self._node_users[watched]:
                self._touched_policies.add(policy)
                self._touched_pods |= self._selected_on(policy, watched, name)

    def put_policy(self, key: str, rules: tuple[Rule, ...] | None) -> None:
        """Take the rules of a policy, None when it is gone."""
        held = self._rules.get(key)
        if rules == (held.rules if held else None):
            return
        self._touched_policies.add(key)
        if held is not None:
            self._touched_pods.update(self.pods_of(key))
        self._version += 1
        watched = tuple(self._watch(rule) for rule in rules or ())
        if held is not None:
            self._forget(key, held)
        if rules is None:
            return
        self._rules[key] = _Rules(rules, watched)
        for pods, nodes in watched:
            self._identity_users.setdefault(pods, set()).add(key)
            if nodes is not None:
                self._node_users.setdefault(nodes, set()).add(key)
        self._touched_pods.update(self.pods_of(key))

    def take_touched(self) -> tuple[set[str], set[str]]:
        """
        Return which pods changed, or may be selected otherwise, since the last call,
        and of which policies the selected pods may be others.
        """
        touched = self._touched_pods, self._touched_policies
        self._touched_pods, self._touched_policies = set(), set()
        return touched

    def pod(self, key: str) -> Endpoint | None:
        """Return the pod *key*."""
        held = self._pods.get(key)
        return held[0] if held else None

    def labels_of(self, key: str) -> Labels | None:
        """Return what selectors see of a pod; None while its namespace is unknown."""
        held = self._pods.get(key)
        namespace = self._namespaces.get(held[1].namespace) if held else None
        if held is None or namespace is None:
            return None
        return IdentityLabels(held[1].labels, namespace)

    def is_known(self, key: str) -> bool:
        """Return whether the pod is there and so is its namespace."""
        held = self._pods.get(key)
        return held is not None and held[1].namespace in self._namespaces

    def pods_on(self, node: NodeName) -> frozenset[str]:
        """Return the pods of *node*."""
        return frozenset(self._on_node.get(node, ()))

    def policies_of(self, key: str) -> tuple[str, ...]:
        """Return the policies that select the pod *key*, sorted by key."""
        held = self._pods.get(key)
        if held is None:
            return ()
        pod, identity = held
        if identity.version != self._version:
            self._refresh(identity)
        if identity.everywhere is not None:
            return identity.everywhere
        return tuple(
            policy
            for policy, nodes in identity.policies
            if nodes is None or any(pod.node in n.subjects for n in nodes)
        )

    def pods_of(self, key: str) -> Iterator[str]:
        """Yield the pods that a policy selects, each once, in no order."""
        held = self._rules.get(key)
        seen: set[str] = set()
        for watched, nodes in held.watched if held else ():
            for identity in watched.subjects:
                for pod in identity.pods - seen:
                    if nodes is None or self._pods[pod][0].node in nodes.subjects:
                        seen.add(pod)
                        yield pod

    def nodes_of(self, key: str) -> Mapping[NodeName, int]:
        """Return how many selected pods that hold addresses each node has."""
        pods = (self._pods[pod][0] for pod in self.pods_of(key))
        return Counter(pod.node for pod in pods if holds_addresses(pod))

    def _touch(self, pods: set[str]) -> None:
        for key in pods:
            self._touch_pod(key)

    def _touch_pod(self, key: str) -> None:
        self._touched_pods.add(key)
        self._touched_policies.update(self.policies_of(key))

    def _leave(
        self, key: str, old: Endpoint, was: Identity, new: Endpoint | None
    ) -> None:
        if new is None or new.node != old.node:
            there = self._on_node[old.node]
            there.discard(key)
            if not there:
                del self._on_node[old.node]
        if new is None or not _looks_alike(old, new):
            was.pods.discard(key)
            if not was.pods:
                self._matches.remove(was)
                del self._identities[was.key]
                _drop_identity(self._of_namespace, was)

    def _identity(
        self, pod: Endpoint, old: Endpoint | None, was: Identity | None
    ) -> Identity:
        if old is not None and was is not None and _looks_alike(old, pod):
            return was
        key = (pod.namespace, *chain.from_iterable(sorted(pod.labels.items())))
        identity = self._identities.get(key)
        if identity is None:
            identity = self._identities[key] = Identity(key, pod.namespace, pod.labels)
            self._of_namespace.setdefault(pod.namespace, set()).add(identity)
            self._match(identity)
        return identity

    def _match(self, identity: Identity) -> None:
        namespace = self._namespaces.get(identity.namespace)
        identity.version = -1
        if namespace is None:
            self._matches.remove(identity)
        else:
            self._matches.put(identity, IdentityLabels(identity.labels, namespace))

    def _refresh(self, identity: Identity) -> None:
        """Find the policies of *identity* again, after policies changed."""
        matching = self._matches.selectors_of(identity)
        policies = set().union(*(self._identity_users[w] for w in matching))
        identity.policies = tuple(
            (policy, _on_nodes(self._rules[policy], matching))
            for policy in sorted(policies)
        )
        is_anywhere = all(nodes is None for _, nodes in identity.policies)
        identity.everywhere = tuple(sorted(policies)) if is_anywhere else None
        identity.version = self._version

    def _selected_on(self, policy: str, nodes: _Nodes, node: NodeName) -> set[str]:
        """Return the pods on *node* that rules with the node selector *nodes* name."""
        rules = {pods for pods, n in self._rules[policy].watched if n is nodes}
        return {
            key
            for key in self._on_node.get(node, ())
            if not rules.isdisjoint(self._matches.selectors_of(self._pods[key][1]))
        }

    def _watch(self, rule: Rule) -> tuple[_Pods, _Nodes | None]:
        nodes = self._node_matches.watch(rule.nodes) if rule.nodes else None
        return self._matches.watch(rule.pods), nodes

    def _forget(self, key: str, held: _Rules) -> None:
        del self._rules[key]
        for pods, nodes in held.watched:
            # A policy may name one selector twice: it is dropped the first time.
            drop_user(self._identity_users, pods, key)
            self._matches.unwatch(pods)
            if nodes is not None:
                drop_user(self._node_users, nodes, key)
                self._node_matches.unwatch(nodes)


def _drop_identity(of_namespace: dict[str, set[Identity]], gone: Identity) -> None:
    there = of_namespace[gone.namespace]
    there.discard(gone)
    if not there:
        del of_namespace[gone.namespace]


def _looks_alike(one: Endpoint, other: Endpoint) -> bool:
    return one.namespace == other.namespace and one.labels == other.labels


def _on_nodes(held: _Rules, matching: tuple[_Pods, ...]) -> frozenset[_Nodes] | None:
    """Return None when a rule matches wherever the pod is, else the node selectors."""
    found = [nodes for pods, nodes in held.watched if pods in matching]
    if None in found:
        return None
    return frozenset(nodes for nodes in found if nodes is not None)
