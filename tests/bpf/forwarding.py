"""
Real packets of a pod through a node's stack, past a plugin's masquerade, to the wire.

The pod is one end of a veth pair in the node's own namespace, so that tests can write
frames, marks included, as if the pod sent them; the node forwards and masquerades them.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bpf.harness import ETH_IPV4, ETH_P_ALL, Node
from bpf.packets import HOST_MAC, POD_MAC, UDP_NAME, Packet, outbound
from bpf.world import OTHER_SERVER
from outgate.kernel import syscall
from outgate.kernel.netfilter import FIRST_PRIORITY
from outgate.kernel.syscall import AttachType
from outgate.state.entries import Hook

SO_MARK = 36
UPLINK_MAC, ROUTER_MAC = "02:00:ac:12:00:05", "02:00:ac:12:00:01"
PODS = ("10.0.2.86", "10.0.2.99", "10.0.2.100", "10.0.2.200")

MASQUERADE = """
table ip plugin {
    chain postrouting {
        type nat hook postrouting priority 100;
        ip saddr 10.0.2.0/24 ip daddr != 10.0.0.0/8 masquerade
    }
}
"""


class Forwarder:
    """A node that forwards for pods; ``forwarding`` makes one."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._links: list[int] = []
        node.ip("link", "set", "uplink", "address", UPLINK_MAC)
        node.ip("neighbour", "add", "172.18.0.1", "lladdr", ROUTER_MAC, "dev", "uplink")
        self._add_veth()
        node.inside(lambda: self._attach(Hook.TO_NETDEV, "uplink", "egress"))
        node.inside(self._masquerade)

    def close(self) -> None:
        """Detach everything; the namespaces are the node's."""
        for link in self._links:
            os.close(link)
        self._node.ip("link", "delete", "veth")

    def _add_veth(self) -> None:
        pair = ("veth", "address", HOST_MAC, "type", "veth", "peer", "name", "pod")
        self._node.ip("link", "add", *pair, "address", POD_MAC)
        self._node.ip("address", "add", "10.0.2.1/24", "dev", "veth")
        for link in ("veth", "pod"):
            self._node.ip("link", "set", link, "up")
        for pod in PODS:
            self._node.ip("neighbour", "add", pod, "lladdr", POD_MAC, "dev", "veth")

    def _masquerade(self) -> None:
        subprocess.run(("nft", "-f", "-"), input=MASQUERADE, text=True, check=True)

    def _attach(self, hook: Hook, interface: str, side: str) -> None:
        index = socket.if_nametoindex(interface)
        attach_type = AttachType[f"TCX_{side.upper()}"]
        program = self._node.program(hook)
        self._links.append(syscall.link_create(program, index, attach_type))

    def hook_pod(self) -> None:
        """Give the pod's veth its two programs."""
        inside, attach = self._node.inside, self._attach
        inside(lambda: attach(Hook.FROM_CONTAINER, "veth", "ingress"))
        inside(lambda: attach(Hook.TO_CONTAINER, "veth", "egress"))

    def guard(self) -> None:
        """Put the guard into the forwarding path."""
        program = self._node.program(Hook.FORWARD_GUARD)
        create = syscall.link_create_forward
        link = self._node.inside(lambda: create(program, FIRST_PRIORITY))
        self._links.append(link)

    def send(self, packet: bytes, mark: int = 0) -> bytes | None:
        """
        Return the frame on the wire that follows from what a pod sends, or None.

        None is what comes out when a second packet, that nothing stops, overtakes.
        """
        probe = outbound(UDP_NAME, "10.0.2.100", OTHER_SERVER, 65000).build()
        expected = on_wire(outbound(UDP_NAME, "172.18.0.5", OTHER_SERVER, 65000))
        frame = self._node.inside(
            lambda: _pass("pod", "wire", (packet, mark), (probe, 0))
        )
        return None if frame == expected else frame

    def receive(self, packet: bytes) -> bytes:
        """Return what a pod gets when *packet* comes from the wire."""
        return self._node.inside(lambda: _pass("wire", "pod", (packet, 0)))


def _pass(source: str, target: str, *packets: tuple[bytes, int]) -> bytes:
    """Send packets with their marks into one interface; return what first leaves."""
    with _tap(target) as receiver, _tap(source) as sender:
        for packet, mark in packets:
            mark_bytes = mark.to_bytes(4, sys.byteorder)
            sender.setsockopt(socket.SOL_SOCKET, SO_MARK, mark_bytes)
            sender.send(packet)
        while True:
            frame, address = receiver.recvfrom(2048)
            if address[2] != socket.PACKET_OUTGOING and frame[12:14] == ETH_IPV4:
                return frame


@contextmanager
def _tap(interface: str) -> Iterator[socket.socket]:
    everything = socket.htons(ETH_P_ALL)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, everything) as tap:
        tap.bind((interface, ETH_P_ALL))
        tap.settimeout(2)
        yield tap


@contextmanager
def forwarding(node: Node) -> Iterator[Forwarder]:
    """Let *node* forward and masquerade what its pods send, without a guard yet."""
    forwarder = Forwarder(node)
    try:
        yield forwarder
    finally:
        forwarder.close()


def on_wire(packet: Packet) -> bytes:
    """Return *packet* one hop later, on its way to the router."""
    macs = {"source_mac": UPLINK_MAC, "destination_mac": ROUTER_MAC}
    return packet.but(ttl=packet.ttl - 1, **macs).build()
