"""
Entries about addresses: what is inside the cluster, and what lives on this node.

What it is: ``cilium_ipcache``, ``outgate_node_v4`` (and ``_v6``) and ``cilium_lxc`` of
one node.
What it is not: policies; only ``endpoint_entries`` is told which addresses are
egress IPs here.
"""

from collections.abc import Iterable, Mapping, Set
from ipaddress import ip_network

from outgate.policy.model import Cluster, Endpoint, Namespace, Node
from outgate.state.entries import (
    CLUSTER,
    HOST,
    REMOTE_NODE,
    WORLD,
    Address,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    IpcacheEntry,
    IpcacheKey,
    Key,
    Network,
    NodeEntry,
    NodeKey,
    NodeName,
    Value,
)
from outgate.state.facts import NodeFacts
from outgate.state.snapshot import Snapshot

Holders = Mapping[Address, Endpoint]

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))

NEVER_ROUTED = (
    ip_network("fe80::/10"),
    ip_network("ff00::/8"),
    ip_network("::1/128"),
)
"""
IPv6 addresses of a link, of groups and of the host itself.

They are in no row: the datapath leaves them alone whatever a policy says, because
neighbour discovery lives on them.
"""


def is_never_routed(network: Network) -> bool:
    """Return whether all of *network* is ``NEVER_ROUTED``."""
    return network.version == 6 and any(
        network.network_address in of and network.prefixlen >= of.prefixlen
        for of in NEVER_ROUTED
    )


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


def node_entries(cluster: Cluster, node: NodeName) -> dict[Key, Value]:
    """Return the tunnel sources that *node* believes: every other node."""
    return {
        NodeKey(address): NodeEntry()
        for other in cluster.nodes
        if other.name != node
        for address in other.addresses
    }


def ipcache_entries(
    cluster: Cluster, node: NodeName, holders: Holders
) -> dict[Key, Value]:
    """
    Return what each network is to a packet from *node*.

    Later kinds overwrite earlier ones with the same prefix: a node's address is a
    node's even if somebody calls it a pod's.
    """
    nodes = sorted(cluster.nodes, key=lambda other: other.name, reverse=True)
    endpoints = {n.name: n.tunnel_endpoint for n in nodes if n.name != node}
    entries: dict[Network, IpcacheEntry] = {
        network: IpcacheEntry(WORLD, None) for network in EVERYTHING
    }
    for network in cluster.cluster_networks:
        entries[network] = IpcacheEntry(CLUSTER, None)
    for other in nodes:
        for network in other.pod_networks:
            entries[network] = IpcacheEntry(CLUSTER, endpoints.get(other.name))
    for address, pod in _outside(holders, nodes):
        entries[ip_network(address)] = IpcacheEntry(CLUSTER, endpoints.get(pod.node))
    for other in nodes:
        identity = HOST if other.name == node else REMOTE_NODE
        for address in other.addresses:
            entry = IpcacheEntry(identity, endpoints.get(other.name))
            entries[ip_network(address)] = entry
    return {IpcacheKey(network): entry for network, entry in entries.items()}


def _outside(holders: Holders, nodes: Iterable[Node]) -> list[tuple[Address, Endpoint]]:
    """
    Return the pods whose address lies in no pod network of their own node.

    Some plugins lend addresses of one node's network to another node's pods.
    """
    known = _Networks((net, node.name) for node in nodes for net in node.pod_networks)
    return [
        (address, pod)
        for address, pod in holders.items()
        if not known.has(address, pod.node)
    ]


def strangers(cluster: Cluster, pods: Iterable[Address]) -> list[Address]:
    """
    Return the *pods* that only their own entry tells from the world, in order.

    A pod that is still unknown there is not taken for one.
    """
    of_pods = (net for node in cluster.nodes for net in node.pod_networks)
    known = _Networks((net, None) for net in (*cluster.cluster_networks, *of_pods))
    found = [address for address in pods if not known.has(address, None)]
    return sorted(found, key=lambda address: (address.version, address))


class _Networks:
    """Networks with their owners, asked often: by mask, not one after the other."""

    def __init__(self, owned: Iterable[tuple[Network, NodeName | None]]) -> None:
        self._known = {
            (net.version, int(net.network_address), int(net.netmask), owner)
            for net, owner in owned
        }
        self._masks = {(version, mask) for version, _, mask, _ in self._known}

    def has(self, address: Address, owner: NodeName | None) -> bool:
        """Return whether *address* is in a network of *owner*."""
        return any(
            (version, int(address) & mask, mask, owner) in self._known
            for version, mask in self._masks
            if version == address.version
        )


def endpoint_entries(
    own_addresses: Set[Address],
    egress_ips: Set[Address],
    pods: Iterable[Address],
    other_family: Set[Address],
    selected: Set[Address],
) -> dict[Key, Value]:
    """
    Return who lives on this node: *pods*, and the host, which wins a conflict.

    *other_family* and *selected* as in ``rows.CompiledRows``.
    """
    entries: dict[Key, Value] = {
        EndpointKey(pod): EndpointEntry(
            EndpointFlag.POD,
            is_other_family=pod in other_family,
            is_selected=pod in selected,
        )
        for pod in pods
    }
    for address in own_addresses:
        entries[EndpointKey(address)] = EndpointEntry(
            EndpointFlag.HOST, is_egress_ip=address in egress_ips
        )
    return entries


def local_pods(
    node: NodeName, holders: Holders, namespaces: Mapping[str, Namespace]
) -> list[Address]:
    """
    Return the pod addresses of *node* whose namespace is known.

    Without the namespace's labels nobody can say whether a policy covers the pod;
    left out, it is unknown to the datapath, which drops its covered packets.
    """
    return [
        address
        for address, pod in holders.items()
        if pod.node == node and pod.namespace in namespaces
    ]
