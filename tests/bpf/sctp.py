"""
Packets of SCTP, written as those of ``packets``: its checksum covers no address.

It does cover the ports, so that a translation must leave those alone.
"""

from dataclasses import dataclass

from scapy.layers.sctp import SCTP
from scapy.packet import Packet as ScapyPacket

from bpf.packets import Packet

SCTP_NAME = "sctp"
TAG = 0x01020304


@dataclass(frozen=True, slots=True)
class SctpPacket(Packet):
    """One packet of an association."""

    def _transport(self) -> ScapyPacket:
        return SCTP(sport=self.source_port, dport=self.destination_port, tag=TAG)


def association(source: str, destination: str, port: int = 40000) -> SctpPacket:
    """Return a packet of an association that *source* began."""
    return SctpPacket(SCTP_NAME, source, port, destination, 36412)
