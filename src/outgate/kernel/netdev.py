"""
What drivers can do in XDP, as the kernel tells it: generic netlink family ``netdev``.

Linux 6.3 and later have it; a driver may say more while a program is attached.  No
event tells of that to rtnetlink's listeners: who attaches looks again.

Source: Linux ``Documentation/netlink/specs/netdev.yaml``,
``include/uapi/linux/{netdev,genetlink}.h``.
"""

import errno
import sys
from collections.abc import Mapping
from struct import Struct

from outgate.errors import KernelError
from outgate.kernel.rtnetlink import RouteSocket, attributes, parse_attributes
from outgate.state.facts import XdpFeature

NETLINK_GENERIC = 16

GENLMSG = Struct("=B B 2x")
"""``struct genlmsghdr``: command, version."""

CONTROL_FAMILY, CONTROL_GET_FAMILY, CONTROL_VERSION = 0x10, 3, 2
CONTROL_FAMILY_ID, CONTROL_FAMILY_NAME = 1, 2

NETDEV_DEV_GET, NETDEV_VERSION = 1, 1
NETDEV_IFINDEX, NETDEV_XDP_FEATURES = 1, 3

KNOWN = sum(XdpFeature)
"""Bits that have a name here; there are others."""


def xdp_features() -> Mapping[int, XdpFeature] | None:
    """
    Return what each interface's driver can, by index; None where nobody tells.

    Errors: KernelError.
    """
    try:
        with RouteSocket(NETLINK_GENERIC) as generic:
            family = _family(generic)
            request = GENLMSG.pack(NETDEV_DEV_GET, NETDEV_VERSION)
            answers = list(generic.dump(family, request)) if family else None
    except OSError as error:
        raise KernelError("observe what drivers can", error.errno or 0) from error
    return None if answers is None else dict(map(_device, answers))


def _family(generic: RouteSocket) -> int:
    """Return the number of the family, 0 when the kernel does not have it."""
    name = attributes({CONTROL_FAMILY_NAME: b"netdev\0"})
    request = GENLMSG.pack(CONTROL_GET_FAMILY, CONTROL_VERSION) + name
    try:
        (answer,) = generic.ask(CONTROL_FAMILY, request)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return 0
        raise
    return _number(parse_attributes(answer[GENLMSG.size :])[CONTROL_FAMILY_ID])


def _device(answer: bytes) -> tuple[int, XdpFeature]:
    given = parse_attributes(answer[GENLMSG.size :])
    bits = _number(given.get(NETDEV_XDP_FEATURES, b""))
    return _number(given[NETDEV_IFINDEX]), XdpFeature(bits & KNOWN)


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)
