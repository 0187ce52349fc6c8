"""
A node with the kernel's own VXLAN device: what the wire sees of the tunnel.

BPF_PROG_TEST_RUN does not show where a program's tunnel key leads, nor what the kernel
makes of an outer header.  Here frames arrive on the node's uplink, and leave there.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from bpf.harness import VNI, Node, Setup
from bpf.packets import ETHERNET, IP_SIZE
from bpf.uplink import PEER_MAC, UPLINK
from bpf.wire import attached, is_tested, tap
from bpf.world import IPV4, IPV6
from outgate.state.entries import Address, Family, Hook, family_of

UPLINK_MAC, ROUTER_MAC = "02:00:ac:12:00:05", "02:00:ac:12:00:01"
PORT, VXLAN_SIZE, UDP_SIZE = 8472, 8, 8
VNI_IS_VALID = b"\x08\x00\x00\x00"


@dataclass(frozen=True, slots=True)
class Tunnelled:
    """A frame in its tunnel: from which node to which, and whether UDP sums it up."""

    source: Address
    destination: Address
    has_checksum: bool
    frame: bytes


def tunnelled(frame: bytes) -> Tunnelled | None:
    """Return what a VXLAN frame carries, None where it is none of our network's."""
    outer = Ether(frame)
    family = Family.V4 if IP in outer else Family.V6
    start = ETHERNET + IP_SIZE[family] + UDP_SIZE
    vxlan = VNI_IS_VALID + (VNI << 8).to_bytes(4, "big")
    is_ours = UDP in outer and outer[UDP].dport == PORT
    if not is_ours or frame[start : start + VXLAN_SIZE] != vxlan:
        return None
    header = outer[IP] if family is Family.V4 else outer[IPv6]
    of_family = type(UPLINK[family].address)
    return Tunnelled(
        of_family(header.src),
        of_family(header.dst),
        bool(outer[UDP].chksum),
        frame[start + VXLAN_SIZE :],
    )


def into_tunnel(frame: bytes, source: Address) -> bytes:
    """Return *frame* as the node *source* tunnels it here; UDP sums up IPv6 alone."""
    family = family_of(source)
    layer = IP if family is Family.V4 else IPv6
    here = UPLINK[family].address
    vxlan = VNI_IS_VALID + (VNI << 8).to_bytes(4, "big")
    udp = UDP(sport=50000, dport=PORT, chksum=0 if family is Family.V4 else None)
    outer = layer(src=str(source), dst=str(here)) / udp / Raw(vxlan + frame)
    return bytes(Ether(src=PEER_MAC, dst=UPLINK_MAC) / outer)


@contextmanager
def tunnel_node(setup: Setup | None = None) -> Iterator[Node]:
    """Make a node with a VXLAN device that takes outer headers of both families."""
    with Node(setup) as node:
        device = ("tunnel", "type", "vxlan", "external", "dstport", str(PORT))
        node.ip("link", "add", *device)
        node.ip("link", "set", "tunnel", "addrgenmode", "none")
        node.ip("link", "set", "tunnel", "up")
        node.ip("link", "set", "uplink", "address", UPLINK_MAC)
        for world in (IPV4, IPV6):
            # With its address the link lost all neighbours.
            for address, mac in (
                (world.ROUTER, ROUTER_MAC),
                (world.ELSEWHERE, PEER_MAC),
            ):
                node.ip("neighbour", "add", address, "lladdr", mac, "dev", "uplink")
        yield node


def through(
    node: Node,
    hook: Hook,
    frame: bytes,
    interface: str,
    source: IPv6Address | None = None,
) -> bytes:
    """
    Return the frame on the wire that follows from *frame*, which arrives there.

    *source* is what the agent sets for IPv6 outer headers.
    """
    [seen] = all_through(node, hook, [frame], interface, source)
    return seen


def all_through(
    node: Node,
    hook: Hook,
    frames: Sequence[bytes],
    interface: str = "uplink",
    source: IPv6Address | None = None,
) -> list[bytes]:
    """Return as many frames on the wire, in their order, as arrive there."""
    device = node.inside(lambda: socket.if_nametoindex("tunnel"))
    node.configure(tunnel=device, source=source)
    return node.inside(lambda: _through(node, hook, frames, interface))


def _through(
    node: Node, hook: Hook, frames: Sequence[bytes], interface: str
) -> list[bytes]:
    seen: list[bytes] = []
    with tap("wire") as wire, attached(node, hook, interface):
        for frame in frames:
            wire.send(frame)
        while len(seen) < len(frames):
            frame, source = wire.recvfrom(1 << 17)
            if source[2] != socket.PACKET_OUTGOING and is_tested(frame):
                seen.append(frame)
    return seen
