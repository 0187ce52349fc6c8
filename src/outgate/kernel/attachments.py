"""
The programs at the hooks of this node, whichever way they are attached.

Chooses between tcx links and classifiers, and says what of it is current: both IP
families by this agent's programs, on the interface that has the name now, by the
chosen way, and nothing else of ours beside.  The guard of the forwarding path and XDP
are always links.

A hook that changes its way (or comes from a former version) is attached anew before
the former attachment ends: for a moment a packet may meet both, never none.
"""

import errno
from collections.abc import Mapping
from pathlib import Path

from outgate.errors import KernelError
from outgate.kernel import clsact, links, syscall, xdp
from outgate.kernel.devices import XdpKnown
from outgate.kernel.hooks import Attached, AttachWay
from outgate.kernel.maps import MapName
from outgate.kernel.netdev import xdp_features
from outgate.kernel.objects import Pair
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.runtime import Runtime
from outgate.state.entries import (
    FORWARD_GUARD,
    Attachment,
    AttachmentKey,
    Family,
    Hook,
    InterfaceIndex,
)
from outgate.state.facts import NodeFacts, XdpProgram

ALWAYS_LINKS = (Hook.FORWARD_GUARD, Hook.XDP_NETDEV)

LOOPBACK = 1
"""The first interface of every network namespace."""


def has_tcx() -> bool:
    """Tell whether the kernel knows tcx (6.6 and later do); KernelError."""
    try:
        syscall.attached_programs(LOOPBACK, syscall.AttachType.TCX_INGRESS)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise KernelError("ask the kernel for tcx", error.errno or 0) from error
    return True


class Attachments:
    """The attachments of one agent; ``choose`` first, and ``use`` its maps."""

    def __init__(self, pin_dir: Path, way: AttachWay, *, is_xdp_used: bool) -> None:
        self._pin_dir = pin_dir
        self._way = way
        self._is_xdp_used = is_xdp_used
        self._refusals = xdp.Refusals()

    def choose(self) -> None:
        """Make AUTO the better way that the kernel has; KernelError."""
        if self._way is AttachWay.AUTO:
            self._way = AttachWay.TCX if has_tcx() else AttachWay.CLSACT

    def use(self, maps: Mapping[MapName, PinnedMap]) -> None:
        """Take the maps around XDP from *maps*, which are open, pinned or not."""
        self._joined = maps[MapName.XDP]
        self._devices = maps[MapName.XDP_DEVICE]
        self._runtime = Runtime(maps[MapName.CONFIG])

    def observe(
        self, programs: Mapping[Hook, Pair], indexes: Mapping[str, InterfaceIndex]
    ) -> Mapping[AttachmentKey, Attachment]:
        """Return what is attached; *programs* are ours, *indexes* those of now."""
        found: dict[AttachmentKey, set[Attached]] = {}
        for one in (*links.observe_links(self._pin_dir), *clsact.observe_filters()):
            found.setdefault(one.key, set()).add(one)
        return {
            key: Attachment.CURRENT
            if attached == self._wanted(key, programs, indexes)
            and self._are_joined(key, programs)
            else Attachment.STALE
            for key, attached in found.items()
        }

    def _are_joined(self, key: AttachmentKey, programs: Mapping[Hook, Pair]) -> bool:
        """Tell whether both families' programs are reached from *key*."""
        hook = key.hook
        return hook is not Hook.XDP_NETDEV or xdp.are_joined(
            self._joined, programs[hook]
        )

    def _wanted(
        self,
        key: AttachmentKey,
        programs: Mapping[Hook, Pair],
        indexes: Mapping[str, InterfaceIndex],
    ) -> set[Attached]:
        index = indexes.get(key.interface)
        pair = programs.get(key.hook)
        if pair is None or index is None:
            return set()
        way = AttachWay.TCX if key.hook in ALWAYS_LINKS else self._way
        return {
            Attached(key, way, family, pair[family].number, index)
            for family in links.families_of(key.hook)
        }

    def put(self, key: AttachmentKey, index: InterfaceIndex, programs: Pair) -> None:
        """Make *programs* run at *key*, and nothing else of ours; KernelError."""
        if key.hook is Hook.XDP_NETDEV:
            xdp.join_families(self._joined, programs)
            with self._refusals.respected(index):
                self._put_xdp(key, index, programs)
        elif key == FORWARD_GUARD:
            links.attach(self._pin_dir, key, index, programs)
        elif self._way is AttachWay.CLSACT:
            clsact.attach(key, index, programs)
            links.detach(self._pin_dir, key)
        else:
            links.attach(self._pin_dir, key, index, programs)
            clsact.detach(key)

    def _put_xdp(self, key: AttachmentKey, index: InterfaceIndex, pair: Pair) -> None:
        """Attach *pair*, or leave none: a former agent's has that one's settings."""
        try:
            links.attach(self._pin_dir, key, index, pair)
        except KernelError:
            self.remove(key, index)
            raise

    def remove(self, key: AttachmentKey, index: InterfaceIndex) -> None:
        """Leave nothing of ours at *key*, whose interface is *index*; KernelError."""
        is_xdp = key.hook is Hook.XDP_NETDEV
        # Before: a driver may let go of what it sends by as soon as the program goes.
        if is_xdp and xdp.remove_device(self._devices, index):
            self._tell_devices()
        links.detach(self._pin_dir, key)
        if key.hook not in ALWAYS_LINKS:
            clsact.detach(key)

    def remove_xdp(self) -> None:
        """Leave no XDP program of ours anywhere; KernelError."""
        for link in links.observe_links(self._pin_dir, Hook.XDP_NETDEV):
            links.detach(self._pin_dir, link.key)

    def xdp_known(self, programs: Mapping[Hook, Pair]) -> XdpKnown:
        """Return what links do not say of XDP themselves; *programs* are ours."""
        if not self._is_xdp_used:
            return XdpKnown()
        pair = programs.get(Hook.XDP_NETDEV)
        ours = pair[Family.V4].number if pair else 0
        pinned = {
            link.program_id
            for link in links.observe_links(self._pin_dir, Hook.XDP_NETDEV)
        }
        whose = dict.fromkeys(pinned, XdpProgram.FORMER)
        if ours in pinned:
            whose[ours] = XdpProgram.OURS
        return XdpKnown(whose, xdp_features())

    def follow_xdp(self, facts: NodeFacts) -> None:
        """Tell XDP programs what they may send out of; KernelError."""
        if xdp.put_devices(self._devices, facts.xdp_senders):
            self._tell_devices()

    def _tell_devices(self) -> None:
        """Let programs look again, who remember for a second what they may send by."""
        self._runtime.begin_route_generation()
