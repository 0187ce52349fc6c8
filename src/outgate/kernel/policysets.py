"""
Which rows pods share, in two maps beside the rows themselves: what programs look up.

Pods with equal rows have one set: its number stands beside each of their addresses
(``outgate_source_v*``), and its rows once (``outgate_set_v*``).  So the number of pods
adds nothing to what a packet costs, and one write changes all rows of a pod at once.

A set never changes, and numbers are not used again.  It is whole before a source has
it, and goes after the last source has another: what programs rely on (``classify.h``).
A source without a set costs more and means the same, since programs then read the rows
of the pod itself; so a lack of room here is no failure, and an audit tries again.

Not here: the rows of pods, which say what is in force (``kernel.rowtable``, who calls).
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from outgate.kernel.groups import Group, Shape, groups
from outgate.kernel.layouts import EGRESS_VALUE, SET_KEY, SET_NUMBER
from outgate.kernel.maps import SETS, SOURCES, MapName
from outgate.kernel.pinned import CHUNK, PinnedMap
from outgate.kernel.rows import decode_source, encode_source, encode_sources, pack
from outgate.state.entries import Family, RowSet

NUMBERS = 1 << 32

SOURCES_AT_ONCE = 128
"""In a slice of an audit: they are compared one by one."""

Rows = Mapping[bytes, RowSet]
"""By source; sources are packed addresses here."""

Pods = Sequence[tuple[RowSet, Sequence[bytes]]]
"""Rows, and the sources that shall have them."""


class PolicySets:
    """The sets of one *family*, and which source has which."""

    def __init__(self, family: Family, sources: PinnedMap, sets: PinnedMap) -> None:
        self._source_map = sources
        self._set_map = sets
        self._shape = Shape.of(SET_KEY, EGRESS_VALUE, family, SET_NUMBER.size)
        self._rows: dict[int, RowSet] = {}
        self._numbers: dict[RowSet, int] = {}
        self._sources: dict[bytes, int] = {}
        self._users = Counter[int]()
        self._unused: set[int] = set()
        self._next = 1

    def has(self, source: bytes) -> bool:
        """Tell whether *source* has a set."""
        return source in self._sources

    async def place(self, pods: Pods) -> set[bytes]:
        """Let all of *pods* have the set of their rows; return those without room."""
        unplaced: set[bytes] = set()
        for some in self._place(pods):
            unplaced |= some
            await asyncio.sleep(0)
        return unplaced

    def place_now(self, source: bytes, rows: RowSet) -> None:
        """Do so for one source if there is room, and give nobody else a turn."""
        deque(self._place([(rows, [source])]), maxlen=0)

    def _place(self, pods: Pods) -> Iterator[set[bytes]]:
        """Do so, a slice at each step, which tells who of it got no set."""
        yield from self._write(rows for rows, _ in pods)
        batch: list[tuple[int, Sequence[bytes]]] = []
        count = 0
        for rows, sources in pods:
            number = self._numbers.get(rows)
            if number is None:
                yield set(sources)
                continue
            if number in self._users:
                sources = [s for s in sources if self._sources.get(s) != number]
            for start in range(0, len(sources), CHUNK):
                some = sources[start : start + CHUNK]
                batch.append((number, some))
                count += len(some)
                if count >= CHUNK:
                    yield self._point(batch)
                    batch, count = [], 0
        yield self._point(batch)

    def _write(self, wanted: Iterable[RowSet]) -> Iterator[set[bytes]]:
        """Write the *wanted* sets that are not there yet, as far as there is room."""
        batch: dict[RowSet, int] = {}
        count = 0
        # By identity first: to compare a thousand rows takes its time.
        for rows in {id(rows): rows for rows in wanted}.values():
            if rows not in self._numbers and rows not in batch:
                batch[rows] = self._take_number()
                count += len(rows)
            if count >= CHUNK:
                self._write_some(batch)
                batch, count = {}, 0
                yield set()
        self._write_some(batch)

    def _write_some(self, batch: Mapping[RowSet, int]) -> None:
        keys = [pack(rows).keys_in(number) for rows, number in batch.items()]
        values = [pack(rows).values for rows in batch]
        refused = self._set_map.put_packed(b"".join(keys), b"".join(values))
        start = 0
        for (rows, number), raw in zip(batch.items(), keys, strict=True):
            if refused.keys().isdisjoint(range(start, start + len(rows))):
                self._remember(number, rows)
            else:
                self._set_map.remove_packed(raw)
            start += len(rows)

    def _take_number(self) -> int:
        """Return a number that no set and no source has; 0 is none's."""
        while not self._next or self._next in self._rows or self._next in self._users:
            self._next = (self._next + 1) % NUMBERS
        number = self._next
        self._next = (number + 1) % NUMBERS
        return number

    def _remember(self, number: int, rows: RowSet) -> None:
        self._rows[number] = rows
        self._numbers[rows] = number
        self._unused.add(number)

    def _point(self, batch: Sequence[tuple[int, Sequence[bytes]]]) -> set[bytes]:
        """Write the numbers of sources; return those who got none."""
        sources = [source for _, some in batch for source in some]
        refused = self._source_map.put_packed(
            b"".join(sources),
            b"".join(encode_sources(some, number) for number, some in batch),
        )
        having: dict[bytes, int] = {}
        for number, some in batch:
            having.update(dict.fromkeys(some, number))
        unplaced = {sources[i] for i in refused}
        for source in unplaced:
            del having[source]
        self._note(having)
        return unplaced

    def _note(self, having: Mapping[bytes, int]) -> None:
        """Remember which sets sources have now."""
        self._count(map(self._sources.get, having), having.values())
        self._sources.update(having)

    def _count(self, before: Iterable[int | None], after: Iterable[int]) -> None:
        """Count who had which set *before*, None for none, and who has *after* it."""
        lost, won = Counter(before), Counter(after)
        for number in lost.keys() | won.keys():
            if number is None:
                continue
            self._users[number] += won.get(number, 0) - lost.get(number, 0)
            if self._users[number]:
                self._unused.discard(number)
            else:
                del self._users[number]
                self._unused.add(number)

    def release(self, sources: Iterable[bytes]) -> None:
        """Let *sources* have no set."""
        known = [source for source in sources if source in self._sources]
        refused = self._source_map.remove_packed(b"".join(known))
        if refused:
            known = [source for i, source in enumerate(known) if i not in refused]
        self._count([self._sources.pop(source) for source in known], ())

    def sweep(self) -> None:
        """Remove the sets that no source has."""
        self._unused &= self._rows.keys()
        if not self._unused:
            return
        unused = [(number, self._keys(number)) for number in self._unused]
        refused = self._set_map.remove_packed(b"".join(keys for _, keys in unused))
        start = 0
        for number, _ in unused:
            rows = self._rows[number]
            if refused.keys().isdisjoint(range(start, start + len(rows))):
                self._forget(number, rows)
            start += len(rows)

    def _forget(self, number: int, rows: RowSet) -> None:
        self._unused.discard(number)
        del self._rows[number]
        if self._numbers.get(rows) == number:
            del self._numbers[rows]

    def _keys(self, number: int) -> bytes:
        return pack(self._rows[number]).keys_in(number)

    async def adopt(self, rows: Rows) -> None:
        """
        Learn what a former agent left, and bring it to *rows*, which are in force.

        A source whose set is another gets the right one; what is nobody's goes.
        """
        found: dict[int, Group] = {}
        for some in groups(self._set_map, self._shape):
            found |= {_number(group): group for group in some}
            await asyncio.sleep(0)
        self._adopt_sources(rows, found)
        self._next = (max((*found, *self._users), default=0) + 1) % NUMBERS
        unplaced = await self.place([(of, [source]) for source, of in rows.items()])
        self.release(self._sources.keys() - rows.keys() | unplaced)
        for number in found.keys() - self._rows.keys():
            self._set_map.remove_packed(found[number].keys)
        self.sweep()

    def _adopt_sources(self, rows: Rows, found: Mapping[int, Group]) -> None:
        """Learn which source has which set, and which of these are as they should."""
        checked: set[tuple[int, int]] = set()
        having: dict[bytes, int] = {}
        foreign = b""
        for key, value in self._source_map.rows():
            try:
                _, number = decode_source(key, value)
            except ValueError:
                foreign += key
                continue
            having[key] = number
            wanted = rows.get(key)
            if wanted and (number, id(wanted)) not in checked:
                checked.add((number, id(wanted)))
                if number in found and _is_alike(number, wanted, found[number]):
                    self._rows[number] = wanted
                    self._numbers.setdefault(wanted, number)
        self._note(having)
        self._source_map.remove_packed(foreign)

    def audit(self, sets_at_once: int) -> Iterator[None]:
        """Compare both maps with what is remembered, a slice at a step, and mend."""
        yield from self._audit_sets(sets_at_once)
        yield from self._audit_sources()
        self.sweep()

    def _audit_sets(self, at_once: int) -> Iterator[None]:
        seen: set[int] = set()
        for some in groups(self._set_map, self._shape, at_once):
            for group in some:
                number = _number(group)
                seen.add(number)
                self._mend_set(number, group)
            yield
        for number in self._rows.keys() - seen:
            if number in self._rows:
                self._mend_set(number, None)
                yield

    def _mend_set(self, number: int, group: Group | None) -> None:
        rows = self._rows.get(number)
        if rows and group and _is_alike(number, rows, group):
            return
        keys = self._keys(number) if rows else b""
        if rows:
            self._set_map.put_packed(keys, pack(rows).values)
        size = self._shape.key_size
        right = {keys[i : i + size] for i in range(0, len(keys), size)}
        there = group.keys if group else b""
        wrong = (there[i : i + size] for i in range(0, len(there), size))
        self._set_map.remove_packed(b"".join(k for k in wrong if k not in right))

    def _audit_sources(self) -> Iterator[None]:
        table, seen = self._source_map, set[bytes]()
        for keys, values in table.packed_rows(SOURCES_AT_ONCE):
            for source, value in table.split(keys, values):
                seen.add(source)
                number = self._sources.get(source)
                if not number:
                    table.remove_packed(source)
                elif value != encode_source(source, number):
                    self._point([(number, [source])])
            yield
        for source in self._sources.keys() - seen:
            if number := self._sources.get(source):
                self._point([(number, [source])])
                yield


def policy_sets(maps: Mapping[MapName, PinnedMap]) -> dict[Family, PolicySets]:
    """Return those of both families, over the maps of a node."""
    return {f: PolicySets(f, maps[SOURCES[f]], maps[SETS[f]]) for f in Family}


def _is_alike(number: int, rows: RowSet, group: Group) -> bool:
    packed = pack(rows)
    return packed.values == group.values and packed.keys_in(number) == group.keys


def _number(group: Group) -> int:
    (number,) = SET_NUMBER.unpack(group.start)
    return int(number)
