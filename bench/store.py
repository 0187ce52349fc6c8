"""
What the benchmark's API server holds: objects as numbers, indexes, a journal.  Pure.

What it is: collections of small values that become JSON only when they are sent, so
that 100,000 pods cost some 30 MB and a change costs microseconds.  What it is not: a
Kubernetes API in general (``outgate.kubeapi`` is one): it validates nothing.
"""

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self

from bench.objects import (
    API_VERSIONS,
    node_json,
    node_labels,
    pod_json,
    pod_labels,
    policy_json,
    small_json,
)
from bench.world import NAMESPACES, Node, Pod, Policy, PolicyKind, World
from outgate.kubeapi.selectors import Selector

JOURNAL_LENGTH = 200_000
FIRST_VERSION = 1000


class Item(Protocol):
    """One object; a NamedTuple, so that its next version is ``_replace``."""

    @property
    def key(self) -> str: ...
    @property
    def version(self) -> int: ...
    def _replace(self, *, version: int) -> Self: ...


class Document(NamedTuple):
    """An object that is JSON from the start."""

    key: str
    content: dict[str, Any]
    version: int = 1


def _document_json(document: Document) -> bytes:
    content = dict(document.content)
    version = {"resourceVersion": str(document.version)}
    content["metadata"] = content.get("metadata", {}) | version
    return json.dumps(content, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a collection; *before* and *after* are None at birth and death."""

    version: int
    before: Any
    after: Any


@dataclass(slots=True)
class Collection:
    """All objects of one resource; *kind* and *api_version* are those of an item."""

    kind: str
    api_version: str
    render: Callable[[Any], bytes]
    labels: Callable[[Any], Mapping[str, str]] = field(default=lambda item: {})
    items: dict[str, Any] = field(default_factory=dict)
    journal: deque[Change] = field(default_factory=lambda: deque(maxlen=JOURNAL_LENGTH))

    def candidates(self, selector: Selector) -> Iterable[Any]:
        """Return at least all items that *selector* selects."""
        return self.items.values()

    def selects(self, selector: Selector, namespace: str, item: Any) -> bool:
        """Tell whether *item* is in *namespace* (empty: any) and selected."""
        fields = self.fields(item)
        if namespace and fields.get("metadata.namespace") != namespace:
            return False
        return selector.matches(self.labels(item), lambda name: fields.get(name, ""))

    def fields(self, item: Any) -> Mapping[str, str]:
        """Return the selectable fields of *item*."""
        namespace, _, name = item.key.rpartition("/")
        return {"metadata.name": name, "metadata.namespace": namespace}

    def note(self, change: Change) -> None:
        """Take over what *change* says."""
        self.journal.append(change)
        if change.after is None:
            del self.items[change.before.key]
        else:
            self.items[change.after.key] = change.after


class Pods(Collection):
    """Pods, found by node and by application without looking at all."""

    def __init__(self, pods: Iterable[Pod]) -> None:
        super().__init__("Pod", "v1", pod_json, pod_labels)
        self._on_node: defaultdict[str, dict[str, Pod]] = defaultdict(dict)
        self._of_app: defaultdict[str, dict[str, Pod]] = defaultdict(dict)
        for pod in pods:
            self._enter(pod)

    def candidates(self, selector: Selector) -> Iterable[Any]:
        indexes = {"spec.nodeName": self._on_node, "app": self._of_app}
        for term in (*selector.fields, *selector.labels):
            index = indexes.get(term.key)
            if index is not None and term.wanted and term.values:
                return [p for value in term.values for p in index[value].values()]
        return self.items.values()

    def fields(self, item: Any) -> Mapping[str, str]:
        name, node = item.name, Node(item.node).name
        named = {"metadata.name": name, "metadata.namespace": item.namespace}
        return {**named, "spec.nodeName": node, "status.phase": "Running"}

    def note(self, change: Change) -> None:
        if change.before is not None:
            self._leave(change.before)
        # Not super(): dataclasses with slots make their class anew.
        self.journal.append(change)
        if change.after is not None:
            self._enter(change.after)

    def _enter(self, pod: Pod) -> None:
        self.items[pod.key] = pod
        self._on_node[Node(pod.node).name][pod.key] = pod
        self._of_app[str(pod.app)][pod.key] = pod

    def _leave(self, pod: Pod) -> None:
        del self.items[pod.key]
        del self._on_node[Node(pod.node).name][pod.key]
        del self._of_app[str(pod.app)][pod.key]


class Store:
    """All collections by their URL paths, and the one version counter."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.version = FIRST_VERSION
        self.pods = Pods(world.all_pods())
        self.nodes = Collection(
            "Node",
            "v1",
            lambda node: node_json(node, world.gateways),
            lambda node: node_labels(node, world.gateways),
            {node.key: node for node in map(Node, range(world.nodes))},
        )
        self.policies = Collection(
            world.kind,
            API_VERSIONS[world.kind],
            lambda policy: policy_json(policy, world.kind),
            items={policy.key: policy for policy in world.all_policies()},
        )
        self.collections = _fixed() | {
            "/api/v1/pods": self.pods,
            "/api/v1/nodes": self.nodes,
            _POLICY_PATHS[world.kind]: self.policies,
        }

    def put(self, collection: Collection, item: Item) -> Change:
        """Create or replace *item*, under a new version."""
        self.version += 1
        before = collection.items.get(item.key)
        after = item._replace(version=self.version)
        change = Change(self.version, before, after)
        collection.note(change)
        return change

    def delete(self, collection: Collection, key: str) -> Change:
        """Remove the item of *key*, which is there."""
        self.version += 1
        change = Change(self.version, collection.items[key], None)
        collection.note(change)
        return change


_POLICY_PATHS = {
    PolicyKind.GATEWAY: "/apis/cilium.io/v2/ciliumegressgatewaypolicies",
    PolicyKind.NAT: "/apis/cilium.io/v2alpha1/ciliumegressnatpolicies",
}


def _fixed() -> dict[str, Collection]:
    """Return what an agent asks for besides; the kinds of policy are empty here."""
    names = ["default", "kube-system", *(f"team-{i:03}" for i in range(NAMESPACES))]
    namespaces = [small_json("Namespace", "v1", name) for name in names]
    inside = {"spec": {"cidrs": ["10.96.0.0/12"]}}
    networking = "networking.k8s.io/v1"
    networks = [small_json("ServiceCIDR", networking, "kubernetes", **inside)]
    return {
        path: Collection(kind, api_version, _document_json, _document_labels, items)
        for path, kind, api_version, items in (
            ("/api/v1/namespaces", "Namespace", "v1", _documents(namespaces)),
            (
                f"/apis/{networking}/servicecidrs",
                "ServiceCIDR",
                networking,
                _documents(networks),
            ),
            (
                "/apis/discovery.k8s.io/v1/endpointslices",
                "EndpointSlice",
                "discovery.k8s.io/v1",
                {},
            ),
            (
                "/apis/outgate.io/v1alpha1/egressnodes",
                "EgressNode",
                "outgate.io/v1alpha1",
                {},
            ),
            *(
                (path, kind, API_VERSIONS[kind], {})
                for kind, path in _POLICY_PATHS.items()
            ),
        )
    }


def _documents(contents: Iterable[bytes]) -> dict[str, Any]:
    decoded = [json.loads(content) for content in contents]
    found = [Document(content["metadata"]["name"], content) for content in decoded]
    return {document.key: document for document in found}


def _document_labels(document: Document) -> Mapping[str, str]:
    return dict(document.content.get("metadata", {}).get("labels", {}))


def made_by(change: Change) -> Policy | Pod | Node | Document:
    """Return the object that *change* is about, with the version of the change."""
    item = change.before if change.after is None else change.after
    found: Policy | Pod | Node | Document = item._replace(version=change.version)
    return found
