"""
Reads frames for the model: TCP, UDP, SCTP, ICMP and ICMPv6, and what errors quote.

Pure, like :mod:`bpf.model.headers`.  The size of an address is the family's only trace
in a tuple.  What becomes of a frame is :mod:`bpf.model.rewrite`'s business.
"""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from bpf.model.headers import (
    ETHERNET_SIZE,
    ICMP,
    SCTP,
    TCP,
    UDP,
    Header,
    Layout,
    Part,
    layout_of,
    read_header,
    word,
)

FIN, SYN, RST, ACK = 1, 2, 4, 16
ICMP_SIZE = 8
QUOTED = 8
"""Bytes after the quoted IP header that every ICMP error holds."""

TRANSPORTS = {TCP: 20, UDP: 8, SCTP: 12}
"""By protocol: the bytes of its header that are read."""

CHECKSUMS = {TCP: 16, UDP: 6}
"""Where they lie in a header; ICMP's is at 2, SCTP's knows no addresses."""

Tuple = tuple[bytes, bytes, int, int, int]
"""Source, destination, their ports (host order), protocol."""


class Kind(Enum):
    """What a frame is, as far as a gateway cares."""

    OTHER = "no IP"
    HEADLESS = "IP, and who talks to whom cannot be told"
    BROKEN = "addresses are there, the rest is cut short"
    FLOW = "TCP, UDP, SCTP or echo with all its ports"
    FRAGMENT = "a part of a datagram without its ports"
    ERROR = "an ICMP error; the flow is in its quote"
    ICMP = "ICMP other than echo and errors"
    PROTOCOL = "another protocol"


@dataclass(frozen=True, slots=True)
class Read:
    """
    One frame as read; *tuple* is None when there are no addresses.

    *room* is what the IP header and the frame leave for the transport, in bytes.
    """

    kind: Kind
    header: Header | None = None
    tuple: Tuple | None = None
    room: int = 0
    flags: int = 0
    is_echo_request: bool = False

    @property
    def is_syn(self) -> bool:
        """A TCP segment that opens a connection."""
        return self.flags & (SYN | ACK) == SYN

    @property
    def is_accept(self) -> bool:
        """A TCP segment that accepts a connection."""
        return self.flags & (SYN | ACK) == SYN | ACK

    @property
    def hops(self) -> int:
        """How far it may still travel."""
        return self.header.hops if self.header else 0

    @property
    def l4(self) -> int:
        """Offset of the transport header."""
        return self.header.l4 if self.header else 0


@dataclass(frozen=True, slots=True)
class Quote:
    """
    What an ICMP error quotes; *kind* is ERROR where it names a flow.

    *ip* and *l4* are offsets in the frame; *checksum* likewise, None where the quote
    ends before it.  *identifier* is the quoted datagram's; *is_later*: the quote is of
    a part without ports.
    """

    kind: Kind
    tuple: Tuple | None = None
    ip: int = 0
    l4: int = 0
    checksum: int | None = None
    identifier: int = 0
    is_later: bool = False


def reverse(key: Tuple) -> Tuple:
    """Return the tuple of the other direction."""
    source, destination, source_port, destination_port, protocol = key
    return destination, source, destination_port, source_port, protocol


def family(frame: bytes) -> str:
    """Return the name of the family that a frame claims to be of."""
    layout = layout_of(frame)
    return layout.name if layout else "other"


@lru_cache(8)
def read(frame: bytes) -> Read:
    """Read the headers of *frame*."""
    layout = layout_of(frame)
    if layout is None:
        return Read(Kind.OTHER)
    header = read_header(frame, ETHERNET_SIZE, layout)
    if header is None:
        return Read(Kind.HEADLESS)
    seen = _read_l4(frame, header)
    if header.part is Part.FIRST and seen.kind is Kind.ERROR:
        # An error fits one packet (RFC 1812, 4.3.2.3; RFC 4443, 2.4).
        return Read(Kind.ICMP, header, seen.tuple, seen.room)
    return seen


def _read_l4(frame: bytes, header: Header) -> Read:
    l4, protocol, layout = header.l4, header.protocol, header.layout
    bare: Tuple = (header.source, header.destination, 0, 0, protocol)
    room = min(len(frame) - l4, header.declared)
    if header.part is Part.LATER:
        return Read(Kind.FRAGMENT, header, bare, room)
    is_icmp = protocol == layout.icmp
    if not is_icmp and protocol not in TRANSPORTS:
        return Read(Kind.PROTOCOL, header, bare, room)
    if room < TRANSPORTS.get(protocol, ICMP_SIZE):
        return Read(Kind.BROKEN, header, bare, room)
    if is_icmp and frame[l4] in layout.errors:
        return Read(Kind.ERROR, header, bare, room)
    ports = _ports(frame, l4, protocol, layout)
    if ports is None:
        return Read(Kind.ICMP, header, bare, room)
    key = (header.source, header.destination, *ports, protocol)
    flags = frame[l4 + 13] if protocol == TCP else 0
    is_request = is_icmp and frame[l4] == layout.echo
    return Read(Kind.FLOW, header, key, room, flags, is_request)


def _ports(
    frame: bytes, l4: int, protocol: int, layout: Layout
) -> tuple[int, int] | None:
    """Return the ports; None for ICMP other than echo."""
    if protocol != layout.icmp:
        return word(frame, l4), word(frame, l4 + 2)
    if frame[l4] == layout.echo:
        return word(frame, l4 + 4), 0
    return (0, word(frame, l4 + 4)) if frame[l4] == layout.echo_reply else None


def read_quote(frame: bytes, seen: Read) -> Quote:
    """Read what an ICMP error of kind ERROR quotes."""
    assert seen.header
    ip, layout = seen.l4 + ICMP_SIZE, seen.header.layout
    header = read_header(frame, ip, layout)
    if header is None or header.source != seen.header.destination:
        return Quote(Kind.BROKEN)
    room = seen.room - ICMP_SIZE - (header.l4 - ip)
    if room < QUOTED:
        return Quote(Kind.BROKEN)
    protocol, l4 = header.protocol, header.l4
    if header.part is Part.LATER:
        key = (header.source, header.destination, 0, 0, protocol)
        return Quote(Kind.FRAGMENT, key, ip, l4, None, header.identifier, True)
    if protocol != layout.icmp and protocol not in TRANSPORTS:
        return Quote(Kind.PROTOCOL)
    ports = _ports(frame, l4, protocol, layout)
    if ports is None:
        return Quote(Kind.ICMP)
    at = checksum_at(protocol, l4)
    if protocol == TCP and min(room, header.declared) < CHECKSUMS[TCP] + 2:
        at = None
    pair = header.source, header.destination
    return Quote(Kind.ERROR, (*pair, *ports, protocol), ip, l4, at)


def checksum_at(protocol: int, l4: int) -> int | None:
    """Return where a transport checksum lies that knows of addresses or ports."""
    return None if protocol == SCTP else l4 + CHECKSUMS.get(protocol, 2)


def has_pseudo_header(protocol: int) -> bool:
    """Tell whether a protocol's checksum covers the addresses."""
    return protocol not in (ICMP, SCTP)


def checksum(data: bytes) -> int:
    """Return the Internet checksum of *data* (RFC 1071); 0 when it holds its own."""
    total = int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF
    return 0xFFFF - (total or (0xFFFF if any(data) else 0))


def pseudo_header(source: bytes, destination: bytes, size: int, protocol: int) -> bytes:
    """Return what a checksum covers beside its packet (RFC 9293, 3.1; 8200, 8.1)."""
    if not has_pseudo_header(protocol):
        return b""
    return source + destination + size.to_bytes(4, "big") + protocol.to_bytes(4, "big")
