"""
Links, addresses and routes by netlink: watched; and the one tunnel device, made.

The only importer of pyroute2; its messages stop here.  What is there ``kernel.devices``
reads.  Everything acts on the network namespace of the calling thread.

Source: Linux ``Documentation/networking/vxlan.rst`` for the collect-metadata device.
"""

import errno
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from outgate.errors import KernelError
from outgate.state.entries import TunnelDevice

EVENT_GROUPS = 0x1 | 0x8 | 0x10 | 0x40 | 0x100 | 0x400
"""
RTMGRP_LINK, _TC, _IPV4_IFADDR and _IPV4_ROUTE, _IPV6_IFADDR and _IPV6_ROUTE.

TC tells when somebody takes classifiers of ours away (``kernel.clsact``).
"""


@contextmanager
def _translated(operation: str, detail: str = "") -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise KernelError(operation, error.code, detail) from error
    except OSError as error:
        raise KernelError(operation, error.errno or 0, detail) from error


async def create_tunnel(device: TunnelDevice) -> None:
    """
    Make a collect-metadata VXLAN device as *device* says, and bring it up.

    Such a device listens on the port of both families, as far as the kernel has them.
    A VXLAN device of that name which is not as it must be is replaced.  Errors:
    KernelError that names the setting ``tunnel-port`` when the port is taken, or
    ``tunnel-device`` when the name is that of a device of another kind.
    """
    mend = f"is UDP port {device.port} taken? choose another tunnel-port"
    await remove_tunnel(device.name)
    async with AsyncIPRoute() as netlink:
        with _translated(f"create tunnel device {device.name}", mend):
            await netlink.link(
                "add",
                ifname=device.name,
                kind="vxlan",
                vxlan_collect_metadata=True,
                vxlan_port=device.port,
                vxlan_learning=False,
            )
            found = await netlink.link_lookup(ifname=device.name)
        try:
            with _translated(f"bring up tunnel device {device.name}", mend):
                await netlink.link("set", index=found[0], state="up")
        except KernelError:
            await remove_tunnel(device.name)
            raise


async def remove_tunnel(name: str) -> None:
    """Make the VXLAN device *name* be gone; a device of another kind stays."""
    operation = f"remove tunnel device {name}"
    with _translated(operation):
        async with AsyncIPRoute() as netlink:
            for index in await netlink.link_lookup(ifname=name):
                (message,) = await netlink.link("get", index=index)
                if message.get(("linkinfo", "kind")) != "vxlan":
                    mend = f"{name} is no VXLAN device; choose another tunnel-device"
                    raise KernelError(operation, errno.EEXIST, mend)
                await netlink.link("del", index=index)


async def watch() -> AsyncIterator[None]:
    """
    Yield once at the start, and whenever a link, its queueing, an address or a route
    changed.

    An overrun of the event queue counts as a change: the receiver looks again
    anyway, and the stream lives on.
    """
    async with AsyncIPRoute() as netlink:
        with _translated("subscribe to netlink events"):
            await netlink.bind(groups=EVENT_GROUPS)
        yield
        while True:
            try:
                async for _ in netlink.get():
                    yield
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    operation = "read netlink events"
                    raise KernelError(operation, error.errno or 0) from error
                yield
