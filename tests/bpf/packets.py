"""
Packets, written as a test reads them: who, to whom, and what changed.

The addresses say of which IP family a packet is.  Every packet is built whole, with
right lengths and checksums, so that comparing bytes compares all of them.
"""

from dataclasses import dataclass, replace
from ipaddress import ip_address
from struct import pack

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

from outgate.state.entries import Family, family_of

POD_MAC = "02:00:00:00:01:2a"
HOST_MAC = "02:00:00:00:01:01"

TCP_NAME, UDP_NAME, ECHO_NAME, SCTP_NAME = "tcp", "udp", "echo", "sctp"
MOVABLE = (TCP_NAME, UDP_NAME, ECHO_NAME)
PROTOCOLS = (*MOVABLE, SCTP_NAME)
"""Those whose port (or id) a translation may change, and all."""

ETHERNET = 14
IP_SIZE = {Family.V4: 20, Family.V6: 40}
"""Sizes of headers in bytes, without options or extensions."""

ICMP_NUMBER = {Family.V4: 1, Family.V6: 58}

ETH_IP = {Family.V4: b"\x08\x00", Family.V6: b"\x86\xdd"}
"""EtherTypes."""

HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS = 0, 43, 44, 60
"""IPv6 extension headers, by IANA's number."""


@dataclass(frozen=True, slots=True)
class Extension:
    """An IPv6 extension header: its own number, and what follows the first byte."""

    number: int
    rest: bytes


def options_header(number: int, size: int = 8) -> Extension:
    """Return hop-by-hop or destination options of *size* bytes, all of it padding."""
    return Extension(number, bytes([size // 8 - 1]) + bytes(size - 2))


def routing_header(segments_left: int, kind: int = 2) -> Extension:
    """Return a routing header with one address."""
    return Extension(ROUTING, bytes([2, kind, segments_left]) + bytes(20))


def fragment_header(offset: int, more: bool, number: int = 7) -> Extension:
    """Return a fragment header; *offset* is in units of 8 bytes."""
    return Extension(FRAGMENT, pack("!BHI", 0, offset << 3 | more, number))


@dataclass(frozen=True, slots=True)
class Packet:
    """
    One packet of a conversation; for ``echo`` the port of the asking side is the id.

    *options* are bytes of IPv4 options, *extensions* are IPv6's headers, *tcp_options*
    are bytes of TCP's (multiples of four); *flags* are TCP's, *ttl* is IPv6's hop limit
    as well.  IPv6 has no *dont_fragment*: it is always so.
    """

    protocol: str
    source: str
    source_port: int
    destination: str
    destination_port: int
    ttl: int = 64
    flags: str = "A"
    payload: bytes = b"payload"
    options: bytes = b""
    extensions: tuple[Extension, ...] = ()
    source_mac: str = POD_MAC
    destination_mac: str = HOST_MAC
    is_reply: bool = False
    zero_checksum: bool = False
    dont_fragment: bool = False
    tcp_options: bytes = b""

    @property
    def family(self) -> Family:
        """The family of both addresses."""
        return family_of(ip_address(self.source))

    def but(self, **changes: object) -> "Packet":
        """Return this packet with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def stretched(self, size: int) -> "Packet":
        """Return this packet with *size* more bytes of header before its own."""
        if self.family is Family.V4:
            return self.but(options=bytes([1] * size))
        return self.but(extensions=(options_header(DESTINATION_OPTIONS, size),))

    def reply(self) -> "Packet":
        """Return the packet that the other side would answer with."""
        return self.but(
            source=self.destination,
            source_port=self.destination_port,
            destination=self.source,
            destination_port=self.source_port,
            source_mac=self.destination_mac,
            destination_mac=self.source_mac,
            is_reply=not self.is_reply,
            flags="SA" if self.flags == "S" else self.flags,
        )

    def build(self) -> bytes:
        """Return the bytes, lengths and checksums filled in."""
        frame = Ether(src=self.source_mac, dst=self.destination_mac)
        content = self._transport() / Raw(self.payload)
        if self.family is Family.V4:
            header = IP(src=self.source, dst=self.destination, ttl=self.ttl, id=7)
            if self.dont_fragment:
                header.flags = "DF"
            if self.options:
                header.options = [Raw(self.options)]
            return bytes(frame / header / content)
        frame /= IPv6(src=self.source, dst=self.destination, hlim=self.ttl)
        return extended(bytes(frame / content), self.extensions)

    def _transport(self) -> ScapyPacket:
        if self.protocol == TCP_NAME:
            ports = (self.source_port, self.destination_port)
            header = TCP(sport=ports[0], dport=ports[1], flags=self.flags, seq=1, ack=2)
            # The bytes as they are, also where no parser would accept them.
            header.dataofs = 5 + len(self.tcp_options) // 4
            return header / Raw(self.tcp_options) if self.tcp_options else header
        if self.protocol == UDP_NAME:
            checksum = 0 if self.zero_checksum else None
            ports = (self.source_port, self.destination_port)
            return UDP(sport=ports[0], dport=ports[1], chksum=checksum)
        if self.protocol == SCTP_NAME:
            return SCTP(sport=self.source_port, dport=self.destination_port, tag=5)
        number = self.destination_port if self.is_reply else self.source_port
        if self.family is Family.V6:
            echo = ICMPv6EchoReply if self.is_reply else ICMPv6EchoRequest
            return echo(id=number, seq=3)
        return ICMP(type=0 if self.is_reply else 8, id=number, seq=3)


def extended(frame: bytes, extensions: tuple[Extension, ...]) -> bytes:
    """Return an IPv6 *frame* with headers put between its first and the rest."""
    number_at, start = ETHERNET + 6, ETHERNET + IP_SIZE[Family.V6]
    chain, number = b"", frame[number_at]
    for extension in reversed(extensions):
        chain = bytes([number]) + extension.rest + chain
        number = extension.number
    length = (len(frame) - start + len(chain)).to_bytes(2, "big")
    return (
        frame[: ETHERNET + 4]
        + length
        + bytes([number])
        + frame[number_at + 1 : start]
        + chain
        + frame[start:]
    )


def outbound(protocol: str, source: str, destination: str, port: int = 40000) -> Packet:
    """Return the first packet of a flow from *source*; an echo has no second port."""
    far_port = 0 if protocol == ECHO_NAME else 80
    return Packet(protocol, source, port, destination, far_port, flags="S")


def family_of_frame(frame: bytes) -> Family | None:
    """Return the IP family of a frame, None for another EtherType."""
    return next((f for f, kind in ETH_IP.items() if frame[12:14] == kind), None)


def source_of(frame: bytes) -> str:
    """Return the source address of a frame."""
    start, size = (
        (ETHERNET + 12, 4) if frame[12:14] == b"\x08\x00" else (ETHERNET + 8, 16)
    )
    return str(ip_address(frame[start : start + size]))


def source_port_of(frame: bytes) -> int:
    """Return the source port (TCP, UDP) or id (echo) of one without IP options."""
    family = family_of_frame(frame) or Family.V4
    start = ETHERNET + IP_SIZE[family]
    protocol = frame[ETHERNET + (9 if family is Family.V4 else 6)]
    at = start + 4 if protocol == ICMP_NUMBER[family] else start
    return int.from_bytes(frame[at : at + 2], "big")


def over_ip(
    source: str, destination: str, number: int, content: bytes, *before: Extension
) -> bytes:
    """Return a frame of IP protocol *number* whose *content* stands as it is."""
    macs = Ether(src=POD_MAC, dst=HOST_MAC)
    if family_of(ip_address(source)) is Family.V4:
        header = IP(src=source, dst=destination, proto=number)
        return bytes(macs / header / Raw(content))
    plain = macs / IPv6(src=source, dst=destination, nh=number) / Raw(content)
    return extended(bytes(plain), before)


def fragment(frame: bytes, offset: int, more: bool) -> bytes:
    """Return *frame* with the mark of a fragment; *offset* is in units of 8 bytes."""
    if family_of_frame(frame) is Family.V6:
        return extended(frame, (fragment_header(offset, more),))
    packet = Ether(frame)
    packet[IP].frag, packet[IP].flags = offset, "MF" if more else ""
    del packet[IP].chksum
    return bytes(packet)


def parts(frame: bytes, number: int, size: int = 1024) -> list[bytes]:
    """Return *frame* in parts with *size* bytes behind the IP header; *number*: id."""
    is_ipv4 = family_of_frame(frame) is Family.V4
    start = ETHERNET + IP_SIZE[Family.V4 if is_ipv4 else Family.V6]
    return [
        _part(frame[:start], frame[start:], at, size, number)
        for at in range(0, len(frame) - start, size)
    ]


def _part(header: bytes, content: bytes, at: int, size: int, number: int) -> bytes:
    """Return the part of *content* that begins *at*."""
    more, piece = at + size < len(content), content[at : at + size]
    if family_of_frame(header) is Family.V6:
        return extended(header + piece, (fragment_header(at // 8, more, number),))
    ip = IP(header[ETHERNET:])
    ip.id, ip.frag, ip.flags = number, at // 8, "MF" if more else ""
    ip.len = IP_SIZE[Family.V4] + len(piece)
    del ip.chksum
    return header[:ETHERNET] + bytes(ip) + piece


def without_length(frame: bytes) -> bytes:
    """Return *frame* as a super-packet of more than 64 KiB says its length: 0."""
    if family_of_frame(frame) is Family.V6:
        return frame[: ETHERNET + 4] + bytes(2) + frame[ETHERNET + 6 :]
    packet = Ether(frame)
    packet[IP].len = 0
    del packet[IP].chksum
    return bytes(packet)


def contradicting(frame: bytes) -> bytes:
    """Return *frame* with an IP header that no kernel would accept."""
    first = 0x44 if family_of_frame(frame) is Family.V4 else 0x40
    return frame[:ETHERNET] + bytes([first]) + frame[ETHERNET + 1 :]
