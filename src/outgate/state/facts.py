"""
What one node observes of itself: its links, their addresses, its default route.

Facts enter the compiler as data; ``kernel`` makes them, ``policy`` reads them.
"""

from dataclasses import dataclass
from enum import Enum, IntFlag

from outgate.state.entries import Address, InterfaceIndex


class XdpFeature(IntFlag):
    """
    What a driver says that it can do in XDP, as far as we need it.

    BASIC: native programs that pass, drop, or send out of the same interface;
    REDIRECT: programs that send out of another one; SEND: the interface sends what
    others redirect to it.  Most drivers can SEND only while they have a program.

    Source: Linux ``include/uapi/linux/netdev.h``, ``enum netdev_xdp_act``.
    """

    BASIC = 1
    REDIRECT = 2
    SEND = 4


class XdpProgram(Enum):
    """Whose XDP program an interface has; it can have one."""

    NONE = "none"
    OURS = "ours"
    """This agent's."""

    FORMER = "former"
    """That of an agent that was here before; it is replaced in place."""

    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Link:
    """
    One network interface of the node's namespace.

    Shape: *kind* is the kernel's (``veth``, ``bridge``, ``vxlan``; empty for a
    plain device); *altnames* are other names that users may call it by;
    *addresses* are in the kernel's order; *peer_elsewhere* is True for one end of a
    pair whose other end lives in another namespace, as the host side of a pod's veth
    does; *xdp_features* is None where the kernel does not tell (before 6.3), or was not
    asked; *has_vlans* means that VLAN devices stand on it.

    Units: *mtu* is in bytes of IP packet.
    """

    name: str
    index: InterfaceIndex
    kind: str = ""
    addresses: tuple[Address, ...] = ()
    peer_elsewhere: bool = False
    is_up: bool = True
    mtu: int = 1500
    altnames: tuple[str, ...] = ()
    has_vlans: bool = False
    xdp_features: XdpFeature | None = None
    xdp_program: XdpProgram = XdpProgram.NONE

    @property
    def has_xdp(self) -> bool:
        """Return whether a program of ours works there, this agent's or a former's."""
        return self.xdp_program in (XdpProgram.OURS, XdpProgram.FORMER)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """*default_interface* carries the IPv4 default route, the other the IPv6 one."""

    links: tuple[Link, ...] = ()
    default_interface: str | None = None
    default_interface_v6: str | None = None

    @property
    def default_interfaces(self) -> frozenset[str]:
        """Return the interfaces that carry a default route of either family."""
        found = (self.default_interface, self.default_interface_v6)
        return frozenset(name for name in found if name is not None)

    @property
    def xdp_senders(self) -> frozenset[Link]:
        """
        Return the links that XDP programs of ours may send out of.

        A link that has a program, and either a driver that takes what others
        redirect, or no other such link beside it: then packets go back out where they
        came in, which every driver can.  Not so a veth, which loses them unless its
        peer has NAPI, as SEND tells.
        """
        having = [link for link in self.links if link.has_xdp and link.is_up]
        return frozenset(
            link
            for link in having
            if XdpFeature.SEND in (link.xdp_features or XdpFeature(0))
            or (len(having) == 1 and link.kind != "veth")
        )
