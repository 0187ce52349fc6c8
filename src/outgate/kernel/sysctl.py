"""
Sysctls of one interface, read and set, remembering nothing.

The files below ``/proc/sys/net`` are those of the reader's network namespace.
"""

from pathlib import Path

from outgate.errors import KernelError

IPV4 = Path("/proc/sys/net/ipv4/conf")


def set_ipv4(interface: str, name: str, value: int) -> None:
    """Set ``net.ipv4.conf.<interface>.<name>``, unless it has the value already."""
    path = IPV4 / interface / name
    try:
        if path.read_text().strip() != str(value):
            path.write_text(str(value))
    except OSError as error:
        operation = f"set sysctl net.ipv4.conf.{interface}.{name} to {value}"
        raise KernelError(operation, error.errno or 0) from error


def accept_any_way_back(interface: str) -> None:
    """
    Let packets with any source come in by *interface* and be forwarded.

    The kernel takes the larger of the interface's reverse path filter and that of
    ``all``; where ``all`` is strict (1), only loose (2) can soften it.
    """
    try:
        is_strict = (IPV4 / "all" / "rp_filter").read_text().strip() == "1"
    except OSError as error:
        raise KernelError(
            "read sysctl net.ipv4.conf.all.rp_filter", error.errno or 0
        ) from error
    set_ipv4(interface, "rp_filter", 2 if is_strict else 0)
    set_ipv4(interface, "forwarding", 1)
