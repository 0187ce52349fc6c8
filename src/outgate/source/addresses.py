"""
Addresses and networks as Kubernetes objects write them.

What it is: lenient; what cannot be read, or means nothing to others, is left out.
What it is not: the reader of what users write in policies (``policy.literals``).
"""

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address, ip_network

from outgate.state.entries import Address, Network


def read_addresses(texts: Iterable[str]) -> tuple[Address, ...]:
    """
    Return what can be read as an address that others reach.

    Left out, a pod's address is unknown to the datapath: what it sends to covered
    networks is dropped.
    """
    found = []
    for text in texts:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        if not (isinstance(address, IPv6Address) and _is_local_ipv6(address)):
            found.append(address)
    return tuple(found)


def _is_local_ipv6(address: IPv6Address) -> bool:
    """Return whether *address* means something on one link or one host only."""
    return (
        address.is_link_local
        or address.is_loopback
        or address.is_multicast
        or address.is_unspecified
        or address.scope_id is not None
        or address.ipv4_mapped is not None
    )


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    found: list[Network] = []
    for text in texts:
        try:
            found.append(ip_network(text, strict=False))
        except ValueError:
            continue
    return tuple(found)
