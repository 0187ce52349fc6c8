"""
Frames as a device with offloads hands them over: checksums yet to be completed,
super-packets yet to be cut.  They really arrive on the node's uplink.

Source: Linux ``Documentation/networking/packet_mmap.rst`` and ``<linux/virtio_net.h>``
for the header in front of each frame.
"""

import errno
import socket
from dataclasses import dataclass
from struct import Struct

import pytest

from bpf.harness import Node
from bpf.packets import ETHERNET, HOP_BY_HOP, IP_SIZE, family_of_frame
from bpf.wire import SOL_PACKET, attached, is_tested, tap
from outgate.state.entries import Family, Hook

PACKET_VNET_HDR = 15
VIRTIO_NET_HDR = Struct("=BBHHHH")
NEEDS_CSUM = 1
GSO_NONE, GSO_TCP = 0, {Family.V4: 1, Family.V6: 4}

TCP_NUMBER, TCP_CHECK, TCP_HEADER = 6, 16, 20


@dataclass(frozen=True, slots=True)
class Offloaded:
    """A frame, and what the next device still has to do for it."""

    frame: bytes
    needs_checksum: bool
    gso_size: int


def _family(frame: bytes) -> Family:
    return family_of_frame(frame) or Family.V4


def _l4_offset(frame: bytes) -> int:
    start, family = ETHERNET + IP_SIZE[_family(frame)], _family(frame)
    has_options = family is Family.V6 and frame[ETHERNET + 6] == HOP_BY_HOP
    return start + (8 if has_options else 0)


def partial(frame: bytes) -> bytes:
    """Return a TCP frame whose checksum field holds the pseudo header's sum alone."""
    start, ip_end = _l4_offset(frame), ETHERNET + IP_SIZE[_family(frame)]
    addresses = ip_end - (8 if _family(frame) is Family.V4 else 32)
    size = len(frame) - start
    words = frame[addresses:ip_end] + TCP_NUMBER.to_bytes(2, "big")
    words += size.to_bytes(4, "big")
    pairs = range(0, len(words), 2)
    total = sum(int.from_bytes(words[at : at + 2], "big") for at in pairs)
    for _ in range(2):
        total = (total & 0xFFFF) + (total >> 16)
    at = start + TCP_CHECK
    return frame[:at] + total.to_bytes(2, "big") + frame[at + 2 :]


def send_offloaded(
    node: Node, hook: Hook, frame: bytes, gso_size: int = 0
) -> Offloaded:
    """Let a TCP *frame* arrive with a partial checksum; return what *hook* sends."""
    return node.inside(lambda: _send(node, hook, frame, gso_size))


def _send(node: Node, hook: Hook, frame: bytes, gso_size: int) -> Offloaded:
    start = _l4_offset(frame)
    header = VIRTIO_NET_HDR.pack(
        *(NEEDS_CSUM, GSO_TCP[_family(frame)] if gso_size else GSO_NONE),
        *(start + TCP_HEADER, gso_size, start, TCP_CHECK),
    )
    with tap("wire") as wire, attached(node, hook):
        wire.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        try:
            wire.send(header + partial(frame))
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            pytest.skip("needs packet sockets that send frames beyond 64 KiB")
        while True:
            data, source = wire.recvfrom(1 << 18)
            flags, _, _, size, _, _ = VIRTIO_NET_HDR.unpack_from(data)
            seen = data[VIRTIO_NET_HDR.size :]
            if source[2] != socket.PACKET_OUTGOING and is_tested(seen):
                seen = node.untunnelled(seen)
                return Offloaded(seen, bool(flags & NEEDS_CSUM), size)
