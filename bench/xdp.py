"""
The XDP programs of a gateway, attached and told what they may send out of.

As an agent does it, for nodes of ``bpf.harness``, which have loaded them.
"""

import re
import socket
from collections.abc import Iterable
from functools import partial

from bench.network import Namespace
from bpf.harness import Node
from bpf.uplink import PEER_MAC, UPLINK, command
from outgate.kernel import syscall
from outgate.kernel.layouts import XDP_DEVICE, XDP_DEVICE_KEY, XDP_PROGRAM
from outgate.kernel.maps import MapName
from outgate.kernel.xdp import IPV6
from outgate.state.entries import Family, Hook


def allow(node: Node, index: int, mtu: int, *, is_veth: bool) -> None:
    """
    Let XDP send out of an interface, and the IPv4 program call the IPv6 one.

    Not *is_veth*: the driver wakes its peer after XDP_TX, as NICs do.
    """
    other = node.program(Hook.XDP_NETDEV, Family.V6)
    with node.table(MapName.XDP) as calls:
        calls.put(XDP_PROGRAM.pack(IPV6), XDP_PROGRAM.pack(other))
    with node.table(MapName.XDP_DEVICE) as devices:
        devices.put(XDP_DEVICE_KEY.pack(index), XDP_DEVICE.pack(mtu, is_veth))


def attach(node: Node, at: Namespace, interface: str, mtu: int) -> None:
    """Attach XDP to an interface of *at*, in its driver; it ends with *at*."""
    index = at.inside(partial(socket.if_nametoindex, interface))
    allow(node, index, mtu, is_veth=True)
    number = syscall.program_id(node.program(Hook.XDP_NETDEV, Family.V4))
    at.run(f"bpftool net attach xdpdrv id {number} dev {interface}")


def taken(at: Namespace, interfaces: Iterable[str]) -> int:
    """Return how many packets XDP has sent on that came in by *interfaces*."""
    return sum(
        int(count)
        for interface in interfaces
        for count in _SENT.findall(at.output(f"ethtool -S {interface}"))
    )


_SENT = re.compile(r"rx_queue_\d+_xdp_(?:redirect|tx): (\d+)")


def let_in(node: Node) -> None:
    """
    Let BPF_PROG_TEST_RUN say that frames arrive on the uplink, and find its routers.

    A veth has receive queues with NAPI alone, and XDP asks nobody for an address.
    """
    node.inside(partial(command, "ethtool", "-K", "uplink", "gro", "on"))
    for of in UPLINK.values():
        words = ("neighbour", "replace", of.router, "lladdr", PEER_MAC)
        node.ip(*words, "dev", "uplink")
