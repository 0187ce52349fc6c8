"""
The nodes of the cluster, as gateways are looked for among them.

What it is: an index by address and by node selector, kept current.
What it is not: the choice (``gateways``), or what networks are (``addresses``).
"""

from collections.abc import Iterable

from outgate.policy.claims import Claims
from outgate.policy.matching import Matches, Watched
from outgate.policy.model import Node
from outgate.policy.selectors import Selector
from outgate.state.entries import Address, NodeName

Candidates = Watched[NodeName]


class NodeIndex:
    """All nodes; *watch* selectors that are asked for more than once."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self._nodes: dict[NodeName, Node] = {}
        self._names: Claims[Address, NodeName] = Claims()
        self._matches: Matches[NodeName] = Matches()
        self._sorted: dict[Candidates, tuple[NodeName, ...]] = {}
        for node in nodes:
            self.put(node.name, node)

    def put(self, name: NodeName, node: Node | None) -> set[Candidates]:
        """
        Take the node *name*, None when it is gone.

        Return the selectors of which it is a candidate, or was one before.
        """
        old = self._nodes.pop(name, None)
        touched = set(self._matches.selectors_of(name))
        for address in set(old.addresses) if old else ():
            self._names.drop(address, name)
        if node is None:
            changed = self._matches.remove(name)
        else:
            self._nodes[name] = node
            for address in set(node.addresses):
                self._names.add(address, name)
            changed = frozenset()
            if old is None or old.labels != node.labels:
                changed = self._matches.put(name, node.labels)
        for watched in changed:
            self._sorted.pop(watched, None)
        return touched | changed

    def get(self, name: NodeName) -> Node | None:
        """Return the node *name*."""
        return self._nodes.get(name)

    def owner(self, address: Address) -> Node | None:
        """Return which node has *address*; of several, the first by name."""
        name = min(self._names.of(address), default=None)
        return None if name is None else self._nodes[name]

    def claimants(self, address: Address) -> tuple[NodeName, ...]:
        """Return all nodes that have *address*."""
        return self._names.of(address)

    def watch(self, selector: Selector) -> Candidates:
        """Keep the nodes that *selector* matches at hand; end it with ``unwatch``."""
        return self._matches.watch(selector)

    def unwatch(self, watched: Candidates) -> None:
        """End one ``watch``."""
        self._matches.unwatch(watched)
        if not watched.uses:
            self._sorted.pop(watched, None)

    def watched_by(self, name: NodeName) -> tuple[Candidates, ...]:
        """Return the watched selectors that match the node *name*."""
        return self._matches.selectors_of(name)

    def matching(self, selector: Selector) -> tuple[NodeName, ...]:
        """Return the nodes that *selector* matches, sorted."""
        watched = self._matches.watching(selector)
        if watched is None:
            return tuple(
                sorted(n for n, v in self._nodes.items() if selector.matches(v.labels))
            )
        found = self._sorted.get(watched)
        if found is None:
            found = self._sorted[watched] = tuple(sorted(watched.subjects))
        return found

    def is_matching(self, name: NodeName, selector: Selector) -> bool:
        """Return whether the node *name* is there and *selector* matches it."""
        node = self._nodes.get(name)
        return node is not None and selector.matches(node.labels)


def place_of_pods(node: Node | None) -> object:
    """Return what tells of a node's pods where they are."""
    return (node.pod_networks, node.tunnel_endpoint) if node is not None else None
