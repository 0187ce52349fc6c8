"""
A pod, its node, a gateway and a server, each a network namespace, joined by veths.

::

    pod eth0 ── pod0 NODE up0 ── in0 GATEWAY out0 ── eth0 server
    10.0.1.42   .1   172.18.0.4  172.18.0.5  203.0.113.1  203.0.113.9

Addresses, neighbours and plain routes are set; what else happens on the way is up to
``paths``.  A namespace belongs to one thread of this process and ends with it.
"""

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bpf.uplink import command
from bpf.world import IPV4

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
POD, NODE, GATEWAY, SERVER = (
    *(IPV4.REMOTE_POD, IPV4.ELSEWHERE, IPV4.HERE, IPV4.SERVER),
)
POD_ROUTER, SERVER_ROUTER = "10.0.1.1", "203.0.113.1"
POD_MTU = 1450
"""Leaves room for the tunnel's headers; the same on every path."""

UPLINK_MTU = 1500

MACS = {
    "pod.eth0": "02:00:00:00:01:2a",
    "node.pod0": "02:00:00:00:01:01",
    "node.up0": "02:00:ac:12:00:04",
    "gateway.in0": "02:00:ac:12:00:05",
    "gateway.out0": "02:00:cb:00:71:01",
    "server.eth0": "02:00:cb:00:71:09",
}


class Namespace:
    """A network namespace, and the one thread that is in it."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, initializer=_isolate)
        self.path = self.inside(
            lambda: f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
        )

    def inside(self, call: Callable[[], T]) -> T:
        """Run *call* in the namespace."""
        return self._worker.submit(call).result()

    def run(self, words: str) -> None:
        """Run a command, words apart by spaces, in the namespace."""
        self.inside(lambda: command(*words.split()))

    def output(self, words: str) -> str:
        """Return what a command prints, words apart by spaces, in the namespace."""
        return self.inside(
            lambda: (
                subprocess.run(
                    words.split(), check=True, capture_output=True, text=True
                ).stdout
            )
        )

    def set(self, name: str, value: str) -> None:
        """Set what lies below ``/proc/sys/net``."""
        path = Path("/proc/sys/net") / name
        self.inside(lambda: path.write_text(value))

    def close(self) -> None:
        """End the thread, and with it the namespace."""
        self._worker.shutdown()


def _isolate() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")


@dataclass(frozen=True, slots=True)
class Network:
    """
    The four; see the module's docstring.

    *rest* is what somebody has to do now and then on a path, in nobody's figure;
    *taken* tells how many packets XDP has sent on at the gateway, where there is XDP.
    """

    pod: Namespace
    node: Namespace
    gateway: Namespace
    server: Namespace
    rest: Callable[[], object] = lambda: None
    taken: Callable[[], int] | None = None


@contextmanager
def network() -> Iterator[Network]:
    """Make the four namespaces, their wires, addresses and routes."""
    with ExitStack() as stack:
        made = []
        for _ in range(4):
            made.append(Namespace())
            stack.callback(made[-1].close)
        pod, node, gateway, server = made
        net = Network(pod, node, gateway, server)
        _wire(net.pod, "pod.eth0", net.node, "node.pod0")
        _wire(net.node, "node.up0", net.gateway, "gateway.in0")
        _wire(net.gateway, "gateway.out0", net.server, "server.eth0")
        for link, at in (("pod0", net.node), ("eth0", net.pod)):
            at.run(f"ip link set {link} mtu {POD_MTU}")
        _address(net)
        for namespace in made:
            namespace.set("ipv4/ip_forward", "1")
        yield net


def _wire(one: Namespace, name: str, other: Namespace, far_name: str) -> None:
    (_, link), (_, far) = name.split("."), far_name.split(".")
    macs = f"address {MACS[name]}", f"address {MACS[far_name]}"
    one.run(
        f"ip link add {link} {macs[0]} type veth"
        f" peer name {far} {macs[1]} netns {other.path}"
    )
    for namespace, end in ((one, link), (other, far)):
        namespace.set(f"ipv6/conf/{end}/disable_ipv6", "1")
        namespace.set(f"ipv4/conf/{end}/rp_filter", "0")
        namespace.run("ip link set lo up")
        namespace.run(f"ip link set {end} up")
        # A veth that redirected frames come out of needs NAPI, which GRO gives it.
        namespace.run(f"ethtool -K {end} gro on")


def _address(net: Network) -> None:
    pods, servers = IPV4.REMOTE_PODS, IPV4.NETWORK
    for namespace, lines in (
        (
            net.pod,
            f"address add {POD}/24 dev eth0\n"
            f"route add default via {POD_ROUTER}\n"
            f"neighbour add {POD_ROUTER} lladdr {MACS['node.pod0']} dev eth0\n",
        ),
        (
            net.node,
            f"address add {POD_ROUTER}/24 dev pod0\n"
            f"address add {NODE}/16 dev up0\n"
            f"route add {servers} via {GATEWAY}\n"
            f"neighbour add {POD} lladdr {MACS['pod.eth0']} dev pod0\n"
            f"neighbour add {GATEWAY} lladdr {MACS['gateway.in0']} dev up0\n",
        ),
        (
            net.gateway,
            f"address add {GATEWAY}/16 dev in0\n"
            f"address add {SERVER_ROUTER}/24 dev out0\n"
            f"route add {pods} via {NODE}\n"
            f"neighbour add {NODE} lladdr {MACS['node.up0']} dev in0\n"
            f"neighbour add {SERVER} lladdr {MACS['server.eth0']} dev out0\n",
        ),
        (
            net.server,
            f"address add {SERVER}/24 dev eth0\n"
            f"route add default via {SERVER_ROUTER}\n"
            f"neighbour add {SERVER_ROUTER} lladdr {MACS['gateway.out0']} dev eth0\n",
        ),
    ):
        for line in lines.splitlines():
            namespace.run(f"ip {line}")
