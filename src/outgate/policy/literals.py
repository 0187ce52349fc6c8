"""
IP networks and addresses as users write them -> values, or what is wrong with them.

What it is: the one reader of CIDRs and addresses in policies and facts files.  Both
families, any spelling of an IPv6 address; everything that means something else than
it seems to is refused with the mend.

What it is not: a judge of what a network may be used for; ``compile`` knows which
ones no router forwards.
"""

from ipaddress import (
    IPv4Network,
    IPv6Address,
    ip_address,
    ip_interface,
    ip_network,
)

from outgate.policy.fields import Field
from outgate.state.entries import Address, Network

IPV4_MAPPED = ip_network("::ffff:0:0/96")
"""IPv6 addresses that stand for IPv4 ones inside programs (RFC 4291, 2.5.5.2)."""


def parse_network(field: Field) -> Network | None:
    """
    Read one CIDR of either family, in any spelling of its address.

    Host bits are refused, not cut off as Go's ``net.ParseCIDR`` does: who writes
    10.0.0.1/8 meant a /32 or a typing error, and a wider match is a wrong source
    address for somebody.
    """
    text = field.text()
    if text is None:
        return None
    if plain := _plain_ipv4(text):
        return plain
    try:
        interface = ip_interface(text)
    except ValueError:
        examples = "203.0.113.0/24 or 2001:db8::/32"
        field.refuse(f"{text!r} is no IP network; write it like {examples}")
        return None
    network = interface.network
    if text.partition("/")[2] != str(network.prefixlen):
        field.refuse(f"{text!r} has no plain prefix length; did you mean {network}?")
    elif _is_odd_ipv6(field, text, interface.ip, network.prefixlen):
        return None
    elif interface.ip != network.network_address:
        field.refuse(f"{text!r} has host bits set; did you mean {network}?")
    else:
        return network
    return None


def _plain_ipv4(text: str) -> IPv4Network | None:
    """Return what nearly all networks are, fast: there may be a hundred thousand."""
    try:
        network = IPv4Network(text)
    except ValueError:
        return None
    return network if text.endswith(f"/{network.prefixlen}") else None


def parse_networks(field: Field) -> tuple[Network, ...]:
    """Read a list of CIDRs; what is wrong goes to the field's problems."""
    networks = [parse_network(item) for item in field.items()]
    return tuple(network for network in networks if network is not None)


def parse_address(field: Field) -> Address | None:
    """Read one IP address."""
    text = field.text()
    return None if text is None else read_address(field, text)


def read_address(field: Field, text: str) -> Address | None:
    """Read *text*, which is what of *field* should be an address."""
    try:
        address = ip_address(text)
    except ValueError:
        examples = "203.0.113.7 or 2001:db8::7"
        field.refuse(f"{text!r} is no IP address; write it like {examples}")
        return None
    if _is_odd_ipv6(field, text, address, address.max_prefixlen):
        return None
    return address


def _is_odd_ipv6(field: Field, text: str, address: Address, prefix_len: int) -> bool:
    """Refuse an IPv6 spelling that means something else than an IPv6 address."""
    if "%" in text:
        field.refuse(f"{text!r} has a zone, which means something on one node only")
        return True
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if mapped is None or prefix_len < IPV4_MAPPED.prefixlen:
        return False
    mend = IPv4Network((mapped, prefix_len - IPV4_MAPPED.prefixlen), strict=False)
    shown = mapped if prefix_len == address.max_prefixlen else mend
    field.refuse(f"{text!r} is an IPv4 address written as IPv6; did you mean {shown}?")
    return True
