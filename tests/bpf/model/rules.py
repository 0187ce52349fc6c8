"""
What the control plane told a node, asked the way a person would ask it.

Built from the very entries that :meth:`bpf.harness.Node.put` writes, by plain search
for the longest prefix: no trie, no key format.
"""

from functools import lru_cache
from ipaddress import ip_network

from bpf.world import Rows
from outgate.kernel.layouts import address as address_of
from outgate.state.entries import (
    CLUSTER,
    HOST,
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
    ViaGateway,
)

STAYS_HERE = [
    ip_network(text)
    for text in (
        *("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32"),
        *("::/127", "fe80::/10", "ff00::/8"),
    )
]
MAPPED = bytes(10) + b"\xff\xff"
CACHE_SIZE = 1 << 16

address = lru_cache(1 << 12)(address_of)


def plain(packed: bytes) -> bytes:
    """Return an IPv4 address in IPv6's clothes (::ffff:a.b.c.d) as what it is."""
    return packed[12:] if packed[:12] == MAPPED else packed


def egress_ip_of(row: ViaGateway) -> bytes:
    """Return the egress IP of a row; those of a gateway have one."""
    assert row.egress_ip
    return row.egress_ip.packed


def stays_here(packed: bytes) -> bool:
    """Loopback, link-local, multicast, broadcast: never routed, nobody means them."""
    return any(address(packed) in network for network in STAYS_HERE)


class Rules:
    """The rows of one node; addresses are bytes in network order."""

    def __init__(self, entries: Rows) -> None:
        self.entries = dict(entries)
        self._identities: dict[bytes, IpcacheEntry | None] = {}
        self._rows: dict[tuple[bytes, bytes], PolicyEntry | None] = {}
        self._covered: dict[bytes, int] = {}

    def replace(self, entries: Rows) -> None:
        """Have other rows."""
        self.entries = dict(entries)
        self._forget()

    def change(self, key: Key | PolicyKey, value: Value | PolicyEntry | None) -> None:
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

    def _identity(self, packed: bytes) -> IpcacheEntry | None:
        if packed not in self._identities:
            if len(self._identities) > CACHE_SIZE:
                self._forget()
            at, best, found = address(plain(packed)), -1, None
            for key, value in self.entries.items():
                if isinstance(key, IpcacheKey) and isinstance(value, IpcacheEntry):
                    network = key.network
                    if at in network and network.prefixlen > best:
                        best, found = network.prefixlen, value
            self._identities[packed] = found
        return self._identities[packed]

    def _row(self, source: bytes, destination: bytes) -> PolicyEntry | None:
        pair = source, destination
        if pair not in self._rows:
            if len(self._rows) > CACHE_SIZE:
                self._forget()
            pod, to, best, found = address(source), address(destination), -1, None
            for key, value in self.entries.items():
                if isinstance(key, PolicyKey) and key.source == pod:
                    network = key.destination
                    if to in network and network.prefixlen > best:
                        best, found = network.prefixlen, value
            self._rows[pair] = found  # type: ignore[assignment]
        return self._rows[pair]

    def is_cluster(self, destination: bytes) -> bool:
        """Part of the cluster, or never routed: never goes through a gateway."""
        return stays_here(destination) or self.is_inside(destination)

    def is_inside(self, destination: bytes) -> bool:
        """Part of the cluster, and routed: it may be a Service that leads outside."""
        entry = self._identity(destination)
        is_known = entry is not None and entry.identity != WORLD
        return is_known and not stays_here(destination)

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
            to, best, found = address(destination), -1, 0
            for key, value in self.entries.items():
                if isinstance(key, CoveredKey) and isinstance(value, CoveredEntry):
                    network = key.network
                    if to in network and network.prefixlen > best:
                        best, found = network.prefixlen, value.policy
            self._covered[destination] = found
        return self._covered[destination]

    def endpoint(self, packed: bytes) -> EndpointEntry | None:
        """Return what lives on this node under this address."""
        value = self.entries.get(EndpointKey(address(plain(packed))))
        return value if isinstance(value, EndpointEntry) else None

    def is_pod(self, packed: bytes) -> bool:
        """A pod of this node."""
        endpoint = self.endpoint(packed)
        return endpoint is not None and bool(endpoint.flags & EndpointFlag.POD)

    def is_host(self, packed: bytes) -> bool:
        """An address of this node itself."""
        endpoint = self.endpoint(packed)
        return endpoint is not None and bool(endpoint.flags & EndpointFlag.HOST)

    def is_of_node(self, packed: bytes) -> bool:
        """An address of any node, this one included."""
        entry = self._identity(packed)
        is_listed = entry is not None and entry.identity in (HOST, REMOTE_NODE)
        return is_listed or self.is_host(packed)

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

    def is_node(self, packed: bytes) -> bool:
        """A node whose tunnelled packets are believed."""
        return NodeKey(address(packed)) in self.entries
