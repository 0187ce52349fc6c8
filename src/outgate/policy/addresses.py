"""
What addresses are: inside the cluster, at which node, the node's own.

What it is: ``cilium_ipcache`` and ``outgate_node_v4`` (and ``_v6``) of one node, kept
current as nodes and pods change, and the rules for the node's own addresses.
What it is not: policies.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from outgate.policy.claims import Claims
from outgate.policy.model import Node
from outgate.policy.nodes import NodeIndex
from outgate.state.entries import (
    CLUSTER,
    HOST,
    REMOTE_NODE,
    WORLD,
    Address,
    Family,
    IpcacheEntry,
    IpcacheKey,
    Network,
    NodeEntry,
    NodeName,
    family_of,
)
from outgate.state.facts import NodeFacts
from outgate.state.snapshot import Snapshot

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))


def link_addresses(facts: NodeFacts) -> frozenset[Address]:
    """Return the addresses that the node really has, without those of loopback."""
    return frozenset(
        address
        for link in facts.links
        for address in link.addresses
        if not address.is_loopback
    )


def held_node_addresses(held: Snapshot) -> frozenset[Address]:
    """Return the node's own addresses as a kernel that was filled before has them."""
    return frozenset(
        key.network.network_address
        for key, value in held.items()
        if isinstance(key, IpcacheKey)
        and isinstance(value, IpcacheEntry)
        and value.identity == HOST
    )


class NetworkSet:
    """Networks, each as often as it was added; asked by mask, not one by one."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, int], dict[int, int]] = {}

    def add(self, network: Network, count: int = 1) -> None:
        """Add *network*, or take it away with a *count* of -1."""
        masks = (network.version, int(network.netmask))
        known = self._counts.setdefault(masks, {})
        start = int(network.network_address)
        known[start] = known.get(start, 0) + count
        if not known[start]:
            del known[start]
            if not known:
                del self._counts[masks]

    def has(self, address: Address) -> bool:
        """Return whether *address* is in one of the networks."""
        bits = int(address)
        return any(
            bits & mask in known
            for (version, mask), known in self._counts.items()
            if version == address.version
        )


class Inside:
    """
    What each network is to a packet from *node*.

    A network may be several things; a node's address is a node's even if somebody
    calls it a pod's, then a pod outside the pod networks of its node counts, then pod
    networks, then networks of the cluster.  Of several nodes the first by name counts.
    """

    def __init__(self, node: NodeName, nodes: NodeIndex) -> None:
        self._node = node
        self._nodes = nodes
        self._of_pods: Claims[Network, NodeName] = Claims()
        self._of_cluster: Claims[Network, str] = Claims()
        self._by_source: dict[str, tuple[Network, ...]] = {}
        self._outside: dict[Address, NodeName] = {}
        self._pods_and_cluster = NetworkSet()
        self._cluster = NetworkSet()
        self._bare: dict[NodeName, frozenset[Family]] = {}
        self._bare_nodes: Counter[Family] = Counter()

    def replace_node(self, old: Node | None, new: Node | None) -> Iterator[Network]:
        """Take *new* for *old*; yield the networks that may be something else now."""
        for node, count in ((old, -1), (new, 1)):
            if node is None:
                continue
            for network in set(node.pod_networks):
                change = self._of_pods.add if count > 0 else self._of_pods.drop
                change(network, node.name)
                self._pods_and_cluster.add(network, count)
                yield network
            for address in node.addresses:
                yield ip_network(address)
            self._bare_nodes.subtract(self._bare.pop(node.name, ()))
        if new is not None and new.is_ready and not new.is_deleted:
            has = {family_of(network) for network in new.pod_networks}
            if lacking := frozenset(Family) - has:
                self._bare[new.name] = lacking
                self._bare_nodes.update(lacking)

    def put_networks(
        self, source: str, networks: tuple[Network, ...] | None
    ) -> Iterator[Network]:
        """Take what *source* says is inside; yield as ``replace_node``."""
        for network in set(self._by_source.pop(source, ())):
            self._of_cluster.drop(network, source)
            self._count(network, -1)
            yield network
        if networks is not None:
            self._by_source[source] = networks
        for network in set(networks or ()):
            self._of_cluster.add(network, source)
            self._count(network, 1)
            yield network

    def place(self, address: Address, node: NodeName | None) -> bool:
        """
        Say on which *node* the pod with *address* is, None when no pod has it.

        Some plugins lend addresses of one node's network to another node's pods:
        these have entries of their own.  Return whether that entry may change.
        """
        held = None if node is None else self._nodes.get(node)
        is_outside = node is not None and not any(
            address in network for network in (held.pod_networks if held else ())
        )
        if is_outside and node is not None:
            self._outside[address] = node
        elif not self._outside or self._outside.pop(address, None) is None:
            return False
        return True

    def entry(self, network: Network) -> IpcacheEntry | None:
        """Return what *network* is, None when nothing special."""
        if network.prefixlen == network.max_prefixlen:
            address = network.network_address
            if names := self._nodes.claimants(address):
                first = min(names)
                identity = HOST if first == self._node else REMOTE_NODE
                return IpcacheEntry(identity, self._endpoint(first))
            if address in self._outside:
                return IpcacheEntry(CLUSTER, self._endpoint(self._outside[address]))
        if names := self._of_pods.of(network):
            return IpcacheEntry(CLUSTER, self._endpoint(min(names)))
        if network in self._of_cluster:
            return IpcacheEntry(CLUSTER, None)
        return IpcacheEntry(WORLD, None) if network in EVERYTHING else None

    def believed(self, address: Address) -> NodeEntry | None:
        """Return the entry of a tunnel source: any address of another node."""
        names = self._nodes.claimants(address)
        return NodeEntry() if any(name != self._node for name in names) else None

    def strangers(self, pods: Iterable[Address]) -> list[Address]:
        """
        Return the *pods* that only their own entry tells from the world, in order.

        A pod that is still unknown there is not taken for one.
        """
        found = [pod for pod in pods if not self._pods_and_cluster.has(pod)]
        return sorted(found, key=lambda pod: (pod.version, pod))

    def has_unclear_networks(self, pods: Iterable[Address]) -> bool:
        """
        Return whether pods of other nodes may be where nobody says that pods are.

        So it is when nodes have no pod networks of a family that *pods*, this node's
        own, have; unless these show that the networks of the cluster say it.
        """
        families = {family_of(pod) for pod in pods if not self._cluster.has(pod)}
        return any(self._bare_nodes[family] for family in families)

    def _count(self, network: Network, count: int) -> None:
        self._cluster.add(network, count)
        self._pods_and_cluster.add(network, count)

    def _endpoint(self, name: NodeName) -> Address | None:
        """Return where packets to a node are tunnelled; None for this one."""
        node = None if name == self._node else self._nodes.get(name)
        return node.tunnel_endpoint if node is not None else None
