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

from outgate.errors import KernelError
from outgate.kernel.groups import Group, Shape, groups
from outgate.kernel.guard import refused_rows
from outgate.kernel.held import Held
from outgate.kernel.layouts import ADDRESS_SIZES, EGRESS_KEY, EGRESS_VALUE, address
from outgate.kernel.pinned import CHUNK, PinnedMap
from outgate.kernel.policysets import PolicySets
from outgate.kernel.rows import NO_ROWS, Change, PackedRows, RowReader, change, pack
from outgate.state.entries import (
    Address,
    Family,
    Key,
    Network,
    RowSet,
    RowsKey,
    family_of,
)
from outgate.state.plan import Operation, Put

Failures = dict[Key, KernelError]
Refused = dict[RowsKey, dict[Network, KernelError]]


@dataclass(frozen=True, slots=True)
class _Move:
    """Pods of one family that have the same rows, and shall have the same others."""

    before: RowSet
    after: RowSet
    kind: type[Address]
    change: Change
    pods: list[RowsKey]
    packed: list[bytes]
    """The pods' addresses."""

    @property
    def family(self) -> Family:
        return family_of(self.pods[0].source)

    def pods_but(self, refused: Refused) -> tuple[list[RowsKey], list[bytes]]:
        """Return those of whom nothing was refused, and their addresses."""
        if not refused:
            return self.pods, self.packed
        both = zip(self.pods, self.packed, strict=True)
        kept = [(pod, packed) for pod, packed in both if pod not in refused]
        return [pod for pod, _ in kept], [packed for _, packed in kept]


class RowTable:
    """The rows of all pods of a node, of both families."""

    def __init__(
        self,
        maps: Mapping[Family, PinnedMap],
        sets: Mapping[Family, PolicySets],
        held: Held,
    ) -> None:
        self._maps = maps
        self._sets = sets
        self._held = held

    async def change(
        self,
        operations: Sequence[Operation],
        before_writing: Callable[[Sequence[bytes]], None],
        before_removal: Callable[[Failures], None],
    ) -> Failures:
        """
        Bring the rows of pods to what *operations* say; return the failures by pod.

        *before_writing* is told the packed addresses of those that shall have rows, a
        family at once, before any is written; *before_removal* is told of rows that
        could not be, before any goes.
        """
        moves = self._moves(operations)
        refused: Refused = {}
        for family in Family:
            writing = (m for m in moves if m.after and m.family is family)
            before_writing([packed for move in writing for packed in move.packed])
        await self._write(moves, refused)
        before_removal(self._failures(moves, refused))
        unplaced = await self._place(moves, refused)
        await self._remove(moves, refused)
        self._release(moves, refused, unplaced)
        for move in moves:
            self._settle(move, refused)
        return self._failures(moves, refused)

    def _moves(self, operations: Sequence[Operation]) -> list[_Move]:
        moves: dict[tuple[int, int, type[Address]], _Move] = {}
        move: _Move | None = None
        for operation in operations:
            key = operation.key
            if not isinstance(key, RowsKey):
                continue
            before, after, kind = self._rows(key), NO_ROWS, type(key.source)
            if isinstance(operation, Put) and isinstance(operation.value, RowSet):
                after = operation.value
            # Most pods move as the one before them: nothing to be looked up then.
            if (
                move is None
                or move.before is not before
                or move.after is not after
                or move.kind is not kind
            ):
                alike = id(before), id(after), kind
                if alike not in moves:
                    made = change(before, after)
                    moves[alike] = _Move(before, after, kind, made, [], [])
                move = moves[alike]
            move.pods.append(key)
        for move in moves.values():
            move.packed.extend([pod.source.packed for pod in move.pods])
        return list(moves.values())

    def _failures(self, moves: Iterable[_Move], refused: Refused) -> Failures:
        if not refused:
            return {}
        return {
            pod: refused_rows(refused[pod], len(move.after) or len(move.before))
            for move in moves
            for pod in move.pods
            if pod in refused
        }

    def _rows(self, key: RowsKey) -> RowSet:
        # Not None: what is no RowSet takes long to be told from one.
        held = self._held.entries.get(key, NO_ROWS)
        return held if isinstance(held, RowSet) else NO_ROWS

    async def _write(self, moves: Iterable[_Move], refused: Refused) -> None:
        batches = {f: _Batch(table.put_packed) for f, table in self._maps.items()}
        for move in moves:
            if puts := move.change.puts:
                await batches[puts.family].add(move, puts, refused)
        for batch in batches.values():
            batch.flush(refused)

    async def _remove(self, moves: Iterable[_Move], refused: Refused) -> None:
        batches = {f: _Batch(_remover(table)) for f, table in self._maps.items()}
        for move in moves:
            if removes := move.change.removes:
                await batches[removes.family].add(move, removes, refused)
        for batch in batches.values():
            batch.flush(refused)

    async def _place(self, moves: Iterable[_Move], refused: Refused) -> set[bytes]:
        """
        Let pods have the sets of their new rows; return those without room.

        From then on these are in force, all at once.
        """
        unplaced: set[bytes] = set()
        for family, sets in self._sets.items():
            pods = [
                (move.after, move.pods_but(refused)[1])
                for move in moves
                if move.after and move.family is family
            ]
            unplaced |= await sets.place(pods)
        return unplaced

    def _release(
        self, moves: Iterable[_Move], refused: Refused, unplaced: set[bytes]
    ) -> None:
        """
        Let pods without rows have no set: all their rows are gone at once then.

        Nor those with a refusal: their rows are not what was planned, and they decide.
        """
        lacking = unplaced | {pod.source.packed for pod in refused}
        without: dict[Family, list[bytes]] = {family: [] for family in self._sets}
        for move in moves:
            of_family = without[move.family]
            if not move.after:
                of_family += move.packed
            elif lacking:
                of_family += [packed for packed in move.packed if packed in lacking]
        for family, sets in self._sets.items():
            sets.release(without[family])
            sets.sweep()

    def _settle(self, move: _Move, refused: Refused) -> None:
        """Remember what is there now: where it was refused, what was there before."""
        self._held.hold_rows(move.pods_but(refused)[0], move.after or None)
        for pod in move.pods if refused else ():
            if failures := refused.get(pod):
                rows = {d: e for d, e in move.after.items() if d not in failures}
                rows |= {d: move.before[d] for d in failures if d in move.before}
                self._held.correct(pod, RowSet(rows) if rows else None)

    async def read(self) -> None:
        """Learn all rows; pods with equal rows share one set."""
        for family in self._maps:
            reader = RowReader(family)
            for pods in groups(self._maps[family], _shape(family)):
                for pod in pods:
                    rows = reader.read(pod.keys, pod.values)
                    self._held.hold(RowsKey(address(pod.start)), rows or None)
                await asyncio.sleep(0)
            await self._sets[family].adopt(self._rows_of(family))

    def _rows_of(self, family: Family) -> dict[bytes, RowSet]:
        return {
            key.source.packed: rows
            for key, rows in self._held.entries.items()
            if isinstance(key, RowsKey)
            and isinstance(rows, RowSet)
            and family_of(key.source) is family
        }

    def audit(self, family: Family, rows_at_once: int) -> Iterator[None]:
        """
        Compare all rows of *family* with what is remembered, a slice at each step.

        Between two steps rows may be changed.  A pod whose rows were read in two goes
        and written meanwhile is left to the next audit.
        """
        reader = RowReader(family)
        seen: set[bytes] = set()
        for pods in groups(self._maps[family], _shape(family), rows_at_once):
            for pod in pods:
                seen.add(pod.start)
                self._check(pod, reader)
            yield
        yield from self._find_vanished(family, seen, rows_at_once)
        yield from self._sets[family].audit(rows_at_once)
        yield from self._place_again(family, rows_at_once)

    def _place_again(self, family: Family, at_once: int) -> Iterator[None]:
        """Let pods have a set for whom there was no room."""
        sets, keys = self._sets[family], list(self._held.entries)
        for start in range(0, len(keys), at_once):
            for key in keys[start : start + at_once]:
                if (
                    isinstance(key, RowsKey)
                    and family_of(key.source) is family
                    and not sets.has(key.source.packed)
                    and (rows := self._rows(key))
                ):
                    sets.place_now(key.source.packed, rows)
            yield

    def _check(self, pod: Group, reader: RowReader) -> None:
        key = RowsKey(address(pod.start))
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


class _Batch:
    """Rows of many pods, on their way to one map."""

    def __init__(
        self, change: Callable[[bytes, bytes], dict[int, KernelError]]
    ) -> None:
        self._change = change
        self._parts: list[tuple[list[RowsKey], list[bytes], PackedRows]] = []
        self._count = 0

    async def add(self, move: _Move, rows: PackedRows, refused: Refused) -> None:
        """Take *rows* along; what is enough for a call goes, and others get a turn."""
        start = 0
        while start < len(move.pods):
            end = start + max((CHUNK - self._count) // len(rows), 1)
            pods = move.pods[start:end]
            self._parts.append((pods, move.packed[start:end], rows))
            self._count += len(pods) * len(rows)
            start = end
            if self._count >= CHUNK or start < len(move.pods):
                self.flush(refused)
                await asyncio.sleep(0)

    def flush(self, refused: Refused) -> None:
        """Carry out what was taken; add what was refused to *refused*."""
        parts, self._parts, self._count = self._parts, [], 0
        failures = self._change(
            b"".join(rows.keys_of(packed) for _, packed, rows in parts),
            b"".join(rows.values * len(pods) for pods, _, rows in parts),
        )
        start = 0
        for pods, _, rows in parts if failures else ():
            for number in range(start, start + len(pods) * len(rows)):
                if number in failures:
                    pod, row = divmod(number - start, len(rows))
                    of_pod = refused.setdefault(pods[pod], {})
                    of_pod[rows.destinations[row]] = failures[number]
            start += len(pods) * len(rows)


def _shape(family: Family) -> Shape:
    return Shape.of(EGRESS_KEY, EGRESS_VALUE, family, ADDRESS_SIZES[family])


def _remover(table: PinnedMap) -> Callable[[bytes, bytes], dict[int, KernelError]]:
    return lambda keys, _: table.remove_packed(keys)


def _is_alike(packed: PackedRows, pod: Group) -> bool:
    if packed.values != pod.values:
        return False
    return packed.keys_of((pod.start,)) == pod.keys
