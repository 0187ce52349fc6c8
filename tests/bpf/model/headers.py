"""
Reads IP headers for the model: RFC 791 and RFC 8200, extension headers included.

Pure, and independent of ``bpf/include``: written from the RFCs and from the rules in
``bpf/README.md``, so that a mistake in the C code is not repeated here.  Addresses are
bytes in network order.
"""

from dataclasses import dataclass
from enum import Enum

ETHERNET_SIZE = 14
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION)
MORE_FRAGMENTS, DONT_FRAGMENT, FRAGMENT_OFFSET = 0x2000, 0x4000, 0x1FFF
EXTENSIONS_AT_MOST, EXTENSION_BYTES = 6, 256
"""What is walked; what has more is of a protocol that nobody knows."""

MAPPED = bytes(10) + b"\xff\xff"
"""How an IPv4-mapped address begins: in an IPv6 header a contradiction."""

UNSAID = 1 << 32
"""Bytes of a packet too long for its header to say: as long as its frame."""


@dataclass(frozen=True, slots=True)
class Layout:
    """
    One IP family: where its header has what a gateway changes, and its ICMP's numbers.

    Offsets are from the header's start; *size* is the header's without options, *bits*
    an address's in bytes.
    """

    name: str
    version: int
    size: int
    address: int
    source: int
    destination: int
    hops: int
    checksum: int | None
    icmp: int
    echo: int
    echo_reply: int
    errors: tuple[int, ...]


V4 = Layout("IPv4", 4, 20, 4, 12, 16, 8, 10, ICMP, 8, 0, (3, 4, 11, 12))
V6 = Layout("IPv6", 6, 40, 16, 8, 24, 7, None, ICMPV6, 128, 129, (1, 2, 3, 4))
LAYOUTS = {b"\x08\x00": V4, b"\x86\xdd": V6}
"""By ethertype."""


class Part(Enum):
    """Which part of a datagram a packet is."""

    WHOLE = "all of it"
    FIRST = "its head, with the ports"
    LATER = "what follows the head"


@dataclass(frozen=True, slots=True)
class Header:
    """
    One IP header; *l4* is the offset of what follows it.

    *declared* is how many bytes follow as the header says, *identifier* tells
    fragments of one datagram from others.
    """

    layout: Layout
    source: bytes
    destination: bytes
    protocol: int
    l4: int
    declared: int
    hops: int
    part: Part
    identifier: int
    is_df: bool


def word(frame: bytes | bytearray, at: int) -> int:
    """Return two bytes in network order as a number."""
    return frame[at] << 8 | frame[at + 1]


def layout_of(frame: bytes) -> Layout | None:
    """Return the family that a frame claims to be of, None for neither."""
    return LAYOUTS.get(frame[12:14])


def read_header(frame: bytes, at: int, layout: Layout) -> Header | None:
    """Read the IP header at *at*; None where it is cut short or contradicts itself."""
    if len(frame) < at + layout.size or frame[at] >> 4 != layout.version:
        return None
    return _read_v4(frame, at) if layout is V4 else _read_v6(frame, at)


def _read_v4(frame: bytes, at: int) -> Header | None:
    size = (frame[at] & 15) * 4
    total = word(frame, at + 2) or UNSAID
    if size < 20 or total < size:
        return None
    place = word(frame, at + 6)
    part = Part.WHOLE
    if place & FRAGMENT_OFFSET:
        part = Part.LATER
    elif place & MORE_FRAGMENTS:
        part = Part.FIRST
    return Header(
        V4,
        *(frame[at + 12 : at + 16], frame[at + 16 : at + 20]),
        *(frame[at + 9], at + size, total - size, frame[at + 8]),
        part,
        word(frame, at + 4),
        bool(place & DONT_FRAGMENT),
    )


@dataclass(slots=True)
class _Walk:
    """Where a walk over extension headers has come to."""

    protocol: int
    at: int
    part: Part = Part.WHOLE
    identifier: int = 0


def _read_v6(frame: bytes, at: int) -> Header | None:
    declared = word(frame, at + 4) or UNSAID
    walk = _Walk(frame[at + 6], at + 40)
    if not _walk(frame, walk):
        return None
    left = declared - (walk.at - at - 40)
    source, destination = frame[at + 8 : at + 24], frame[at + 24 : at + 40]
    if left < 0 or MAPPED in (source[:12], destination[:12]):
        return None
    return Header(
        V6,
        *(source, destination),
        *(walk.protocol, walk.at, left, frame[at + 7]),
        walk.part,
        walk.identifier,
        True,
    )


def _walk(frame: bytes, walk: _Walk) -> bool:
    """Walk to the transport header; False where an extension is cut short."""
    start = walk.at
    for _ in range(EXTENSIONS_AT_MOST):
        if walk.protocol not in EXTENSIONS:
            return True
        if len(frame) < walk.at + 8:
            return False
        size, place = 8, word(frame, walk.at + 2)
        if walk.protocol == FRAGMENT:
            walk.identifier = int.from_bytes(frame[walk.at + 4 : walk.at + 8], "big")
            if place >> 3:
                walk.part = Part.LATER
            elif place & 1:
                walk.part = Part.FIRST
        elif walk.protocol == ROUTING and frame[walk.at + 3]:
            # It leads by other nodes first.
            return True
        else:
            size += frame[walk.at + 1] * 8
        if walk.at + size - start > EXTENSION_BYTES:
            return True
        walk.protocol = frame[walk.at]
        walk.at += size
        if walk.part is Part.LATER:
            return True
    return True
