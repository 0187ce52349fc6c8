"""
What outer headers of the tunnel look like, from what is held: kept current row by row.

Programs are told what fits the tunnel whichever uplink its packets take, and which
IPv6 address of this node its peers believe (``kernel.settings.RuntimeConfig``).  Pure.
"""

from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv6Address

from outgate.state.entries import (
    HOST,
    Address,
    Family,
    IpcacheEntry,
    IpcacheKey,
    Value,
    family_of,
)
from outgate.state.facts import Link

TUNNEL_OVERHEAD = {Family.V4: 50, Family.V6: 70}
"""Bytes of outer IP, UDP, VXLAN and inner Ethernet headers (RFC 7348, section 5)."""


class Peers:
    """The nodes' addresses in ipcache: how many of each family, and which are ours."""

    def __init__(self) -> None:
        self._endpoints: Counter[Family] = Counter()
        self._own: Counter[Address] = Counter()

    def changed(
        self, key: IpcacheKey, before: Value | None, after: Value | None
    ) -> None:
        """Take note that *key* holds another entry."""
        for value, count in ((before, -1), (after, 1)):
            if isinstance(value, IpcacheEntry):
                self._count(key, value, count)

    def _count(self, key: IpcacheKey, value: IpcacheEntry, count: int) -> None:
        if value.identity == HOST:
            self._own[key.network.network_address] += count
        elif value.tunnel_endpoint:
            self._endpoints[family_of(value.tunnel_endpoint)] += count

    def mtu(self, uplinks: Iterable[Link]) -> int:
        """Return the largest packet that fits the tunnel over each of *uplinks*."""
        found = {family for family, count in self._endpoints.items() if count}
        overhead = max(TUNNEL_OVERHEAD[family] for family in {Family.V4, *found})
        return max(min((link.mtu for link in uplinks), default=0) - overhead, 0)

    def source(self, uplinks: Iterable[Link]) -> IPv6Address | None:
        """Return the lowest IPv6 address of the Node object that an uplink has."""
        found = [
            address
            for link in uplinks
            for address in link.addresses
            if isinstance(address, IPv6Address) and self._own[address] > 0
        ]
        return min(found, default=None)
