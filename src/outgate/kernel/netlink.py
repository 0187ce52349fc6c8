"""
Links, addresses and routes by netlink: observed as facts, watched, and one tunnel.

The only importer of pyroute2; its messages stop here and become ``NodeFacts``.
Everything acts on the network namespace of the calling thread.

Source: Linux ``Documentation/networking/vxlan.rst`` for the collect-metadata device.
"""

import errno
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from outgate.errors import KernelError
from outgate.state.entries import Address, InterfaceIndex, TunnelDevice
from outgate.state.facts import Link, NodeFacts

AF_INET = 2
AF_INET6 = 10
TABLE_MAIN = 254
RTN_UNICAST = 1
RT_SCOPE_UNIVERSE = 0
IFF_UP = 1
EVENT_GROUPS = 0x1 | 0x8 | 0x10 | 0x40 | 0x100 | 0x400
"""
RTMGRP_LINK, _TC, _IPV4_IFADDR and _IPV4_ROUTE, _IPV6_IFADDR and _IPV6_ROUTE.

TC tells when somebody takes classifiers of ours away (``kernel.clsact``).
"""

NOT_THERE = 0x08 | 0x40
"""
IFA_F_DADFAILED, IFA_F_TENTATIVE.

An IPv6 address that somebody else has, or of which that is not known yet: nothing
may leave under it.  A deprecated one is there: sockets keep it, and who names it in a
policy chose it, as RFC 4862 (5.5.4) allows; it is the usual way to add an address that
the node itself does not prefer.
"""


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at the namespace; *tunnel* is None unless the device is as it must."""

    facts: NodeFacts
    tunnel: TunnelDevice | None
    tunnel_index: InterfaceIndex
    tunnel_mac: bytes


@contextmanager
def _translated(operation: str, detail: str = "") -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise KernelError(operation, error.code, detail) from error
    except OSError as error:
        raise KernelError(operation, error.errno or 0, detail) from error


async def observe(tunnel_name: str) -> Observed:
    """Return the facts of this namespace, and the state of the tunnel device."""
    with _translated("observe links"):
        async with AsyncIPRoute() as netlink:
            messages = [m async for m in await netlink.link("dump")]
            addresses = await _addresses(netlink)
            default = await _default_index(netlink, AF_INET)
            default_v6 = await _default_index(netlink, AF_INET6)
    links = tuple(_link(m, addresses.get(m["index"], ())) for m in messages)
    names = {link.index: link.name for link in links}
    facts = NodeFacts(links, names.get(default), names.get(default_v6))
    for message in messages:
        if message.get("ifname") == tunnel_name:
            mac = bytes.fromhex((message.get("address") or "").replace(":", ""))
            index = InterfaceIndex(message["index"])
            return Observed(facts, _tunnel(message), index, mac or bytes(6))
    return Observed(facts, None, InterfaceIndex(0), bytes(6))


async def _addresses(netlink: AsyncIPRoute) -> dict[int, tuple[Address, ...]]:
    found: dict[int, tuple[Address, ...]] = {}
    async for message in await netlink.addr("dump"):
        family, scope, flags = (message[f] for f in ("family", "scope", "flags"))
        is_lasting = scope == RT_SCOPE_UNIVERSE and not flags & NOT_THERE
        if family == AF_INET or (family == AF_INET6 and is_lasting):
            # On a point-to-point link ``address`` is the peer's, ``local`` is ours.
            text = message.get("local") or message.get("address")
            index = message["index"]
            found[index] = (*found.get(index, ()), ip_address(text))
    return found


async def _default_index(netlink: AsyncIPRoute, family: int) -> InterfaceIndex:
    """Return the interface of the preferred default route, 0 when there is none."""
    best: tuple[int, int] | None = None
    async for message in await netlink.route("dump", family=family, table=TABLE_MAIN):
        if message["dst_len"] or message["type"] != RTN_UNICAST:
            continue
        hops = message.get("multipath") or ()
        index = message.get("oif") or next((hop["oif"] for hop in hops), 0)
        candidate = (message.get("priority") or 0, index)
        if index and (best is None or candidate < best):
            best = candidate
    return InterfaceIndex(best[1] if best else 0)


def _link(message: Any, addresses: tuple[Address, ...]) -> Link:
    kind = message.get(("linkinfo", "kind")) or ""
    return Link(
        name=message.get("ifname"),
        index=InterfaceIndex(message["index"]),
        kind=kind,
        addresses=addresses,
        peer_elsewhere=kind == "veth" and message.get("link_netnsid") is not None,
        is_up=bool(message["flags"] & IFF_UP),
        mtu=message.get("mtu") or 0,
    )


def _tunnel(message: Any) -> TunnelDevice | None:
    """Return the device, or None where it is of another kind, or down."""
    read = message.get
    if read(("linkinfo", "kind")) != "vxlan" or not message["flags"] & IFF_UP:
        return None
    if not read(("linkinfo", "data", "vxlan_collect_metadata")):
        return None
    return TunnelDevice(read("ifname"), read(("linkinfo", "data", "vxlan_port")))


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
