"""
The kernel's netlink events, watched; and the one tunnel device, made and removed.

What is there ``kernel.devices`` reads; ``kernel.rtnetlink`` knows the messages.  Events
are not decoded: each says no more than look again.  Everything acts on the network
namespace of the calling thread.

Source: Linux ``Documentation/networking/vxlan.rst`` for the collect-metadata device.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from outgate.errors import KernelError
from outgate.kernel.devices import (
    AF_UNSPEC,
    IFF_UP,
    IFINFOMSG,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_VXLAN_COLLECT_METADATA,
    IFLA_VXLAN_PORT,
    observe,
)
from outgate.kernel.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    RouteSocket,
    attributes,
)
from outgate.state.entries import TunnelDevice

RTM_NEWLINK, RTM_DELLINK = 16, 17
IFLA_VXLAN_LEARNING = 7

EVENT_GROUPS = 0x1 | 0x8 | 0x10 | 0x40 | 0x100 | 0x400
"""
RTMGRP_LINK, _TC, _IPV4_IFADDR and _IPV4_ROUTE, _IPV6_IFADDR and _IPV6_ROUTE.

TC tells when somebody takes classifiers of ours away (``kernel.clsact``).
"""


@contextmanager
def _translated(operation: str, detail: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KernelError(operation, error.errno or 0, detail) from error


def create_tunnel(device: TunnelDevice) -> None:
    """
    Make a collect-metadata VXLAN device as *device* says, and bring it up.

    Such a device listens on the port of both families, as far as the kernel has them.
    A VXLAN device of that name which is not as it must be is replaced.  Errors:
    KernelError that names the setting ``tunnel-port`` when the port is taken, or
    ``tunnel-device`` when the name is that of a device of another kind.
    """
    mend = f"is UDP port {device.port} taken? choose another tunnel-port"
    remove_tunnel(device.name)
    with RouteSocket() as route:
        with _translated(f"create tunnel device {device.name}", mend):
            message = IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0) + _described(device)
            route.change(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, message)
            index = socket.if_nametoindex(device.name)
        try:
            with _translated(f"bring up tunnel device {device.name}", mend):
                message = IFINFOMSG.pack(AF_UNSPEC, 0, index, IFF_UP, IFF_UP)
                route.change(RTM_NEWLINK, 0, message)
        except KernelError:
            remove_tunnel(device.name)
            raise


def _described(device: TunnelDevice) -> bytes:
    data = {
        IFLA_VXLAN_LEARNING: b"\0",
        IFLA_VXLAN_PORT: device.port.to_bytes(2, "big"),
        IFLA_VXLAN_COLLECT_METADATA: b"\1",
    }
    info = {IFLA_INFO_KIND: b"vxlan\0", IFLA_INFO_DATA: attributes(data)}
    name = device.name.encode() + b"\0"
    return attributes({IFLA_IFNAME: name, IFLA_LINKINFO: attributes(info)})


def remove_tunnel(name: str) -> None:
    """Make the VXLAN device *name* be gone; a device of another kind stays."""
    operation = f"remove tunnel device {name}"
    with _translated(operation), RouteSocket() as route:
        for link in observe(name).facts.links:
            if link.name != name:
                continue
            if link.kind != "vxlan":
                mend = f"{name} is no VXLAN device; choose another tunnel-device"
                raise KernelError(operation, errno.EEXIST, mend)
            message = IFINFOMSG.pack(AF_UNSPEC, 0, link.index, 0, 0)
            route.change(RTM_DELLINK, 0, message)


async def watch() -> AsyncIterator[None]:
    """
    Yield once at the start, and whenever a link, its queueing, an address or a route
    changed; a burst of changes yields once.

    An overrun of the event queue counts as a change: the receiver looks again
    anyway, and the stream lives on.
    """
    loop = asyncio.get_running_loop()
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE) as events:
        with _translated("subscribe to netlink events"):
            events.bind((0, EVENT_GROUPS))
        yield
        while True:
            with _translated("read netlink events"):
                try:
                    await loop.sock_recv(events, 1)
                    _drain(events)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
            yield


def _drain(events: socket.socket) -> None:
    """Take what else has arrived; what is longer than asked for is cut off."""
    try:
        while True:
            events.recv(1)
    except BlockingIOError:
        return
