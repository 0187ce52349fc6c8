"""
A kernel in memory, for tests, demonstrations and scenarios without root.

Shipped, and verified: ``tests/contract/test_kernel_contract.py`` runs the same suite
against this one and the real one.  It holds entries instead of bytes and has links
only by name; it moves no packet.  Doors that the real kernel has by nature are
methods here: ``set_facts`` (a link comes or goes), ``refuse`` (an operation fails),
``restart`` (another agent comes: what is attached is no longer its own).
"""

import asyncio
import errno
from collections.abc import Sequence

from outgate.errors import KernelError
from outgate.kernel.collector import Collection
from outgate.kernel.guard import guard, withheld_error
from outgate.kernel.records import MetricRecord
from outgate.state.entries import (
    FORWARD_GUARD,
    Attachment,
    AttachmentKey,
    EndpointKey,
    Key,
    Value,
)
from outgate.state.facts import NodeFacts
from outgate.state.plan import Operation, Put
from outgate.state.snapshot import Snapshot


class FakeKernel:
    """See the module; *facts* are what its namespace looks like."""

    def __init__(self, facts: NodeFacts | None = None) -> None:
        self.facts = facts or NodeFacts()
        self._entries: dict[Key, Value] = {}
        self._refused: dict[Key, KernelError] = {}
        self._changed = asyncio.Event()

    async def open(self) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Nothing to let go of; entries stay, as they do in the real kernel."""

    async def run(self) -> None:
        """Events come from ``set_facts``; wait for ever."""
        await asyncio.Event().wait()

    def set_facts(self, facts: NodeFacts) -> None:
        """Change links or addresses; attachments of links that went become stale."""
        before = {link.name: link.index for link in self.facts.links}
        after = {link.name: link.index for link in facts.links}
        for key in self._entries:
            if isinstance(key, AttachmentKey):
                name = key.interface
                if after.get(name) != before.get(name):
                    self._entries[key] = Attachment.STALE
        self.facts = facts
        self._changed.set()

    def refuse(self, key: Key, error: KernelError | None) -> None:
        """Make each Put of *key* fail with *error*, or None: succeed again."""
        self._refused.pop(key, None)
        if error:
            self._refused[key] = error

    def restart(self) -> None:
        """Do to attachments what a new agent does: its programs are others."""
        for key, value in self._entries.items():
            if isinstance(value, Attachment):
                self._entries[key] = Attachment.STALE

    async def wait_changed(self) -> None:
        """Return once something changed since the last return."""
        await self._changed.wait()
        self._changed.clear()

    async def observe(self) -> Snapshot:
        """Return a copy of all entries."""
        return dict(self._entries)

    async def apply(self, operations: Sequence[Operation]) -> dict[Key, KernelError]:
        """Carry out *operations* in order; return the failures by key."""
        failures: dict[Key, KernelError] = {}
        for operation in operations:
            if error := self._error(operation, failures):
                failures[operation.key] = error
            elif isinstance(operation, Put):
                self._entries[operation.key] = operation.value
            else:
                self._entries.pop(operation.key, None)
            for back in guard((), failures)[1]:
                self._entries.pop(back.key, None)
        return failures

    def _error(
        self, operation: Operation, failures: dict[Key, KernelError]
    ) -> KernelError | None:
        key = operation.key
        if not isinstance(operation, Put):
            return None
        if isinstance(key, EndpointKey) and guard((operation,), failures)[0]:
            return withheld_error(key)
        names = {link.name for link in self.facts.links} | {FORWARD_GUARD.interface}
        if isinstance(key, AttachmentKey) and key.interface not in names:
            return KernelError(f"attach {key.hook} on {key.interface}", errno.ENODEV)
        return self._refused.get(key)

    def metrics(self) -> tuple[MetricRecord, ...]:
        """Return no counter: no packet ever passes."""
        return ()

    def collection(self) -> Collection:
        """Return that nothing has been collected: there are no flows."""
        return Collection()
