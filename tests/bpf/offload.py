"""
Frames as a device with offloads hands them over: checksums yet to be completed,
super-packets yet to be cut.  They really arrive on the node's uplink.

Source: Linux ``Documentation/networking/packet_mmap.rst`` and ``<linux/virtio_net.h>``
for the header in front of each frame.
"""

import socket
from dataclasses import dataclass
from struct import Struct

from bpf.harness import ETH_IPV4, ETH_P_ALL, SOL_PACKET, Node
from outgate.state.entries import Hook

PACKET_VNET_HDR = 15
VIRTIO_NET_HDR = Struct("=BBHHHH")
NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4 = 0, 1

L4_OFFSET, TCP_CHECK, TCP_HEADER = 34, 16, 20


@dataclass(frozen=True, slots=True)
class Offloaded:
    """A frame, and what the next device still has to do for it."""

    frame: bytes
    needs_checksum: bool
    gso_size: int


def partial(frame: bytes) -> bytes:
    """Return a TCP frame whose checksum field holds the pseudo header's sum alone."""
    size = len(frame) - L4_OFFSET
    words = frame[26:34] + bytes([0, 6]) + size.to_bytes(2, "big")
    total = sum(int.from_bytes(words[at : at + 2], "big") for at in range(0, 12, 2))
    total = (total & 0xFFFF) + (total >> 16)
    at = L4_OFFSET + TCP_CHECK
    return frame[:at] + total.to_bytes(2, "big") + frame[at + 2 :]


def send_offloaded(
    node: Node, hook: Hook, frame: bytes, gso_size: int = 0
) -> Offloaded:
    """Let a TCP *frame* arrive with a partial checksum; return what *hook* sends."""
    return node.inside(lambda: _send(node, hook, frame, gso_size))


def _send(node: Node, hook: Hook, frame: bytes, gso_size: int) -> Offloaded:
    header = VIRTIO_NET_HDR.pack(
        *(NEEDS_CSUM, GSO_TCPV4 if gso_size else GSO_NONE),
        *(L4_OFFSET + TCP_HEADER, gso_size, L4_OFFSET, TCP_CHECK),
    )
    everything = socket.htons(ETH_P_ALL)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, everything) as wire:
        wire.bind(("wire", ETH_P_ALL))
        wire.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        wire.settimeout(2)
        with node.attached(hook):
            wire.send(header + partial(frame))
            while True:
                data, source = wire.recvfrom(1 << 17)
                flags, _, _, size, _, _ = VIRTIO_NET_HDR.unpack_from(data)
                seen = data[VIRTIO_NET_HDR.size :]
                if source[2] != socket.PACKET_OUTGOING and seen[12:14] == ETH_IPV4:
                    return Offloaded(seen, bool(flags & NEEDS_CSUM), size)
