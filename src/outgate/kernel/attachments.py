"""
The programs at the hooks of this node, whichever way they are attached.

Chooses between tcx links and classifiers, and says what of it is current: both IP
families by this agent's programs, on the interface that has the name now, by the
chosen way, and nothing else of ours beside.  The guard of the forwarding path is always
a link.

A hook that changes its way (or comes from a former version) is attached anew before
the former attachment ends: for a moment a packet may meet both, never none.
"""

import errno
from collections.abc import Mapping
from pathlib import Path

from outgate.errors import KernelError
from outgate.kernel import clsact, links, syscall
from outgate.kernel.hooks import Attached, AttachWay
from outgate.kernel.objects import Pair
from outgate.state.entries import (
    FORWARD_GUARD,
    Attachment,
    AttachmentKey,
    Hook,
    InterfaceIndex,
)

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
    """The attachments of one agent; ``choose`` first, where *way* may be AUTO."""

    def __init__(self, pin_dir: Path, way: AttachWay) -> None:
        self._pin_dir = pin_dir
        self._way = way

    def choose(self) -> None:
        """Make AUTO the better way that the kernel has; KernelError."""
        if self._way is AttachWay.AUTO:
            self._way = AttachWay.TCX if has_tcx() else AttachWay.CLSACT

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
            else Attachment.STALE
            for key, attached in found.items()
        }

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
        way = AttachWay.TCX if key == FORWARD_GUARD else self._way
        return {
            Attached(key, way, family, program.number, index)
            for family, program in pair.items()
        }

    def put(self, key: AttachmentKey, index: InterfaceIndex, programs: Pair) -> None:
        """Make *programs* run at *key*, and nothing else of ours; KernelError."""
        if key == FORWARD_GUARD:
            links.attach(self._pin_dir, key, index, programs)
        elif self._way is AttachWay.CLSACT:
            clsact.attach(key, index, programs)
            links.detach(self._pin_dir, key)
        else:
            links.attach(self._pin_dir, key, index, programs)
            clsact.detach(key)

    def remove(self, key: AttachmentKey) -> None:
        """Leave nothing of ours at *key*; KernelError."""
        links.detach(self._pin_dir, key)
        if key != FORWARD_GUARD:
            clsact.detach(key)
