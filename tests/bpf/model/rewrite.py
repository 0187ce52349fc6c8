"""
Rewrites frames for the model: translations and MSS; RFC 1624, 6691.

Pure, like :mod:`bpf.model.packet`.  Checksums are mended, so that one that was wrong
stays wrong; whole sums would hide what a gateway must not mend.
"""

from dataclasses import dataclass

from bpf.model.headers import ETHERNET_SIZE, ICMP, ICMPV6, UDP, Layout, Part, word
from bpf.model.packet import Quote, Read, checksum_at, has_pseudo_header

MSS_OPTION, END_OF_OPTIONS, NO_OPERATION = 2, 0, 1
TCP_HEADER = 20


@dataclass(frozen=True, slots=True)
class Change:
    """One translation; *hops* is how many less the packet has to live."""

    is_source: bool
    address: bytes
    port: int
    hops: int


def mend(check: int, old: bytes, new: bytes) -> int:
    """Return *check* after *old* became *new* (RFC 1624, equation 3)."""
    odd = bytes(len(old) % 2)
    before, after = int.from_bytes(old + odd, "big"), int.from_bytes(new + odd, "big")
    return 0xFFFF - ((0xFFFF - check - before + after) % 0xFFFF or 0xFFFF)


def _put(out: bytearray, at: int, value: int) -> None:
    out[at : at + 2] = value.to_bytes(2, "big")


def _change_ip(out: bytearray, ip: int, layout: Layout, change: Change) -> None:
    """Write an address and the hops into the IP header at *ip*."""
    at = ip + (layout.source if change.is_source else layout.destination)
    before = bytes(out[ip : ip + layout.size])
    out[at : at + layout.address] = change.address
    out[ip + layout.hops] -= change.hops
    if layout.checksum is not None:
        after = bytes(out[ip : ip + layout.size])
        check = mend(word(before, layout.checksum), before, after)
        _put(out, ip + layout.checksum, check)


def _change_port(out: bytearray, l4: int, protocol: int, change: Change) -> bytes:
    """Write a port into the transport header at *l4*; return what was there."""
    at = l4 + (0 if change.is_source else 2)
    if protocol in (ICMP, ICMPV6):
        at = l4 + 4
    old = bytes(out[at : at + 2])
    _put(out, at, change.port)
    return old


def _mend_l4(
    out: bytearray, protocol: int, at: int | None, old: bytes, new: bytes
) -> None:
    """Mend the checksum at *at*; *old* and *new* are an address with a port behind."""
    if at is None or (protocol == UDP and not word(out, at)):
        return
    if not has_pseudo_header(protocol):
        old, new = old[-2:], new[-2:]
    check = mend(word(out, at), old, new)
    _put(out, at, check or 0xFFFF if protocol == UDP else check)


def translate(frame: bytes, seen: Read, change: Change) -> bytes:
    """Return a TCP, UDP, SCTP or echo *frame* with one of its ends translated."""
    assert seen.tuple
    assert seen.header
    out, protocol, layout = bytearray(frame), seen.tuple[4], seen.header.layout
    address = seen.tuple[0] if change.is_source else seen.tuple[1]
    _change_ip(out, ETHERNET_SIZE, layout, change)
    if seen.header.part is Part.LATER:
        return bytes(out)
    at = checksum_at(protocol, seen.l4)
    old = _change_port(out, seen.l4, protocol, change)
    new = change.address + change.port.to_bytes(2, "big")
    _mend_l4(out, protocol, at, address + old, new)
    return bytes(out)


def translate_error(frame: bytes, seen: Read, quote: Quote, change: Change) -> bytes:
    """
    Return an ICMP error with one of its ends translated, outside and in its quote.

    The quote was written at the other end: what is a source outside is its destination.
    """
    assert quote.tuple
    assert seen.tuple
    assert seen.header
    out, protocol, layout = bytearray(frame), quote.tuple[4], seen.header.layout
    inner = Change(not change.is_source, change.address, change.port, 0)
    address = quote.tuple[0] if inner.is_source else quote.tuple[1]
    _change_ip(out, ETHERNET_SIZE, layout, change)
    _change_ip(out, quote.ip, layout, inner)
    old = b""
    if not quote.is_later:
        old = _change_port(out, quote.l4, protocol, inner)
    new = change.address + change.port.to_bytes(2, "big")
    _mend_l4(out, protocol, quote.checksum, address + old, new)
    message, at = seen.l4 + 4, seen.l4 + 2
    before, after = frame[message:], bytes(out[message:])
    if has_pseudo_header(seen.tuple[4]):
        before = (seen.tuple[0] if change.is_source else seen.tuple[1]) + before
        after = change.address + after
    _put(out, at, mend(word(frame, at), before, after))
    return bytes(out)


def lower_mss(frame: bytes, seen: Read, most: int) -> bytes:
    """Return a TCP *frame* whose MSS option says no more than *most* bytes."""
    start, size = seen.l4 + TCP_HEADER, (frame[seen.l4 + 12] >> 4) * 4 - TCP_HEADER
    options = frame[start : start + size] if size > 0 else b""
    if len(options) < size:
        return frame
    at = _mss_at(options)
    if at is None or word(options, at) <= most:
        return frame
    out = bytearray(frame)
    _put(out, start + at, most)
    header = frame[seen.l4 : start + size]
    check_at = seen.l4 + 16
    check = mend(word(frame, check_at), header, bytes(out[seen.l4 : start + size]))
    _put(out, check_at, check)
    return bytes(out)


def _mss_at(options: bytes) -> int | None:
    """Return where the MSS is; None without the option, or with a part of one."""
    at = 0
    while at + 4 <= len(options):
        kind, length = options[at], options[at + 1]
        if kind == END_OF_OPTIONS:
            return None
        if kind == MSS_OPTION:
            return at + 2 if length == 4 else None
        if kind == NO_OPERATION:
            length = 1
        elif length < 2:
            return None
        at += length
    return None


def is_same(expected: bytes, actual: bytes, places: tuple[int, ...]) -> bool:
    """
    Tell whether two frames mean the same; checksums lie at *places*.

    A sum of zero may be written as 0 and as 0xffff, which only a wrong checksum going
    in can bring about; a UDP checksum of 0 would mean "none", so it has no place here.
    """
    return expected == actual or _plain(expected, places) == _plain(actual, places)


def checksums(seen: Read, quote: Quote | None) -> tuple[int, ...]:
    """Return the places for :func:`is_same` of a frame that is translated."""
    assert seen.header
    own = seen.header.layout.checksum
    places = [None if own is None else ETHERNET_SIZE + own]
    if seen.header.protocol != UDP and seen.header.part is not Part.LATER:
        places.append(checksum_at(seen.header.protocol, seen.l4))
    if quote and quote.tuple:
        places.append(None if own is None else quote.ip + own)
        if quote.tuple[4] != UDP:
            places.append(quote.checksum)
    return tuple(place for place in places if place is not None)


def _plain(frame: bytes, places: tuple[int, ...]) -> bytes:
    plain = bytearray(frame)
    for at in places:
        if plain[at : at + 2] == b"\xff\xff":
            plain[at : at + 2] = bytes(2)
    return bytes(plain)
