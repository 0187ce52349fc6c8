"""
What a node answers to a packet that it drops, for the model: RFC 792, 1191, 4443.

Pure, like :mod:`bpf.model.packet`.
"""

from bpf.model.headers import ETHERNET_SIZE, V4, Part
from bpf.model.packet import Kind, Read, checksum, pseudo_header
from bpf.model.rules import stays_here

V4_QUOTE, V6_QUOTE = 68, 1232
"""Bytes: 8 behind the longest IP header; what fits the smallest MTU."""

TIME_EXCEEDED = {"IPv4": b"\x0b\0", "IPv6": b"\3\0"}
TOO_BIG = {"IPv4": b"\3\4", "IPv6": b"\2\0"}
"""Type and code, by family."""


def time_exceeded(frame: bytes, seen: Read, source: bytes) -> bytes | None:
    """Return what *source* answers to a packet that died of its age, or None."""
    assert seen.header
    return _answer(frame, seen, source, TIME_EXCEEDED[seen.header.layout.name], 0)


def too_big(frame: bytes, seen: Read, source: bytes, mtu: int) -> bytes | None:
    """Return what *source* answers to a packet that must not be fragmented."""
    assert seen.header
    return _answer(frame, seen, source, TOO_BIG[seen.header.layout.name], mtu)


def _may_be_answered(frame: bytes, seen: Read) -> bool:
    """RFC 1122, 3.2.2: not everybody is told what became of everything."""
    assert seen.header
    if seen.kind is not Kind.FLOW or seen.header.part is Part.LATER:
        return False
    source = seen.header.source
    return not frame[0] & 1 and any(source) and not stays_here(source)


def _answer(
    frame: bytes, seen: Read, source: bytes, kind: bytes, mtu: int
) -> bytes | None:
    if not _may_be_answered(frame, seen):
        return None
    assert seen.header
    header, layout = seen.header, seen.header.layout
    declared = header.l4 - ETHERNET_SIZE + header.declared
    most = V4_QUOTE if layout is V4 else V6_QUOTE
    rest = mtu.to_bytes(4, "big") + frame[ETHERNET_SIZE:][: min(declared, most)]
    size = 4 + len(rest)
    pseudo = pseudo_header(source, header.source, size, layout.icmp)
    check = checksum(pseudo + kind + bytes(2) + rest).to_bytes(2, "big")
    ip = _header(layout is V4, size, source + header.source)
    return frame[6:12] + frame[:6] + frame[12:14] + ip + kind + check + rest


def _header(is_v4: bool, size: int, pair: bytes) -> bytes:
    """Return an IP header with the traffic class of routers, and 64 hops."""
    if not is_v4:
        return b"\x6c\0\0\0" + size.to_bytes(2, "big") + bytes([58, 64]) + pair
    start = b"\x45\xc0" + (20 + size).to_bytes(2, "big") + b"\0\0\x40\0\x40\1"
    return start + checksum(start + pair).to_bytes(2, "big") + pair
