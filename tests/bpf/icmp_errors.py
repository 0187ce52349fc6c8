"""
ICMP errors, written as a test reads them: who refuses which packet, and how.

Built like ``packets``: whole, with right lengths and checksums.  The quoted packet has
the checksums that its sender made, over the whole of it.
"""

from dataclasses import dataclass, replace

from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import checksum

from bpf.packets import HOST_MAC, POD_MAC, TCP_NAME, Packet

ETHERNET, IPV4, ICMP = 14, 20, 8
"""Sizes of headers in bytes; IPv4's without options."""

TCP_CHECKSUM = 16
"""Where it lies in a TCP header."""

UNREACHABLE, QUENCH, EXCEEDED, PARAMETER = 3, 4, 11, 12

ERRORS = {
    "port-unreachable": (UNREACHABLE, 3, bytes(4)),
    "too-big": (UNREACHABLE, 4, b"\x00\x00\x05\x14"),
    "quench": (QUENCH, 0, bytes(4)),
    "time-exceeded": (EXCEEDED, 0, bytes(4)),
    "parameter": (PARAMETER, 0, b"\x14\x00\x00\x00"),
}
"""Type, code and the four bytes that follow the checksum; 0x514: an MTU of 1300."""


@dataclass(frozen=True, slots=True)
class IcmpError:
    """
    *source* tells the sender of *quoted* what became of it.

    *quoted_l4* bytes after the quoted IPv4 header are quoted, all if None; *fragment*
    is the quoted flags and offset, *total_length* another than the quoted one,
    *destination* another than the quoted source.
    """

    source: str
    quoted: Packet
    kind: str = "port-unreachable"
    ttl: int = 64
    quoted_l4: int | None = 8
    fragment: int = 0
    total_length: int | None = None
    destination: str = ""
    source_mac: str = POD_MAC
    destination_mac: str = HOST_MAC
    extension: bytes = b""

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
        header = IP(self.quoted.build()[ETHERNET:])
        header.flags, header.frag = self.fragment >> 13, self.fragment & 0x1FFF
        header.len = self.total_length or header.len
        del header.chksum
        whole = bytes(header)
        size = len(whole) if self.quoted_l4 is None else header.ihl * 4 + self.quoted_l4
        return whole[:size] + self.extension

    def build(self) -> bytes:
        """Return the bytes, lengths and checksums filled in."""
        number, code, rest = ERRORS[self.kind]
        quote = self.quote()
        zero = bytes([number, code, 0, 0]) + rest + quote
        message = zero[:2] + checksum(zero).to_bytes(2, "big") + zero[4:]
        frame = Ether(src=self.source_mac, dst=self.destination_mac)
        header = IP(
            src=self.source,
            dst=self.destination or self.quoted.source,
            ttl=self.ttl,
            id=9,
            proto=1,
        )
        return bytes(frame / header / Raw(message))
