"""
A kernel in memory, for tests, demonstrations and scenarios without root.

Shipped, and verified: ``tests/contract/test_kernel_contract.py`` runs the same suite
against this one and the real one.  It holds entries instead of bytes and has links
only by name; it moves no packet.  Doors that the real kernel has by nature are
methods here: ``set_facts`` (a link comes or goes), ``refuse`` (an operation fails),
``meddle`` (somebody else changes a row, and an audit finds it), ``restart`` (another
agent comes: what is attached is no longer its own).
"""

import asyncio
import errno
from collections.abc import Sequence

from outgate.errors import KernelError
from outgate.kernel.collector import Collection
from outgate.kernel.guard import guard, refused_rows, withheld_error
from outgate.kernel.records import MetricRecord
from outgate.state.entries import (
    FORWARD_GUARD,
    Attachment,
    AttachmentKey,
    EndpointKey,
    Key,
    PolicyKey,
    RowSet,
    RowsKey,
    Value,
)
from outgate.state.facts import NodeFacts
from outgate.state.plan import Operation, Put
from outgate.state.snapshot import Observation, Snapshot


class FakeKernel:
    """See the module; *facts* are what its namespace looks like."""

    def __init__(self, facts: NodeFacts | None = None) -> None:
        self.facts = facts or NodeFacts()
        self._entries: dict[Key, Value] = {}
        self._touched: set[Key] | None = None
        self._refused: dict[Key | PolicyKey, KernelError] = {}
        self._changed = asyncio.Event()

    @property
    def entries(self) -> Snapshot:
        """Return what is there, without taking a look for the loop."""
        return self._entries

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
        for key in list(self._entries):
            if isinstance(key, AttachmentKey):
                name = key.interface
                if after.get(name) != before.get(name):
                    self._correct(key, Attachment.STALE)
        self.facts = facts
        self._changed.set()

    def refuse(self, key: Key | PolicyKey, error: KernelError | None) -> None:
        """
        Make each Put of *key* fail with *error*, or None: succeed again.

        A ``PolicyKey`` refuses one row among those of its pod.
        """
        self._refused.pop(key, None)
        if error:
            self._refused[key] = error

    def meddle(self, key: Key, value: Value | None) -> None:
        """Change what *key* holds, None for nothing, as somebody else would."""
        self._correct(key, value)
        self._changed.set()

    def _correct(self, key: Key, value: Value | None) -> None:
        if value is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = value
        if self._touched is not None:
            self._touched.add(key)

    def restart(self) -> None:
        """Do to attachments what a new agent does: its programs are others."""
        for key, value in self._entries.items():
            if isinstance(value, Attachment):
                self._entries[key] = Attachment.STALE
        self._touched = None

    async def wait_changed(self) -> None:
        """Return once something changed since the last return."""
        await self._changed.wait()
        self._changed.clear()

    async def observe(self) -> Observation:
        """Return all entries, and which of them others changed."""
        touched, self._touched = self._touched, set()
        return Observation(self._entries, touched)

    async def apply(self, operations: Sequence[Operation]) -> dict[Key, KernelError]:
        """Carry out *operations* in order; return the failures by key."""
        failures: dict[Key, KernelError] = {}
        for operation in operations:
            if error := self._change(operation, failures):
                failures[operation.key] = error
            for back in guard((), failures)[1]:
                if back.key in self._entries:
                    self._correct(back.key, None)
        return failures

    def _change(
        self, operation: Operation, failures: dict[Key, KernelError]
    ) -> KernelError | None:
        key = operation.key
        if not isinstance(operation, Put):
            self._entries.pop(key, None)
            return None
        if error := self._error(key, operation, failures):
            return error
        if isinstance(key, RowsKey) and isinstance(operation.value, RowSet):
            return self._put_rows(key, operation.value)
        self._entries[key] = operation.value
        return None

    def _put_rows(self, key: RowsKey, rows: RowSet) -> KernelError | None:
        """Put what is not refused; a refused row stays as it was."""
        was = self._entries.get(key)
        former = was if isinstance(was, RowSet) else RowSet({})
        refused = {
            destination: error
            for destination, entry in rows.items()
            if former.get(destination) != entry
            and (error := self._refused.get(PolicyKey(key.source, destination)))
        }
        if not refused:
            self._entries[key] = rows
            return None
        held = {d: entry for d, entry in rows.items() if d not in refused}
        held |= {d: former[d] for d in refused if d in former}
        self._correct(key, RowSet(held) if held else None)
        return refused_rows(refused, len(rows))

    def _error(
        self, key: Key, operation: Operation, failures: dict[Key, KernelError]
    ) -> KernelError | None:
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
