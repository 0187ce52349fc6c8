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
from functools import partial
from pathlib import Path
from struct import pack, unpack

from bpf.harness import Node
from bpf.packets import HOST_MAC, POD_MAC, UDP_NAME, Packet, family_of_frame, outbound
from bpf.uplink import command
from bpf.wire import is_tested, tap
from bpf.world import IPV4, IPV6, World, gateway_entries
from outgate.kernel import syscall
from outgate.kernel.netfilter import FIRST_PRIORITY, PROTOCOLS
from outgate.kernel.syscall import AttachType
from outgate.state.entries import Family, Hook

SO_MARK = 36
UPLINK_MAC, ROUTER_MAC = "02:00:ac:12:00:05", "02:00:ac:12:00:01"
MASQUERADE = f"""
table inet plugin {{
    chain postrouting {{
        type nat hook postrouting priority 100;
        ip saddr {IPV4.LOCAL_PODS} ip daddr != {IPV4.CLUSTER_NETWORK} masquerade
        ip6 saddr {IPV6.LOCAL_PODS} ip6 daddr != {IPV6.CLUSTER_NETWORK} masquerade
    }}
}}
"""


NETLINK_NETFILTER = 12
FORGET_ALL = pack("=IHHIIBBH", 20, 1 << 8 | 2, 1 | 4, 1, 0, 0, 0, 0)
"""Deletion of conntrack entries, of all of them, with an answer that says so."""


class Forwarder:
    """A node that forwards for pods of both families; ``forwarding`` makes one."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._links: list[int] = []
        node.ip("link", "set", "uplink", "address", UPLINK_MAC)
        self._add_veth()
        for world in (IPV4, IPV6):
            self._add_neighbours(world)
        node.inside(self._masquerade)

    def start(self, world: World) -> None:
        """Begin anew: no guard, no pod's hooks, and the rows of *world*'s gateway."""
        self.stop()
        self.node.inside(_forget_connections)
        self.node.reset()
        self.node.put(gateway_entries(world))
        self.node.inside(lambda: self._attach(Hook.TO_NETDEV, "uplink", "egress"))

    def stop(self) -> None:
        """Detach everything."""
        while self._links:
            os.close(self._links.pop())

    def _add_veth(self) -> None:
        pair = ("veth", "address", HOST_MAC, "type", "veth", "peer", "name", "pod")
        self.node.ip("link", "add", *pair, "address", POD_MAC)
        self.node.inside(_keep_quiet)
        for link in ("veth", "pod"):
            self.node.ip("link", "set", link, "up")

    def _add_neighbours(self, world: World) -> None:
        ip, at = self.node.ip, ("dev", "veth")
        router, prefix = world.POD_ROUTER, world.LOCAL_PODS.rpartition("/")[2]
        no_wait = ("nodad",) if world.family is Family.V6 else ()
        ip("address", "add", f"{router}/{prefix}", *at, *no_wait)
        ip("neighbour", "add", world.ROUTER, "lladdr", ROUTER_MAC, "dev", "uplink")
        pods = (world.LOCAL_POD, world.TUNNELLED_POD, world.FREE_POD, world.UNKNOWN_POD)
        for pod in pods:
            ip("neighbour", "add", pod, "lladdr", POD_MAC, *at)

    def _masquerade(self) -> None:
        subprocess.run(("nft", "-f", "-"), input=MASQUERADE, text=True, check=True)

    def _attach(self, hook: Hook, interface: str, side: str) -> None:
        index = socket.if_nametoindex(interface)
        attach_type = AttachType[f"TCX_{side.upper()}"]
        for family in Family:
            program = self.node.program(hook, family)
            self._links.append(syscall.link_create(program, index, attach_type))

    def hook_pod(self) -> None:
        """Give the pod's veth its programs."""
        inside, attach = self.node.inside, self._attach
        inside(lambda: attach(Hook.FROM_CONTAINER, "veth", "ingress"))
        inside(lambda: attach(Hook.TO_CONTAINER, "veth", "egress"))

    def guard(self) -> None:
        """Put the guard into the forwarding path."""
        for family, protocol in PROTOCOLS.items():
            program = self.node.program(Hook.FORWARD_GUARD, family)
            self._links.append(self.node.inside(partial(_guard, program, protocol)))

    def send(self, packet: bytes, mark: int = 0) -> bytes | None:
        """
        Return the frame on the wire that follows from what a pod sends, or None.

        None is what comes out when a second packet, that nothing stops, overtakes.
        """
        world = IPV4 if family_of_frame(packet) is Family.V4 else IPV6
        probe = outbound(UDP_NAME, world.FREE_POD, world.OTHER_SERVER, 65000)
        expected = on_wire(probe.but(source=world.HERE))
        frame = self.node.inside(
            lambda: _pass("pod", "wire", (packet, mark), (probe.build(), 0))
        )
        return None if frame == expected else frame

    def receive(self, packet: bytes) -> bytes:
        """Return what a pod gets when *packet* comes from the wire."""
        return self.node.inside(lambda: _pass("wire", "pod", (packet, 0)))


def _pass(source: str, target: str, *packets: tuple[bytes, int]) -> bytes:
    """Send packets with their marks into one interface; return what first leaves."""
    with tap(target) as receiver, tap(source) as sender:
        for packet, mark in packets:
            mark_bytes = mark.to_bytes(4, sys.byteorder)
            sender.setsockopt(socket.SOL_SOCKET, SO_MARK, mark_bytes)
            sender.send(packet)
        while True:
            frame, address = receiver.recvfrom(2048)
            if address[2] != socket.PACKET_OUTGOING and is_tested(frame):
                return frame


def _guard(program: int, protocol: int) -> int:
    return syscall.link_create_forward(program, FIRST_PRIORITY, protocol)


def _forget_connections() -> None:
    """Let conntrack forget all, so that masquerade finds every port free again."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as door:
        door.send(FORGET_ALL)
        size, _, _, _, _, error = unpack("=IHHIIi", door.recv(4096)[:20])
        assert (error, size > 0) == (0, True)


def _keep_quiet() -> None:
    """Let the ends of the pod's veth say nothing of IPv6 by themselves."""
    Path("/proc/sys/net/ipv6/conf/pod/disable_ipv6").write_text("1")
    command("ip", "link", "set", "veth", "addrgenmode", "none")


@contextmanager
def forwarding() -> Iterator[Forwarder]:
    """Make a node that forwards and masquerades what its pods send."""
    with Node() as node:
        forwarder = Forwarder(node)
        try:
            yield forwarder
        finally:
            forwarder.stop()


def on_wire(packet: Packet) -> bytes:
    """Return *packet* one hop later, on its way to the router."""
    macs = {"source_mac": UPLINK_MAC, "destination_mac": ROUTER_MAC}
    return packet.but(ttl=packet.ttl - 1, **macs).build()
