"""
Reads and rewrites frames for the model: RFC 791, 792, 768, 793 and 1624 in Python.

Pure, and independent of ``bpf/include``: written from the RFCs and from the rules in
``bpf/README.md``, so that a mistake in the C code is not repeated here.  Addresses are
bytes in network order; their size is the family's only trace.
"""

from dataclasses import dataclass
from enum import Enum

ETHERNET_SIZE = 14
ICMP, TCP, UDP = 1, 6, 17
ECHO_REPLY, ECHO = 0, 8
FIN, SYN, RST, ACK = 1, 2, 4, 16

Tuple = tuple[bytes, bytes, int, int, int]
"""Source, destination, their ports (host order), protocol."""


class Kind(Enum):
    """What a frame is, as far as a gateway cares."""

    OTHER = "not IPv4"
    HEADLESS = "IPv4, and who talks to whom cannot be told"
    BROKEN = "addresses are there, the rest is cut short"
    FLOW = "TCP, UDP or echo with all its ports"
    FRAGMENT = "a part of a datagram"
    ICMP = "ICMP other than echo"
    PROTOCOL = "another protocol"


@dataclass(frozen=True, slots=True)
class Read:
    """One frame as read; *tuple* is None when there are no addresses."""

    kind: Kind
    tuple: Tuple | None = None
    l4: int = 0
    ttl: int = 0
    flags: int = 0
    is_echo_request: bool = False

    @property
    def is_syn(self) -> bool:
        """A TCP segment that opens a connection."""
        return self.flags & (SYN | ACK) == SYN


def reverse(key: Tuple) -> Tuple:
    """Return the tuple of the other direction."""
    source, destination, source_port, destination_port, protocol = key
    return destination, source, destination_port, source_port, protocol


def _word(frame: bytes, at: int) -> int:
    return frame[at] << 8 | frame[at + 1]


def read(frame: bytes) -> Read:
    """Read the headers of *frame*."""
    if len(frame) < ETHERNET_SIZE or _word(frame, 12) != 0x0800:
        return Read(Kind.OTHER)
    if len(frame) < ETHERNET_SIZE + 20:
        return Read(Kind.HEADLESS)
    header = (frame[14] & 15) * 4
    total = _word(frame, 16) or 1 << 32
    if frame[14] >> 4 != 4 or header < 20 or total < header:
        return Read(Kind.HEADLESS)
    l4, protocol = ETHERNET_SIZE + header, frame[23]
    bare: Tuple = (frame[26:30], frame[30:34], 0, 0, protocol)
    if _word(frame, 20) & 0x3FFF:
        return Read(Kind.FRAGMENT, bare, l4, frame[22])
    room = min(len(frame) - l4, total - header)
    return _read_l4(frame, bare, l4, room)


def _read_l4(frame: bytes, bare: Tuple, l4: int, room: int) -> Read:
    source, destination, _, _, protocol = bare
    ttl = frame[22]
    needed = {TCP: 20, UDP: 8, ICMP: 8}.get(protocol)
    if needed is None:
        return Read(Kind.PROTOCOL, bare, l4, ttl)
    if room < needed:
        return Read(Kind.BROKEN, bare, l4, ttl)
    if protocol != ICMP:
        ports = _word(frame, l4), _word(frame, l4 + 2)
        flags = frame[l4 + 13] if protocol == TCP else 0
        return Read(Kind.FLOW, (source, destination, *ports, protocol), l4, ttl, flags)
    identifier = _word(frame, l4 + 4)
    if frame[l4] == ECHO:
        key = (source, destination, identifier, 0, protocol)
        return Read(Kind.FLOW, key, l4, ttl, is_echo_request=True)
    if frame[l4] == ECHO_REPLY:
        return Read(Kind.FLOW, (source, destination, 0, identifier, protocol), l4, ttl)
    return Read(Kind.ICMP, bare, l4, ttl)


def _mend(check: int, old: bytes, new: bytes) -> int:
    """Return *check* after *old* became *new* (RFC 1624, equation 3)."""
    total = ~check & 0xFFFF
    for at in range(0, len(old), 2):
        total += (~_word(old, at) & 0xFFFF) + _word(new, at)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def checksum_at(seen: Read) -> int:
    """Return where the checksum of the transport header lies."""
    assert seen.tuple
    return seen.l4 + {TCP: 16, UDP: 6, ICMP: 2}[seen.tuple[4]]


def translate(
    frame: bytes, seen: Read, *, at_source: bool, address: bytes, port: int, hops: int
) -> bytes:
    """Return *frame* with its source (or destination) translated, *hops* further."""
    assert seen.tuple
    protocol, out = seen.tuple[4], bytearray(frame)
    at = 26 if at_source else 30
    port_at = seen.l4 + (4 if protocol == ICMP else 0 if at_source else 2)
    out[at : at + 4] = address
    out[port_at : port_at + 2] = port.to_bytes(2, "big")
    out[22] -= hops
    header = _mend(_word(frame, 24), frame[22:24], bytes(out[22:24]))
    header = _mend(header, frame[at : at + 4], address)
    out[24:26] = header.to_bytes(2, "big")

    check_at = checksum_at(seen)
    check = _word(frame, check_at)
    if protocol == UDP and not check:
        return bytes(out)
    if protocol != ICMP:
        check = _mend(check, frame[at : at + 4], address)
    check = _mend(check, frame[port_at : port_at + 2], port.to_bytes(2, "big"))
    if protocol == UDP:
        check = check or 0xFFFF
    out[check_at : check_at + 2] = check.to_bytes(2, "big")
    return bytes(out)


def is_same(expected: bytes, actual: bytes, seen: Read) -> bool:
    """
    Tell whether two translated frames mean the same.

    A sum of zero may be written as 0 and as 0xffff, which only a wrong checksum going
    in can bring about; a UDP checksum of 0 would mean "none" and is told apart.
    """
    if expected == actual:
        return True
    assert seen.tuple
    places = [24] if seen.tuple[4] == UDP else [24, checksum_at(seen)]
    return _plain(expected, places) == _plain(actual, places)


def _plain(frame: bytes, places: list[int]) -> bytes:
    plain = bytearray(frame)
    for at in places:
        if plain[at : at + 2] == b"\xff\xff":
            plain[at : at + 2] = bytes(2)
    return bytes(plain)


def has_right_checksums(frame: bytes) -> bool:
    """Verify the checksums of a whole TCP, UDP or echo packet, by adding all up."""
    seen = read(frame)
    assert seen.tuple
    source, destination, _, _, protocol = seen.tuple
    segment = frame[seen.l4 : ETHERNET_SIZE + _word(frame, 16)]
    if protocol == UDP and not _word(segment, 6):
        return not _sum(frame[14 : seen.l4])
    pseudo = source + destination + bytes([0, protocol])
    pseudo += len(segment).to_bytes(2, "big")
    whole = segment if protocol == ICMP else pseudo + segment
    return not _sum(frame[14 : seen.l4]) and not _sum(whole)


def _sum(data: bytes) -> int:
    """Return the Internet checksum of *data*; 0 when it contains its own."""
    even = data + bytes(len(data) % 2)
    total = int.from_bytes(even, "big") % 0xFFFF
    return 0 if not any(data) else 0xFFFF - (total or 0xFFFF)
