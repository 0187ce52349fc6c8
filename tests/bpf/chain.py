"""
A pod, its node, a gateway and a server, joined by veths: real packets all the way.

::

    pod eth0 -- pod0 NODE up0 -- in0 GATEWAY out0 -- eth0 server
    10.0.1.42   .1   172.18.0.4  172.18.0.5  .1      203.0.113.9

Programs are attached as an agent does it, on both nodes with a way of its own into the
tunnel.  Each is a network namespace of a thread of this process, and ends with it.
"""

import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TypeVar

from bpf.harness import TUNNEL_PORT, Node, Setup
from bpf.nodemaps import CLONE_NEWNET
from bpf.uplink import command
from bpf.world import IPV4, POLICY, Rows, gateway_entries
from outgate.kernel import syscall
from outgate.kernel.settings import TunnelWay
from outgate.kernel.syscall import AttachType
from outgate.state.entries import (
    CLUSTER,
    HOST,
    WORLD,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Family,
    Hook,
    Identity,
    IpcacheEntry,
    IpcacheKey,
)

T = TypeVar("T")

POD, NODE, GATEWAY, SERVER = (
    *(IPV4.REMOTE_POD, IPV4.ELSEWHERE, IPV4.HERE, IPV4.SERVER),
)
TUNNEL, POD_MTU = "tunnel", 1450

INGRESS, EGRESS = AttachType.TCX_INGRESS, AttachType.TCX_EGRESS
POD_SIDE = {Hook.FROM_CONTAINER: INGRESS, Hook.TO_CONTAINER: EGRESS}
UPLINK_SIDE = {Hook.FROM_NETDEV: INGRESS, Hook.TO_NETDEV: EGRESS}
TUNNEL_SIDE = {Hook.FROM_OVERLAY: INGRESS}


class Place:
    """A network namespace, and the one thread that is in it."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, initializer=_isolate)
        task = self.inside(lambda: f"{os.getpid()}/task/{threading.get_native_id()}")
        self.path = f"/proc/{task}/ns/net"
        self.run("ip link set lo up")

    def inside(self, call: Callable[[], T]) -> T:
        """Run *call* in the namespace."""
        return self._worker.submit(call).result()

    def run(self, words: str) -> None:
        """Run a command, words apart by spaces."""
        self.inside(lambda: command(*words.split()))

    def set(self, name: str, value: str) -> None:
        """Set what lies below ``/proc/sys/net``."""
        self.inside(lambda: Path("/proc/sys/net", name).write_text(value))

    def received(self, link: str) -> int:
        """Return how many packets came in by *link*."""
        text = self.inside(lambda: Path("/proc/thread-self/net/dev").read_text())
        [line] = [x for x in text.splitlines() if x.strip().startswith(f"{link}:")]
        return int(line.split(":")[1].split()[1])

    def close(self) -> None:
        """End the thread, and with it the namespace."""
        self._worker.shutdown()


def _isolate() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")


@dataclass(frozen=True, slots=True)
class Chain:
    """The four; see the module's docstring."""

    pod: Place
    node: Place
    gateway: Place
    server: Place

    @property
    def links(self) -> list[tuple[Place, str]]:
        """Return every end of a wire."""
        return [
            *((self.pod, "eth0"), (self.node, "pod0"), (self.node, "up0")),
            *((self.gateway, "in0"), (self.gateway, "out0"), (self.server, "eth0")),
        ]


@contextmanager
def chain(pods_node: TunnelWay, gateway: TunnelWay) -> Iterator[Chain]:
    """Make the four, the two in the middle with these ways into the tunnel."""
    with ExitStack() as stack:
        places = []
        for _ in range(4):
            places.append(Place())
            stack.callback(places[-1].close)
        made = Chain(*places)
        _wire(made)
        node = stack.enter_context(Node(Setup(tunnel_way=pods_node)))
        node.put(pod_node_entries())
        at_pod = {"pod0": POD_SIDE, "up0": UPLINK_SIDE, TUNNEL: TUNNEL_SIDE}
        _start(stack, made.node, node, at_pod)
        node = stack.enter_context(Node(Setup(tunnel_way=gateway)))
        node.put(gateway_entries(IPV4))
        at_gate = {"in0": UPLINK_SIDE, "out0": UPLINK_SIDE, TUNNEL: TUNNEL_SIDE}
        _start(stack, made.gateway, node, at_gate)
        yield made


def _wire(made: Chain) -> None:
    for (one, link), (other, far) in zip(
        made.links[::2], made.links[1::2], strict=True
    ):
        peer = f"peer name {far} netns {other.path}"
        one.run(f"ip link add {link} type veth {peer}")
    for place, link in made.links:
        place.set(f"ipv6/conf/{link}/disable_ipv6", "1")
        place.set("ipv4/ip_forward", "1")
        place.run(f"ip link set {link} up")
    made.pod.run(f"ip link set eth0 mtu {POD_MTU}")
    for place, address, link in (
        (made.pod, f"{POD}/24", "eth0"),
        (made.node, "10.0.1.1/24", "pod0"),
        (made.node, f"{NODE}/16", "up0"),
        (made.gateway, f"{GATEWAY}/16", "in0"),
        (made.gateway, "203.0.113.1/24", "out0"),
        (made.server, f"{SERVER}/24", "eth0"),
    ):
        place.run(f"ip address add {address} dev {link}")
    made.pod.run("ip route add default via 10.0.1.1")
    made.node.run(f"ip route add default via {GATEWAY}")
    made.server.run("ip route add default via 203.0.113.1")


def _start(
    stack: ExitStack,
    place: Place,
    node: Node,
    hooks: dict[str, dict[Hook, AttachType]],
) -> None:
    place.run(f"ip link add {TUNNEL} type vxlan external dstport {TUNNEL_PORT}")
    place.set(f"ipv6/conf/{TUNNEL}/disable_ipv6", "1")
    place.run(f"ip link set {TUNNEL} mtu {POD_MTU} up")
    node.configure(tunnel=place.inside(lambda: socket.if_nametoindex(TUNNEL)))
    for link, sides in hooks.items():
        for fd in place.inside(partial(_attach, node, link, sides)):
            stack.callback(os.close, fd)


def _attach(node: Node, link: str, sides: dict[Hook, AttachType]) -> list[int]:
    index = socket.if_nametoindex(link)
    return [
        syscall.link_create(node.program(hook, family), index, side)
        for hook, side in sides.items()
        for family in Family
    ]


def pod_node_entries() -> Rows:
    """Return every row of the pod's node."""
    entries = IPV4.node_entries(GATEWAY)
    for network, identity in (
        (IPV4.EVERYTHING, WORLD),
        (IPV4.REMOTE_PODS, CLUSTER),
        (NODE, Identity(HOST)),
    ):
        entries[IpcacheKey(ip_network(network))] = IpcacheEntry(identity, None)
    here, pod = ip_address(NODE), ip_address(POD)
    entries[EndpointKey(here)] = EndpointEntry(EndpointFlag.HOST)
    entries[EndpointKey(pod)] = EndpointEntry(EndpointFlag.POD, is_selected=True)
    entries[CoveredKey(ip_network(IPV4.NETWORK))] = CoveredEntry(POLICY)
    entries[IPV4.row(POD, IPV4.NETWORK)] = IPV4.via(GATEWAY)
    return entries
