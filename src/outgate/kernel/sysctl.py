"""
Sysctls of one interface, read and set, remembering nothing.

The files below ``/proc/sys/net`` are those of the reader's network namespace.
"""

from pathlib import Path

from outgate.errors import KernelError

NET = Path("/proc/sys/net")


def set_conf(family: str, interface: str, name: str, value: int) -> None:
    """Set ``net.<family>.conf.<interface>.<name>``, unless it has the value already."""
    path = NET / family / "conf" / interface / name
    try:
        if path.read_text().strip() != str(value):
            path.write_text(str(value))
    except OSError as error:
        operation = f"set sysctl net.{family}.conf.{interface}.{name} to {value}"
        raise KernelError(operation, error.errno or 0) from error


def accept_any_way_back(interface: str) -> None:
    """
    Let packets with any source come in by *interface* and be forwarded.

    IPv4: the kernel takes the larger of the interface's reverse path filter and that
    of ``all``; where ``all`` is strict (1), only loose (2) can soften it.  IPv6 has
    no such filter, but a node may disable IPv6 on new interfaces; routers that
    advertise themselves through a tunnel are none of ours.
    """
    try:
        rp_filter = (NET / "ipv4" / "conf" / "all" / "rp_filter").read_text()
    except OSError as error:
        raise KernelError(
            "read sysctl net.ipv4.conf.all.rp_filter", error.errno or 0
        ) from error
    set_conf("ipv4", interface, "rp_filter", 2 if rp_filter.strip() == "1" else 0)
    set_conf("ipv4", interface, "forwarding", 1)
    if (NET / "ipv6").is_dir():
        set_conf("ipv6", interface, "accept_ra", 0)
        set_conf("ipv6", interface, "disable_ipv6", 0)
