"""
What one node observes of itself: its links, their addresses, its default route.

Facts enter the compiler as data; ``kernel`` makes them, ``policy`` reads them.
"""

from dataclasses import dataclass

from outgate.state.entries import Address, InterfaceIndex


@dataclass(frozen=True, slots=True)
class Link:
    """
    One network interface of the node's namespace.

    Shape: *kind* is the kernel's (``veth``, ``bridge``, ``vxlan``; empty for a
    plain device); *altnames* are other names that users may call it by;
    *addresses* are in the kernel's order; *peer_elsewhere* is True for one end of a
    pair whose other end lives in another namespace, as the host side of a pod's veth
    does.

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
