"""
Frames that really arrive on a node's uplink and really leave it again.

What BPF_PROG_TEST_RUN cannot show: VLAN tags, and what the kernel does behind a hook.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from struct import unpack_from

from bpf.harness import Node
from bpf.packets import ETHERNET, family_of_frame
from outgate.kernel import clsact, syscall
from outgate.kernel.attachments import has_tcx
from outgate.kernel.objects import Program
from outgate.kernel.syscall import AttachType
from outgate.state.entries import AttachmentKey, Family, Hook

ETH_P_ALL, ETH_P_8021Q = 3, 0x8100
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 0x10
"""From <linux/if_ether.h> and <linux/if_packet.h>."""

IPV6_DESTINATION = ETHERNET + 24


@dataclass(frozen=True, slots=True)
class Wire:
    """A frame as it came out of the node, and the VLAN that it was tagged with."""

    frame: bytes
    vlan: int | None


def is_tested(frame: bytes) -> bool:
    """Is *frame* something else than what a kernel says to its link by itself?"""
    family = family_of_frame(frame)
    if family is Family.V6:
        return frame[IPV6_DESTINATION] != 0xFF
    return family is Family.V4


@contextmanager
def tap(interface: str) -> Iterator[socket.socket]:
    """Open a packet socket on *interface*; to be used inside the node."""
    everything = socket.htons(ETH_P_ALL)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, everything) as opened:
        opened.bind((interface, ETH_P_ALL))
        opened.settimeout(2)
        yield opened


@contextmanager
def attached(node: Node, hook: Hook, interface: str = "uplink") -> Iterator[None]:
    """Let *hook* have what arrives on *interface*; to be used inside the node."""
    index, key = socket.if_nametoindex(interface), AttachmentKey(interface, hook)
    programs = {f: Program(hook, f, node.program(hook, f), 0) for f in Family}
    links: list[int] = []
    try:
        if not has_tcx():
            clsact.attach(key, index, programs)
        for program in programs.values() if has_tcx() else ():
            link = syscall.link_create(program.fd, index, AttachType.TCX_INGRESS)
            links.append(link)
        yield
    finally:
        clsact.detach(key)
        for link in links:
            os.close(link)


def send_tagged(node: Node, hook: Hook, packet: bytes, vlan: int) -> Wire:
    """Run *hook* on a frame that really arrives, with a VLAN tag, on the uplink."""
    return node.inside(lambda: _send_tagged(node, hook, packet, vlan))


def _send_tagged(node: Node, hook: Hook, packet: bytes, vlan: int) -> Wire:
    tag = ETH_P_8021Q.to_bytes(2, "big") + vlan.to_bytes(2, "big")
    with tap("wire") as wire, attached(node, hook):
        wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        wire.send(packet[:12] + tag + packet[12:])
        while True:
            frame, [(_, _, auxiliary)], _, source = wire.recvmsg(2048, 256)
            if source[2] != socket.PACKET_OUTGOING and is_tested(frame):
                status, vlan_after = unpack_from("=I12xH", auxiliary)
                has_tag = bool(status & TP_STATUS_VLAN_VALID)
                return Wire(node.untunnelled(frame), vlan_after if has_tag else None)
