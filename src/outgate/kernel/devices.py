"""
Links, addresses and default routes of this network namespace, as facts; the tunnel too.

Read by plain netlink dumps (``kernel.rtnetlink``), because a node has hundreds of links
and may have thousands of routes, and each new pod brings another look: what is not
needed is not decoded.  ``kernel.netlink`` tells when to look again.

Source: Linux ``include/uapi/linux/{rtnetlink,if_link,if_addr}.h``.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from struct import Struct

from outgate.errors import KernelError
from outgate.kernel.layouts import address
from outgate.kernel.rtnetlink import (
    RouteSocket,
    attributes,
    each_attribute,
    parse_attributes,
)
from outgate.state.entries import Address, Family, InterfaceIndex, TunnelDevice
from outgate.state.facts import Link, NodeFacts, XdpFeature, XdpProgram

RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE = 18, 22, 26
AF_UNSPEC, AF_INET, AF_INET6 = 0, 2, 10
AF_OF = {Family.V4: AF_INET, Family.V6: AF_INET6}

IFINFOMSG = Struct("=B x H i I I")
"""Family, type, index, flags, change."""

IFADDRMSG = Struct("=B B B B I")
"""Family, prefix length, flags, scope, index."""

RTMSG = Struct("=B B B B B B B B I")
"""Family, two prefix lengths, tos, table, protocol, scope, type, flags."""

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO = 1, 3, 4, 18
IFLA_LINK, IFLA_XDP = 5, 43
IFLA_EXT_MASK, IFLA_LINK_NETNSID, IFLA_PROP_LIST, IFLA_ALT_IFNAME = 29, 37, 52, 53
IFLA_XDP_ATTACHED, IFLA_XDP_DRV_PROG_ID = 2, 5
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_VXLAN_PORT, IFLA_VXLAN_COLLECT_METADATA = 15, 25
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_OIF, RTA_PRIORITY, RTA_MULTIPATH = 4, 6, 9

SKIP_STATISTICS = (1 << 3).to_bytes(4, sys.byteorder)
"""RTEXT_FILTER_SKIP_STATS."""

TABLE_MAIN = 254
RTN_UNICAST = 1
RT_SCOPE_UNIVERSE = 0
IFF_UP = 1

NOT_THERE = 0x08 | 0x40
"""
IFA_F_DADFAILED, IFA_F_TENTATIVE.

An IPv6 address that somebody else has, or of which that is not known yet: nothing
may leave under it.  A deprecated one is there: sockets keep it, and who names it in a
policy chose it, as RFC 4862 (5.5.4) allows; it is the usual way to add an address that
the node itself does not prefer.
"""


@dataclass(frozen=True, slots=True)
class XdpKnown:
    """
    What is known of XDP beside what links say.

    *programs* tells whose a program is by its id, *features* what drivers can by
    interface index; None: nobody tells.
    """

    programs: Mapping[int, XdpProgram] = field(default_factory=dict)
    features: Mapping[int, XdpFeature] | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at the namespace; *tunnel* is None unless the device is as it must."""

    facts: NodeFacts
    tunnel: TunnelDevice | None
    tunnel_index: InterfaceIndex
    tunnel_mac: bytes


def observe(tunnel_name: str, xdp: XdpKnown | None = None) -> Observed:
    """
    Return the facts of this namespace, and the state of the tunnel device.

    Errors: KernelError.
    """
    try:
        with RouteSocket() as route:
            addresses = _addresses(route)
            dump = [
                (raw, parse_attributes(raw[IFINFOMSG.size :]))
                for raw in _dump_links(route)
            ]
            under_vlans = _under_vlans(given for _, given in dump)
            seen = _Seen(addresses, xdp or XdpKnown(), under_vlans)
            found = [(_link(raw, given, seen), given) for raw, given in dump]
            default = {f: _default_index(route, AF_OF[f]) for f in Family}
    except OSError as error:
        raise KernelError("observe links", error.errno or 0) from error
    names = {link.index: link.name for link, _ in found}
    facts = NodeFacts(
        tuple(link for link, _ in found),
        names.get(default[Family.V4]),
        names.get(default[Family.V6]),
    )
    for link, given in found:
        if link.name == tunnel_name:
            mac = given.get(IFLA_ADDRESS) or bytes(6)
            return Observed(facts, _tunnel(link, given), link.index, mac)
    return Observed(facts, None, InterfaceIndex(0), bytes(6))


def _dump_links(route: RouteSocket) -> list[bytes]:
    request = IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0)
    return route.dump_whole(
        RTM_GETLINK, request + attributes({IFLA_EXT_MASK: SKIP_STATISTICS})
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What of links is not in their own messages, by index."""

    addresses: Mapping[int, list[Address]]
    xdp: XdpKnown
    under_vlans: frozenset[int]


def _under_vlans(links: Iterable[dict[int, bytes]]) -> frozenset[int]:
    """Return the interfaces that VLAN devices among *links* stand on."""
    return frozenset(
        _number(given.get(IFLA_LINK, b"")) for given in links if _kind(given) == "vlan"
    )


def _xdp_program(given: dict[int, bytes], xdp: XdpKnown) -> XdpProgram:
    """Return whose program runs; those of other modes than the native are not ours."""
    told = parse_attributes(given.get(IFLA_XDP, b""))
    if not any(told.get(IFLA_XDP_ATTACHED, b"")):
        return XdpProgram.NONE
    number = _number(told.get(IFLA_XDP_DRV_PROG_ID, b""))
    return xdp.programs.get(number, XdpProgram.FOREIGN)


def _link(raw: bytes, given: dict[int, bytes], seen: _Seen) -> Link:
    _, _, index, flags, _ = IFINFOMSG.unpack_from(raw)
    kind = _kind(given)
    return Link(
        name=_text(given[IFLA_IFNAME]),
        index=InterfaceIndex(index),
        kind=kind,
        addresses=tuple(seen.addresses.get(index, ())),
        peer_elsewhere=kind == "veth" and IFLA_LINK_NETNSID in given,
        is_up=bool(flags & IFF_UP),
        mtu=_number(given.get(IFLA_MTU, b"")),
        altnames=tuple(
            _text(name)
            for kind_of, name in each_attribute(given.get(IFLA_PROP_LIST, b""))
            if kind_of == IFLA_ALT_IFNAME
        ),
        has_vlans=index in seen.under_vlans,
        xdp_features=None
        if seen.xdp.features is None
        else seen.xdp.features.get(index),
        xdp_program=_xdp_program(given, seen.xdp),
    )


def _kind(given: dict[int, bytes]) -> str:
    return _text(_link_info(given).get(IFLA_INFO_KIND, b""))


def _link_info(given: dict[int, bytes]) -> dict[int, bytes]:
    return parse_attributes(given.get(IFLA_LINKINFO, b""))


def _tunnel(link: Link, given: dict[int, bytes]) -> TunnelDevice | None:
    """Return the device, or None where it is of another kind, or down."""
    if link.kind != "vxlan" or not link.is_up:
        return None
    data = parse_attributes(_link_info(given).get(IFLA_INFO_DATA, b""))
    if not any(data.get(IFLA_VXLAN_COLLECT_METADATA, b"")):
        return None
    return TunnelDevice(link.name, int.from_bytes(data[IFLA_VXLAN_PORT], "big"))


def _addresses(route: RouteSocket) -> dict[int, list[Address]]:
    """Return addresses by interface, in the kernel's order."""
    found: dict[int, list[Address]] = defaultdict(list)
    request = IFADDRMSG.pack(AF_UNSPEC, 0, 0, 0, 0)
    for raw in route.dump_whole(RTM_GETADDR, request):
        family, _, flags, scope, index = IFADDRMSG.unpack_from(raw)
        is_lasting = scope == RT_SCOPE_UNIVERSE and not flags & NOT_THERE
        if family == AF_INET or (family == AF_INET6 and is_lasting):
            given = parse_attributes(raw[IFADDRMSG.size :])
            # On a point-to-point link IFA_ADDRESS is the peer's, IFA_LOCAL is ours.
            packed = given.get(IFA_LOCAL) or given[IFA_ADDRESS]
            found[index].append(address(packed))
    return found


def _default_index(route: RouteSocket, family: int) -> InterfaceIndex:
    """Return the interface of the preferred default route, 0 when there is none."""
    best: tuple[int, int] | None = None
    request = RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    for raw in route.dump(RTM_GETROUTE, request):
        _, length, _, _, table, _, _, kind, _ = RTMSG.unpack_from(raw)
        if length or kind != RTN_UNICAST or table != TABLE_MAIN:
            continue
        given = parse_attributes(raw[RTMSG.size :])
        # A next hop is its length, flags and hops in four bytes, then its interface.
        first_hop = given.get(RTA_MULTIPATH, b"")[4:8]
        index = _number(given.get(RTA_OIF) or first_hop)
        candidate = (_number(given.get(RTA_PRIORITY, b"")), index)
        if index and (best is None or candidate < best):
            best = candidate
    return InterfaceIndex(best[1] if best else 0)


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="surrogateescape")
