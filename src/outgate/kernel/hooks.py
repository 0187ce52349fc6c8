"""
What hangs at the hooks: the words that both ways of attaching share.

``kernel.links`` attaches by tcx links, ``kernel.clsact`` by classifiers; which of them
is used is decided in ``kernel.attachments``.  Pure; nothing here talks to the kernel.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum

from outgate.state.entries import AttachmentKey, Family, Hook


class AttachWay(StrEnum):
    """How programs meet an interface; AUTO: by tcx where the kernel has it."""

    AUTO = "auto"
    TCX = "tcx"
    CLSACT = "clsact"


class Side(Enum):
    """A side of an interface: ingress is what the kernel receives from it."""

    INGRESS = "ingress"
    EGRESS = "egress"


SIDES = {
    Hook.FROM_CONTAINER: Side.INGRESS,
    Hook.TO_CONTAINER: Side.EGRESS,
    Hook.FROM_OVERLAY: Side.INGRESS,
    Hook.TO_NETDEV: Side.EGRESS,
    Hook.FROM_NETDEV: Side.INGRESS,
}
"""Which side of its interface each hook sees: a pod's way out is its veth's way in."""


@dataclass(frozen=True, slots=True)
class Attached:
    """
    A program at a hook, as it is now.

    *family* None: attached by a former version, which knew one only.  *ifindex* 0: it
    has no interface (any more).
    """

    key: AttachmentKey
    way: AttachWay
    family: Family | None
    program_id: int
    ifindex: int
