"""
Builds frames fast: whole and right ones, the answers to them, and errors about them.

Scapy (:mod:`bpf.packets`) takes a third of a millisecond a frame; this takes
microseconds, for tests that need millions.  The family is that of the addresses.
"""

from dataclasses import dataclass, replace
from struct import Struct

from bpf.model.headers import (
    DONT_FRAGMENT,
    ETHERNET_SIZE,
    SCTP,
    TCP,
    UDP,
    V4,
    V6,
    Layout,
)
from bpf.model.packet import checksum, checksum_at, pseudo_header, read

V4_HEADER = Struct("!BBHHHBBH4s4s")
V6_HEADER = Struct("!IHBB16s16s")
TCP_HEADER = Struct("!HHIIBBHHH")
UDP_HEADER, SCTP_HEADER, ECHO_HEADER = (
    Struct("!HHHH"),
    Struct("!HHII"),
    Struct("!BBHHH"),
)
POD_MACS = bytes.fromhex("02000000010102000000012a")
"""Destination (the host's side of the veth), source (the pod)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """
    What a frame is made of beside its tuple; *flags* and *options* are TCP's.

    Options come in multiples of four bytes.  *is_df* forbids fragments, in IPv4.
    *extensions* are IPv6's: protocol and header, whose first byte is filled in.
    """

    flags: int = 16
    ttl: int = 64
    payload: bytes = b"data"
    options: bytes = b""
    is_df: bool = False
    extensions: tuple[tuple[int, bytes], ...] = ()


PLAIN = Shape()


def layout_of(address: bytes) -> Layout:
    """Return the family of an address."""
    return V4 if len(address) == V4.address else V6


def icmp_of(address: bytes) -> int:
    """Return the number of the protocol that pings *address*."""
    return layout_of(address).icmp


def build(
    protocol: int,
    pair: tuple[bytes, bytes],
    ports: tuple[int, int],
    shape: Shape = PLAIN,
) -> bytes:
    """
    Return a frame from *pair*[0] to *pair*[1].

    An echo packet is a request when its first port (the asking side's identifier) is
    not 0, else a reply to the second.
    """
    l4 = _transport(protocol, ports, shape, layout_of(pair[0]))
    at = checksum_at(protocol, 0)
    if at is not None:
        check = checksum(pseudo_header(*pair, len(l4), protocol) + l4)
        if protocol == UDP:
            check = check or 0xFFFF
        l4 = l4[:at] + check.to_bytes(2, "big") + l4[at + 2 :]
    return around(protocol, pair, l4, shape)


def around(
    protocol: int, pair: tuple[bytes, bytes], l4: bytes, shape: Shape = PLAIN
) -> bytes:
    """Return a frame that holds *l4*."""
    if layout_of(pair[0]) is V6:
        first = protocol
        for number, extension in reversed(shape.extensions):
            l4 = bytes([first]) + extension[1:] + l4
            first = number
        header = V6_HEADER.pack(6 << 28, len(l4), first, shape.ttl, *pair)
        return POD_MACS + b"\x86\xdd" + header + l4
    fragment = DONT_FRAGMENT if shape.is_df else 0
    size = 20 + len(l4)
    header = V4_HEADER.pack(0x45, 0, size, 7, fragment, shape.ttl, protocol, 0, *pair)
    check = checksum(header).to_bytes(2, "big")
    return POD_MACS + b"\x08\x00" + header[:10] + check + header[12:] + l4


def _transport(
    protocol: int, ports: tuple[int, int], shape: Shape, layout: Layout
) -> bytes:
    """Return a transport header with its payload, and no checksum."""
    payload = shape.payload
    if protocol == TCP:
        offset = (20 + len(shape.options)) << 2
        header = TCP_HEADER.pack(*ports, 1, 2, offset, shape.flags, 8192, 0, 0)
        return header + shape.options + payload
    if protocol == UDP:
        return UDP_HEADER.pack(*ports, 8 + len(payload), 0) + payload
    if protocol == SCTP:
        return SCTP_HEADER.pack(*ports, 0x1234, 0x5678) + payload
    kind = layout.echo if ports[0] else layout.echo_reply
    return ECHO_HEADER.pack(kind, 0, 0, ports[0] or ports[1], 3) + payload


def answer(frame: bytes, shape: Shape = PLAIN) -> bytes:
    """Return what the other side of a TCP, UDP, SCTP or echo *frame* would answer."""
    key = read(frame).tuple
    assert key
    return build(key[4], (key[1], key[0]), (key[3], key[2]), shape)


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    An ICMP error: type, code, and the four bytes that follow its checksum.

    It quotes *size* bytes of the refused IP packet, and comes from *source* where that
    is not to whom the packet went: from a router.
    """

    kind: int = 3
    code: int = 3
    rest: bytes = bytes(4)
    size: int = 28
    source: bytes = b""
    ttl: int = 64


def refuse(frame: bytes, refusal: Refusal) -> bytes:
    """Return the ICMP error that tells the sender of *frame*."""
    key = read(frame).tuple
    assert key
    pair = refusal.source or key[1], key[0]
    icmp = icmp_of(key[0])
    rest = refusal.rest + frame[ETHERNET_SIZE:][: refusal.size]
    kind = bytes((refusal.kind, refusal.code))
    pseudo = pseudo_header(*pair, 4 + len(rest), icmp)
    check = checksum(pseudo + kind + bytes(2) + rest).to_bytes(2, "big")
    return around(icmp, pair, kind + check + rest, replace(PLAIN, ttl=refusal.ttl))
