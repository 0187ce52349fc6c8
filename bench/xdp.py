"""
The XDP programs of a node's gateway, as an agent would have them: loaded and attached.

One program sees all frames of an interface, and calls the other IP family's; both send
only out of interfaces that a table names.
"""

import os
import socket
import sys
from contextlib import ExitStack
from functools import partial
from struct import Struct

from bench.network import Namespace
from bpf.harness import Node, Setup
from bpf.uplink import PEER_MAC, UPLINK, command
from outgate.kernel import syscall
from outgate.kernel.objects import load_program
from outgate.state.entries import Family

XDP_NETDEV = "xdp_netdev"
CALLS, DEVICES = "outgate_xdp", "outgate_xdp_device"
DEVICE_ROW = Struct("=I")
"""Both of a key, an interface's index, and of a value, its MTU."""


class Gate:
    """Both families' programs over a node's maps; *entry* is the one to attach."""

    def __init__(self, node: Node, setup: Setup, stack: ExitStack) -> None:
        self._node = node
        settings = setup.datapath
        raw, sizes = settings.encode(), settings.sizes
        programs = {
            family: node.inside(
                partial(load_program, XDP_NETDEV, family, node.pins, raw, sizes)
            ).fd
            for family in Family
        }
        for program in programs.values():
            stack.callback(os.close, program)
        self.entry, self._other = programs[Family.V4], programs[Family.V6]

    def allow(self, index: int, mtu: int) -> None:
        """Let it send out of an interface, and call the other family's program."""
        with self._node.table(CALLS) as calls:
            calls.put(bytes(4), self._other.to_bytes(4, sys.byteorder))
        with self._node.table(DEVICES) as devices:
            devices.put(DEVICE_ROW.pack(index), DEVICE_ROW.pack(mtu))

    def attach(self, at: Namespace, interface: str, mtu: int) -> None:
        """Attach it to an interface of *at*, in the driver; it ends with *at*."""
        self.allow(at.inside(partial(socket.if_nametoindex, interface)), mtu)
        number = syscall.program_id(self.entry)
        at.run(f"bpftool net attach xdpdrv id {number} dev {interface}")


def let_in(node: Node) -> None:
    """
    Let BPF_PROG_TEST_RUN say that frames arrive on the uplink, and find its routers.

    A veth has receive queues with NAPI alone, and XDP asks nobody for an address.
    """
    node.inside(partial(command, "ethtool", "-K", "uplink", "gro", "on"))
    for of in UPLINK.values():
        words = ("neighbour", "replace", of.router, "lladdr", PEER_MAC)
        node.ip(*words, "dev", "uplink")
