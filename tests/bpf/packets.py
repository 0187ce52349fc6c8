"""
Packets, written as a test reads them: who, to whom, and what changed.

Every packet is built whole, with right lengths and checksums, so that comparing bytes
compares all of them.
"""

from dataclasses import dataclass, replace

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

POD_MAC = "02:00:00:00:01:2a"
HOST_MAC = "02:00:00:00:01:01"

TCP_NAME, UDP_NAME, ECHO_NAME = "tcp", "udp", "echo"
PROTOCOLS = (TCP_NAME, UDP_NAME, ECHO_NAME)

NUMBERS = {TCP_NAME: 6, UDP_NAME: 17, ECHO_NAME: 1}


@dataclass(frozen=True, slots=True)
class Packet:
    """
    One packet of a conversation; for ``echo`` the port of the asking side is the id.

    *options* are bytes of IPv4 options, *tcp_options* of TCP's (multiples of four);
    *flags* are TCP's.
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
    source_mac: str = POD_MAC
    destination_mac: str = HOST_MAC
    is_reply: bool = False
    zero_checksum: bool = False
    dont_fragment: bool = False
    tcp_options: bytes = b""

    def but(self, **changes: object) -> "Packet":
        """Return this packet with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

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
        header = IP(src=self.source, dst=self.destination, ttl=self.ttl, id=7)
        if self.dont_fragment:
            header.flags = "DF"
        if self.options:
            header.options = [Raw(self.options)]
        return bytes(frame / header / self._transport() / Raw(self.payload))

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
        if self.is_reply:
            return ICMP(type=0, id=self.destination_port, seq=3)
        return ICMP(type=8, id=self.source_port, seq=3)


def outbound(protocol: str, source: str, destination: str, port: int = 40000) -> Packet:
    """Return the first packet of a flow from *source*; an echo has no second port."""
    far_port = 0 if protocol == ECHO_NAME else 80
    return Packet(protocol, source, port, destination, far_port, flags="S")
