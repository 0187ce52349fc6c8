"""
ICMP errors, written as a test reads them: who refuses which packet, and how.

Built like ``packets``: whole, with right lengths and checksums.  The quoted packet has
the checksums that its sender made, over the whole of it.
"""

from dataclasses import dataclass, replace
from ipaddress import ip_address

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import checksum

from bpf.packets import (
    ETHERNET,
    HOST_MAC,
    ICMP_NUMBER,
    IP_SIZE,
    POD_MAC,
    TCP_NAME,
    Packet,
    extended,
    fragment_header,
    parts,
)
from outgate.state.entries import Family

PART_QUOTE = 64
"""Bytes of a part that are quoted."""

ICMP = 8
"""Size of an ICMP header in bytes."""

TCP_CHECKSUM = 16
"""Where it lies in a TCP header."""

MTU = b"\x05\x14"
"""1300."""

ERRORS = {
    Family.V4: {
        "port-unreachable": (3, 3, bytes(4)),
        "too-big": (3, 4, bytes(2) + MTU),
        "rare": (4, 0, bytes(4)),
        "time-exceeded": (11, 0, bytes(4)),
        "parameter": (12, 0, b"\x14\x00\x00\x00"),
    },
    Family.V6: {
        "port-unreachable": (1, 4, bytes(4)),
        "too-big": (2, 0, bytes(2) + MTU),
        "rare": (1, 2, bytes(4)),
        "time-exceeded": (3, 0, bytes(4)),
        "parameter": (4, 0, b"\x00\x00\x00\x28"),
    },
}
"""
Type, code and the four bytes that follow the checksum.

The rare one is IPv4's source quench, and IPv6's "beyond scope of source address".
"""

KINDS = tuple(ERRORS[Family.V4])


@dataclass(frozen=True, slots=True)
class IcmpError:
    """
    *source* tells the sender of *quoted* what became of it.

    *quoted_l4* bytes after the quoted IP header are quoted, all if None; *fragment*
    is the quoted flags and offset as IPv4 has them, *l4_length* another number of bytes
    after the IP header than the quoted one says, *destination* another than the quoted
    source; *part* is the id of a datagram in parts, and which of them is quoted.
    """

    source: str
    quoted: Packet
    kind: str = "port-unreachable"
    ttl: int = 64
    quoted_l4: int | None = 8
    fragment: int = 0
    l4_length: int | None = None
    destination: str = ""
    source_mac: str = POD_MAC
    destination_mac: str = HOST_MAC
    extension: bytes = b""
    part: tuple[int, int] | None = None

    def but(self, **changes: object) -> "IcmpError":
        """Return this error with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def about(self, quoted: Packet) -> "IcmpError":
        """Return this error about *quoted*; half a TCP checksum stays as it was."""
        if self.quoted_l4 == TCP_CHECKSUM + 1 and quoted.protocol == TCP_NAME:
            half = self.quote()[-1:]
            return self.but(quoted=quoted, quoted_l4=TCP_CHECKSUM, extension=half)
        return self.but(quoted=quoted)

    def quote(self) -> bytes:
        """Return the bytes after the ICMP header."""
        if self.part:
            number, which = self.part
            return parts(self.quoted.build(), number)[which][ETHERNET:][:PART_QUOTE]
        is_ipv4 = self.quoted.family is Family.V4
        whole, size = self._quoted_ipv4() if is_ipv4 else self._quoted_ipv6()
        if self.quoted_l4 is not None:
            whole = whole[: size + self.quoted_l4]
        return whole + self.extension

    def _quoted_ipv4(self) -> tuple[bytes, int]:
        """Return the quoted packet, and the size of its IP header."""
        header = IP(self.quoted.build()[ETHERNET:])
        size = header.ihl * 4
        header.flags, header.frag = self.fragment >> 13, self.fragment & 0x1FFF
        if self.l4_length is not None:
            header.len = size + self.l4_length
        del header.chksum
        return bytes(header), size

    def _quoted_ipv6(self) -> tuple[bytes, int]:
        """Return the quoted packet, and the size of its IP headers."""
        frame = self.quoted.build()
        size = IP_SIZE[Family.V6] + sum(len(e.rest) + 1 for e in self.quoted.extensions)
        if self.fragment:
            fragment = fragment_header(self.fragment & 0x1FFF, self.fragment > 0x1FFF)
            frame, size = extended(frame, (fragment,)), size + 8
        packet = bytearray(frame[ETHERNET:])
        if self.l4_length is not None:
            length = size - IP_SIZE[Family.V6] + self.l4_length
            packet[4:6] = length.to_bytes(2, "big")
        return bytes(packet), size

    def build(self) -> bytes:
        """Return the bytes, lengths and checksums filled in."""
        destination = self.destination or self.quoted.source
        family = self.quoted.family
        number, code, rest = ERRORS[family][self.kind]
        zero = bytes([number, code, 0, 0]) + rest + self.quote()
        frame = Ether(src=self.source_mac, dst=self.destination_mac)
        if family is Family.V4:
            message = with_checksum(zero)
            frame /= IP(src=self.source, dst=destination, ttl=self.ttl, id=9, proto=1)
        else:
            message = with_checksum(zero, pseudo(self.source, destination, len(zero)))
            frame /= IPv6(src=self.source, dst=destination, hlim=self.ttl, nh=58)
        return bytes(frame / Raw(message))


def pseudo(source: str, destination: str, size: int) -> bytes:
    """Return what ICMPv6's checksum covers of the header before it."""
    addresses = ip_address(source).packed + ip_address(destination).packed
    number = ICMP_NUMBER[Family.V6]
    return addresses + size.to_bytes(4, "big") + number.to_bytes(4, "big")


def with_checksum(message: bytes, before: bytes = b"") -> bytes:
    """Return an ICMP message whose checksum was zero."""
    return message[:2] + checksum(before + message).to_bytes(2, "big") + message[4:]
