"""
The rows of pods in their two maps: written where they differ, read, and checked.

What a pod has is one entry (``RowSet``), what the map has are rows: here one becomes
the other.  After each change ``held`` says precisely which rows are there.  New rows
are written before old ones of the same batch are removed, many pods at once.

Called by ``kernel.linux``; ``kernel.audit`` paces the checks.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from struct import Struct

from outgate.errors import KernelError
from outgate.kernel.guard import refused_rows
from outgate.kernel.held import Held
from outgate.kernel.layouts import ADDRESS_SIZES, EGRESS_KEY, EGRESS_VALUE, address
from outgate.kernel.pinned import CHUNK, PinnedMap
from outgate.kernel.rows import NO_ROWS, Change, PackedRows, RowReader, change, pack
from outgate.state.entries import Family, Key, Network, RowSet, RowsKey, family_of
from outgate.state.plan import Operation, Put

SOURCE = {f: Struct(f"=4x {size}s {size}x") for f, size in ADDRESS_SIZES.items()}

Failures = dict[Key, KernelError]
Refused = dict[RowsKey, dict[Network, KernelError]]


@dataclass(frozen=True, slots=True)
class _Step:
    """What one pod has, shall have, and the difference."""

    key: RowsKey
    before: RowSet
    after: RowSet
    change: Change


@dataclass(frozen=True, slots=True)
class _Found:
    """All rows of one pod, as a map has them; not *is_whole*: read in two goes."""

    source: bytes
    keys: bytes
    values: bytes
    is_whole: bool


class RowTable:
    """The rows of all pods of a node, of both families."""

    def __init__(self, maps: Mapping[Family, PinnedMap], held: Held) -> None:
        self._maps = maps
        self._held = held

    async def change(
        self,
        operations: Sequence[Operation],
        before_removal: Callable[[Failures], None],
    ) -> Failures:
        """
        Bring the rows of pods to what *operations* say; return the failures by pod.

        *before_removal* is told of rows that could not be written, before any goes.
        """
        steps = self._steps(operations)
        refused: Refused = {}
        await self._write(steps, refused)
        before_removal(
            {step.key: _error(step, refused) for step in steps if step.key in refused}
        )
        await self._remove(steps, refused)
        for step in steps:
            self._settle(step, refused.get(step.key, {}))
        return {
            step.key: _error(step, refused) for step in steps if step.key in refused
        }

    def _steps(self, operations: Sequence[Operation]) -> list[_Step]:
        changes: dict[tuple[int, int], Change] = {}
        steps = []
        for operation in operations:
            key = operation.key
            if not isinstance(key, RowsKey):
                continue
            before = self._rows(key)
            after = NO_ROWS
            if isinstance(operation, Put) and isinstance(operation.value, RowSet):
                after = operation.value
            pair = id(before), id(after)
            if pair not in changes:
                changes[pair] = change(before, after)
            steps.append(_Step(key, before, after, changes[pair]))
        return steps

    def _rows(self, key: RowsKey) -> RowSet:
        held = self._held.entries.get(key)
        return held if isinstance(held, RowSet) else NO_ROWS

    async def _write(self, steps: Iterable[_Step], refused: Refused) -> None:
        batches = {f: _Batch(table.put_packed) for f, table in self._maps.items()}
        for step in steps:
            if step.change.puts:
                await batches[step.change.puts.family].add(
                    step.key, step.change.puts, refused
                )
        for batch in batches.values():
            batch.flush(refused)

    async def _remove(self, steps: Iterable[_Step], refused: Refused) -> None:
        batches = {f: _Batch(_remover(table)) for f, table in self._maps.items()}
        for step in steps:
            if step.change.removes:
                await batches[step.change.removes.family].add(
                    step.key, step.change.removes, refused
                )
        for batch in batches.values():
            batch.flush(refused)

    def _settle(self, step: _Step, refused: Mapping[Network, KernelError]) -> None:
        """Remember what is there now: where it was refused, what was there before."""
        if not refused:
            self._held.hold(step.key, step.after or None)
            return
        rows = {d: entry for d, entry in step.after.items() if d not in refused}
        rows |= {d: step.before[d] for d in refused if d in step.before}
        self._held.correct(step.key, RowSet(rows) if rows else None)

    async def read(self) -> None:
        """Learn all rows; pods with equal rows share one set."""
        for family in self._maps:
            reader = RowReader(family)
            for pods in self._pods(family, CHUNK):
                for pod in pods:
                    rows = reader.read(pod.keys, pod.values)
                    self._held.hold(RowsKey(address(pod.source)), rows or None)
                await asyncio.sleep(0)

    def audit(self, family: Family, rows_at_once: int) -> Iterator[None]:
        """
        Compare all rows of *family* with what is remembered, a slice at each step.

        Between two steps rows may be changed.  A pod whose rows were read in two goes
        and written meanwhile is left to the next audit.
        """
        reader = RowReader(family)
        seen: set[bytes] = set()
        for pods in self._pods(family, rows_at_once):
            for pod in pods:
                seen.add(pod.source)
                self._check(pod, reader)
            yield
        yield from self._find_vanished(family, seen, rows_at_once)

    def _check(self, pod: _Found, reader: RowReader) -> None:
        key = RowsKey(address(pod.source))
        remembered = self._rows(key)
        if remembered and _is_alike(pack(remembered), pod):
            return
        if not pod.is_whole and self._held.is_written(key):
            return
        there = reader.read(pod.keys, pod.values)
        if there != remembered:
            self._held.correct(key, there or None)

    def _find_vanished(
        self, family: Family, seen: set[bytes], at_once: int
    ) -> Iterator[None]:
        """Look for pods of whom the map had no row, unless they were just written."""
        keys = list(self._held.entries)
        for start in range(0, len(keys), at_once):
            for key in keys[start : start + at_once]:
                if (
                    isinstance(key, RowsKey)
                    and family_of(key.source) is family
                    and key.source.packed not in seen
                ):
                    self._held.lose(key)
            yield

    def _pods(self, family: Family, chunk: int) -> Iterator[list[_Found]]:
        """Yield the rows of pods by the slice; the map has those of one together."""
        key_size, value_size = EGRESS_KEY[family].size, EGRESS_VALUE[family].size
        table = self._maps[family]
        keys = values = b""
        for more_keys, more_values in table.packed_rows(chunk):
            carried = len(keys) // key_size
            keys, values = keys + more_keys, values + more_values
            found, start = [], 0
            for (source,), rows in groupby(SOURCE[family].iter_unpack(keys)):
                end = start + sum(1 for _ in rows)
                found.append(
                    _Found(
                        source,
                        keys[start * key_size : end * key_size],
                        values[start * value_size : end * value_size],
                        is_whole=start >= carried,
                    )
                )
                start = end
            # More rows of the last one may follow.
            last = found.pop() if found else None
            keys, values = (last.keys, last.values) if last else (b"", b"")
            yield found
        if keys:
            (source,) = SOURCE[family].unpack(keys[:key_size])
            yield [_Found(source, keys, values, is_whole=False)]


class _Batch:
    """Rows of many pods, on their way to one map."""

    def __init__(
        self, change: Callable[[bytes, bytes], dict[int, KernelError]]
    ) -> None:
        self._change = change
        self._parts: list[tuple[RowsKey, PackedRows]] = []
        self._count = 0

    async def add(self, key: RowsKey, rows: PackedRows, refused: Refused) -> None:
        """Take *rows* along; what is enough for a call goes, and others get a turn."""
        self._parts.append((key, rows))
        self._count += len(rows)
        if self._count >= CHUNK:
            self.flush(refused)
            await asyncio.sleep(0)

    def flush(self, refused: Refused) -> None:
        """Carry out what was taken; add what was refused to *refused*."""
        parts, self._parts, self._count = self._parts, [], 0
        failures = self._change(
            b"".join(rows.keys_of(key.source) for key, rows in parts),
            b"".join(rows.values for _, rows in parts),
        )
        start = 0
        for key, rows in parts if failures else ():
            for row, destination in enumerate(rows.destinations, start):
                if row in failures:
                    refused.setdefault(key, {})[destination] = failures[row]
            start += len(rows)


def _remover(table: PinnedMap) -> Callable[[bytes, bytes], dict[int, KernelError]]:
    return lambda keys, _: table.remove_packed(keys)


def _is_alike(packed: PackedRows, pod: _Found) -> bool:
    if packed.values != pod.values:
        return False
    return packed.keys_of(address(pod.source)) == pod.keys


def _error(step: _Step, refused: Refused) -> KernelError:
    rows = len(step.after) or len(step.before)
    return refused_rows(refused[step.key], rows)
