"""
What the XDP programs need around them: the map that leads to the one for IPv6, and the
map of interfaces that they may send out of.

An interface has one XDP program, IPv4's; it goes on with IPv6's through a map of
programs.  Both maps are filled before a program is attached, and followed while it is.
A program that finds nothing there passes everything to tc: what of this is missing, or
late, costs speed.

The links are ``kernel.links``' business.  Called by ``kernel.attachments``.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from outgate.errors import KernelError
from outgate.kernel.layouts import XDP_DEVICE, XDP_DEVICE_KEY, XDP_PROGRAM
from outgate.kernel.objects import Pair
from outgate.kernel.pinned import PinnedMap
from outgate.state.entries import Family, InterfaceIndex
from outgate.state.facts import Link

REFUSAL_SECONDS = 25.0
"""How long a driver is left alone; shorter than the longest wait of a round."""

IPV6 = 0
"""``XDP_PROGRAM_IPV6``."""


def join_families(programs: PinnedMap, pair: Pair) -> None:
    """
    Let the IPv4 program of *pair* go on with the IPv6 one; KernelError where refused.

    One that is attached goes on with it from now on too.
    """
    descriptor = XDP_PROGRAM.pack(pair[Family.V6].fd)
    programs.put(XDP_PROGRAM.pack(IPV6), descriptor)


def are_joined(programs: PinnedMap, pair: Pair) -> bool:
    """Tell whether it does: the kernel shows the ids of programs; KernelError."""
    number = XDP_PROGRAM.pack(pair[Family.V6].number)
    return programs.find(XDP_PROGRAM.pack(IPV6)) == number


def put_devices(devices: PinnedMap, senders: Iterable[Link]) -> bool:
    """
    Let programs send out of *senders*, and of no other interface; KernelError.

    Return whether that is news.
    """
    wanted = {
        XDP_DEVICE_KEY.pack(link.index): XDP_DEVICE.pack(link.mtu, link.kind == "veth")
        for link in senders
    }
    held = dict(devices.rows())
    gone = [key for key in held if key not in wanted]
    changed = {key: row for key, row in wanted.items() if held.get(key) != row}
    _raise_for({**devices.remove_many(gone), **devices.put_many(changed)})
    return bool(gone or changed)


def remove_device(devices: PinnedMap, index: InterfaceIndex) -> bool:
    """
    Let programs send out of an interface no more; KernelError.

    Return whether they might before.
    """
    key = XDP_DEVICE_KEY.pack(index)
    was_there = devices.find(key) is not None
    _raise_for(devices.remove_many([key]))
    return was_there


class Refusals:
    """
    Drivers that refused a program, and are left alone for a while.

    Each round tries what is not there, and some drivers set their queues up anew
    before they find that they cannot.
    """

    def __init__(self) -> None:
        self._refused: dict[InterfaceIndex, tuple[KernelError, float]] = {}

    @contextmanager
    def respected(self, index: InterfaceIndex) -> Iterator[None]:
        """Attach inside; or be told again why that was refused a moment ago."""
        now = time.monotonic()
        if index in self._refused:
            error, at = self._refused.pop(index)
            if now - at < REFUSAL_SECONDS:
                self._refused[index] = error, at
                raise KernelError(error.operation, error.errno, error.detail)
        try:
            yield
        except KernelError as error:
            self._refused[index] = error, now
            raise


def _raise_for(failures: Mapping[bytes, KernelError]) -> None:
    for error in failures.values():
        raise error
