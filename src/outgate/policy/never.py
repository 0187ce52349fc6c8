"""
Addresses that never enter a gateway, whatever a policy says.

What it is: the same list as ``is_never_gatewayed()`` in ``bpf/include/address.h``.
"""

from ipaddress import ip_network

from outgate.state.entries import Address, Network

NEVER_ROUTED = tuple(
    ip_network(text)
    for text in (
        *("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32"),
        *("fe80::/10", "ff00::/8", "::1/128"),
    )
)
"""
Addresses of a link, of groups and of the host itself.

They are in no row: the datapath leaves them alone, because neighbour discovery and
the like live on them.
"""

_RANGES = {
    version: tuple(
        (of.prefixlen, int(of.netmask), int(of.network_address))
        for of in NEVER_ROUTED
        if of.version == version
    )
    for version in (4, 6)
}


def is_never_routed(network: Network) -> bool:
    """Return whether all of *network* is ``NEVER_ROUTED``."""
    first, length = int(network.network_address), network.prefixlen
    for prefix, mask, start in _RANGES[network.version]:
        if first & mask == start and length >= prefix:
            return True
    return False


def is_of_one_link(address: Address) -> bool:
    """Return whether nobody beyond the link could answer to *address*."""
    return address.is_link_local or address.is_loopback or address.is_multicast
