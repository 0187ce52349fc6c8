"""
What the control plane told a node, asked the way a person would ask it.

Built from the very entries that :meth:`bpf.harness.Node.put` writes, by plain search
for the longest prefix: no trie, no key format.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network

from outgate.state.entries import (
    CLUSTER,
    REMOTE_NODE,
    WORLD,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
    IpcacheEntry,
    IpcacheKey,
    Key,
    NodeKey,
    PolicyEntry,
    PolicyKey,
    Value,
)

STAYS_HERE = [
    IPv4Network(text)
    for text in ("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32")
]
CACHE_SIZE = 1 << 16


class Rules:
    """The rows of one node; addresses are bytes in network order."""

    def __init__(self, entries: Mapping[Key, Value]) -> None:
        self.entries = dict(entries)
        self._identities: dict[bytes, IpcacheEntry | None] = {}
        self._rows: dict[tuple[bytes, bytes], PolicyEntry | None] = {}
        self._covered: dict[bytes, int] = {}

    def change(self, key: Key, value: Value | None) -> None:
        """Write one row, or remove it."""
        if value is None:
            self.entries.pop(key, None)
        else:
            self.entries[key] = value
        self._forget()

    def _forget(self) -> None:
        self._identities.clear()
        self._rows.clear()
        self._covered.clear()

    def _identity(self, address: bytes) -> IpcacheEntry | None:
        if address not in self._identities:
            if len(self._identities) > CACHE_SIZE:
                self._forget()
            at, best, found = IPv4Address(address), -1, None
            for key, value in self.entries.items():
                if isinstance(key, IpcacheKey) and isinstance(value, IpcacheEntry):
                    network = key.network
                    if at in network and network.prefixlen > best:
                        best, found = network.prefixlen, value
            self._identities[address] = found
        return self._identities[address]

    def _row(self, source: bytes, destination: bytes) -> PolicyEntry | None:
        pair = source, destination
        if pair not in self._rows:
            if len(self._rows) > CACHE_SIZE:
                self._forget()
            pod, to, best, found = (
                IPv4Address(source),
                IPv4Address(destination),
                -1,
                None,
            )
            for key, value in self.entries.items():
                if isinstance(key, PolicyKey) and key.source == pod:
                    network = key.destination
                    if to in network and network.prefixlen > best:
                        best, found = network.prefixlen, value
            self._rows[pair] = found  # type: ignore[assignment]
        return self._rows[pair]

    def is_cluster(self, destination: bytes) -> bool:
        """Part of the cluster, or never routed: never goes through a gateway."""
        at, entry = IPv4Address(destination), self._identity(destination)
        if any(at in network for network in STAYS_HERE):
            return True
        return entry is not None and entry.identity != WORLD

    def covering(self, source: bytes, destination: bytes) -> PolicyEntry | None:
        """Return the row that must be obeyed for this pair."""
        row = self._row(source, destination)
        if row is None or isinstance(row, Excluded) or self.is_cluster(destination):
            return None
        return row

    def unknown_pod_policy(
        self, source: bytes, destination: bytes, *, local_only: bool
    ) -> int:
        """Return the policy for which a pod that nobody knows yet must wait, or 0."""
        entry = self._identity(source)
        if entry is None or entry.identity != CLUSTER:
            return 0
        if local_only and entry.tunnel_endpoint:
            return 0
        return 0 if self.is_cluster(destination) else self._first_policy(destination)

    def _first_policy(self, destination: bytes) -> int:
        if destination not in self._covered:
            to, best, found = IPv4Address(destination), -1, 0
            for key, value in self.entries.items():
                if isinstance(key, CoveredKey) and isinstance(value, CoveredEntry):
                    network = key.network
                    if to in network and network.prefixlen > best:
                        best, found = network.prefixlen, value.policy
            self._covered[destination] = found
        return self._covered[destination]

    def endpoint(self, address: bytes) -> EndpointEntry | None:
        """Return what lives on this node under *address*."""
        value = self.entries.get(EndpointKey(IPv4Address(address)))
        return value if isinstance(value, EndpointEntry) else None

    def is_pod(self, address: bytes) -> bool:
        """A pod of this node."""
        endpoint = self.endpoint(address)
        return endpoint is not None and bool(endpoint.flags & EndpointFlag.POD)

    def is_host(self, address: bytes) -> bool:
        """An address of this node itself."""
        endpoint = self.endpoint(address)
        return endpoint is not None and bool(endpoint.flags & EndpointFlag.HOST)

    def is_same_node(self, one: bytes, other: bytes) -> bool:
        """Tell whether both addresses are of one other node."""
        if one == other:
            return True
        first, second = self._identity(one), self._identity(other)
        return (
            first is not None
            and second is not None
            and first.identity == second.identity == REMOTE_NODE
            and first.tunnel_endpoint is not None
            and first.tunnel_endpoint == second.tunnel_endpoint
        )

    def holds(self, node: bytes, pod: bytes) -> bool:
        """Tell whether *pod* is of the node that tunnels as *node*."""
        entry = self._identity(pod)
        if entry is None or entry.identity != CLUSTER or not entry.tunnel_endpoint:
            return False
        return self.is_same_node(entry.tunnel_endpoint.packed, node)

    def is_node(self, address: bytes) -> bool:
        """A node whose tunnelled packets are believed."""
        return NodeKey(IPv4Address(address)) in self.entries
