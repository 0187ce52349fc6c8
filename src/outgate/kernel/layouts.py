"""
The layouts of rows: one format per structure of ``bpf/include/types.h`` and family.

The one place that knows byte order.  In the formats ``=`` means host order without
padding of its own; ``A`` is an address of the family, ``2s`` a port, and both stay
in network order (``__be32``, ``__be16``), because addresses and ports are made from
bytes.  A test reads the header and compares every offset.

Not here: what rows mean (``kernel.maps`` for those that a plan writes,
``kernel.records`` for those that programs write).  Pure.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from struct import Struct

from outgate.state.entries import Address, Family, Network, family_of

ADDRESS_SIZES = {Family.V4: 4, Family.V6: 16}

Layout = Mapping[Family, Struct]


def _both(form: str) -> Layout:
    return {
        family: Struct("=" + form.replace("A", f"{size}s"))
        for family, size in ADDRESS_SIZES.items()
    }


EGRESS_KEY = _both("I A A")
EGRESS_VALUE = _both("A A I B 3x")
SOURCE_KEY = _both("A")
SOURCE_VALUE = _both("A I")
SET_KEY = _both("I I A")
SET_NUMBER = Struct("=I")
NETWORK_KEY = _both("I A")
COVERED_VALUE = Struct("=I")
NODE_KEY = _both("A")
NODE_VALUE = Struct("=I")

ENDPOINT_KEY = Struct("=16s B 3x")
ENDPOINT = Struct("=I I I I 32x")
ENDPOINT_INTERFACE = Struct("=I")
"""The first field, which programs write."""

IPCACHE_KEY = Struct("=I 3x B 16s")
IPCACHE_VALUE = Struct("=I 16s 2x B B")
"""Of both families: the shorter address stands first in its field, zeroes follow."""

TUPLE = _both("A A 2s 2s B B 2x")
FLOW = _both("B B H I A A I 6s 6s Q")
NAT: Layout = {
    Family.V4: Struct("=4s 2s B B 4s I I 4s H H 6s 6s I 4x Q"),
    Family.V6: Struct("=16s 2s B B 16s I I 16s H H 6s 6s I Q"),
}
PORTS_KEY = _both("A A 2s H H B x")
PORTS_VALUE = Struct("=8192s I 4x Q")
FRAGMENT_KEY = _both("A A 4s B 3x")
FRAGMENT_VALUE = Struct("=2s 2s B B B x Q")
COLLECTOR = Struct("=16x Q Q Q Q")
"""Behind the kernel's timer, which nobody may read: its 16 bytes are zero."""
EVENT = Struct("=Q B B B B I 16s 16s 16s 2s 2s 2s B B")
METRIC_KEY = Struct("=B B 2x I")
METRIC_VALUE = Struct("=Q Q")
FORWARDED_VALUE = Struct("=I 4x Q Q Q Q")
FREE_KEY = Struct("=I")
FREE_VALUE = Struct("=Q")
XDP_PROGRAM = Struct("=I")
"""Both key and value of ``outgate_xdp``: which program, and its file descriptor."""
XDP_DEVICE_KEY = Struct("=I")
XDP_DEVICE = Struct("=I B 3x")

FAMILY_NUMBERS = {Family.V4: 1, Family.V6: 2}
"""What the field ``family`` of keys of both families holds."""

_FAMILIES = {number: family for family, number in FAMILY_NUMBERS.items()}

_MAPPED = bytes(10) + b"\xff\xff"
"""What stands before an IPv4 address that fills an IPv6 field (RFC 4291, 2.5.5.2)."""


def pick(layout: Layout, row: bytes) -> Struct:
    """Return the format of *layout* that *row* fits; ValueError for none."""
    for form in layout.values():
        if form.size == len(row):
            return form
    raise ValueError(f"a row of {len(row)} bytes")


def address(packed: bytes) -> Address:
    """Return the address whose bytes these are, 4 or 16 of them."""
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def pack_endpoint(endpoint: Address | None, family: Family) -> bytes:
    """
    Return a tunnel endpoint as rows of *family* hold it; None is all zero.

    In an IPv6 row an IPv4 endpoint is v4-mapped.  ValueError for an IPv6 endpoint in
    an IPv4 row, which has no room for it.
    """
    if endpoint is None:
        return bytes(ADDRESS_SIZES[family])
    if family_of(endpoint) is family:
        return endpoint.packed
    if family is Family.V4:
        raise ValueError(f"an IPv4 row cannot hold the tunnel endpoint {endpoint}")
    return _MAPPED + endpoint.packed


def unpack_endpoint(packed: bytes) -> Address:
    """Return the endpoint in a field of a row; ``0.0.0.0`` or ``::`` is none."""
    if packed.startswith(_MAPPED):
        return IPv4Address(packed[len(_MAPPED) :])
    return address(packed)


def unpack_padded(packed: bytes, number: int) -> Address:
    """
    Return the address in a 16-byte field of a row of either family.

    Errors: ValueError for a family *number* that is none, or bytes behind an address.
    """
    if number not in _FAMILIES:
        raise ValueError(f"family {number}")
    size = ADDRESS_SIZES[_FAMILIES[number]]
    if any(packed[size:]):
        raise ValueError("bytes behind the address")
    return address(packed[:size])


def network_of(prefix_len: int, of: Address) -> Network:
    """Return a network; ValueError for a length or host bits that cannot be."""
    if isinstance(of, IPv4Address):
        return IPv4Network((of, prefix_len))
    return IPv6Network((of, prefix_len))
