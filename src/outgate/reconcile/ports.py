"""
What the loop needs of its two sides, as protocols; it imports neither.

``kernel.linux`` and ``kernel.fake`` satisfy ``Kernel`` by shape, the agent satisfies
``Desired``; mypy checks the fit where the agent joins them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from outgate.errors import KernelError
from outgate.state.entries import Key
from outgate.state.plan import Keep, Operation, keep_none
from outgate.state.snapshot import Observation, Snapshot


class Kernel(Protocol):
    """
    The actual side: what it remembers is checked against the kernel, again and again.
    """

    async def observe(self) -> Observation:
        """
        Return what is there now, and where it is another than apply left it.

        Errors: KernelError when it cannot be told.
        """
        ...

    async def apply(self, operations: Sequence[Operation]) -> Mapping[Key, KernelError]:
        """
        Carry out *operations* in order; return failures by key, raise none.

        What could not be carried out shows in what is observed next.
        """
        ...

    async def wait_changed(self) -> None:
        """Return once something changed since the last return."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """
    What should be there.

    *touched* are the keys that may be wanted otherwise than in the last target; None
    means all of them.  *snapshot* is the desired side's own and may change later.

    While *is_complete* is False the target is partial knowledge: entries are added
    and changed, none is removed.  *keep* names entries that stay although the target
    lacks them; it is asked for rows one by one.
    """

    snapshot: Snapshot
    is_complete: bool
    keep: Keep = keep_none
    touched: Collection[Key] | None = None


class Desired(Protocol):
    """The desired side."""

    def target(self, actual: Snapshot) -> Target:
        """
        Return what should be there now, the kernel having been observed as *actual*.

        Errors: an OutgateError fails the round, which is tried again later.
        """
        ...

    async def wait_changed(self) -> None:
        """Return once something changed since the last return."""
        ...
