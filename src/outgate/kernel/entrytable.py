"""
The maps whose rows are entries by themselves: nodes, ipcache, covered, endpoints.

Written, read and checked; after each change ``held`` says precisely what is there.
Called by ``kernel.linux``; ``kernel.audit`` paces the checks.  The rows of pods are
``kernel.rowtable``'s.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from outgate.errors import KernelError
from outgate.kernel.held import Held
from outgate.kernel.maps import (
    MapName,
    decode_entry,
    encode_key,
    encode_value,
    entry_map,
    keep_interface,
)
from outgate.kernel.pinned import CHUNK, PinnedMap
from outgate.state.entries import EndpointEntry, Key, Value
from outgate.state.plan import Operation, Put

Failures = dict[Key, KernelError]


class EntryTables:
    """Several such maps by name."""

    def __init__(self, maps: Mapping[MapName, PinnedMap], held: Held) -> None:
        self._maps = maps
        self._held = held

    def change(self, operations: Sequence[Operation]) -> Failures:
        """Carry out *operations*, which are all puts or all removals."""
        failures: Failures = {}
        for start in range(0, len(operations), CHUNK):
            failures |= self._change_some(operations[start : start + CHUNK])
        return failures

    def _change_some(self, operations: Sequence[Operation]) -> Failures:
        by_map: dict[MapName, dict[bytes, Operation]] = defaultdict(dict)
        for operation in operations:
            name, raw = encode_key(operation.key)
            by_map[name][raw] = operation
        failures: Failures = {}
        for name, rows in by_map.items():
            refused = self._change_map(name, rows)
            for raw, operation in rows.items():
                if raw in refused:
                    failures[operation.key] = refused[raw]
                else:
                    value = operation.value if isinstance(operation, Put) else None
                    self._held.hold(operation.key, value)
        return failures

    def _change_map(
        self, name: MapName, rows: Mapping[bytes, Operation]
    ) -> dict[bytes, KernelError]:
        values = {
            raw: self._encoded(name, raw, operation)
            for raw, operation in rows.items()
            if isinstance(operation, Put)
        }
        if values:
            return self._maps[name].put_many(values)
        return self._maps[name].remove_many(list(rows))

    def _encoded(self, name: MapName, raw: bytes, operation: Put) -> bytes:
        """
        Return the bytes to write.

        Programs learn behind which interface a pod is; they keep that as long as the
        pod is the same.
        """
        value, before = operation.value, self._held.entries.get(operation.key)
        encoded = encode_value(operation.key, value)
        is_same_pod = (
            isinstance(value, EndpointEntry)
            and isinstance(before, EndpointEntry)
            and value.owner == before.owner
        )
        if is_same_pod and (former := self._maps[name].find(raw)):
            return keep_interface(encoded, former)
        return encoded

    def read(self) -> None:
        """Learn all entries."""
        for name in self._maps:
            for key, value in self._entries(name):
                self._held.hold(key, value)

    def _entries(self, name: MapName) -> Iterator[tuple[Key, Value]]:
        for row in self._maps[name].rows():
            if entry := decode_entry(name, *row):
                yield entry

    def audit(self, name: MapName, rows_at_once: int) -> Iterator[None]:
        """
        Compare all entries of a map with what is remembered, a slice at each step.

        Between two steps entries may be changed.
        """
        table, seen = self._maps[name], set[Key]()
        for keys, values in table.packed_rows(rows_at_once):
            for row in table.split(keys, values):
                if entry := decode_entry(name, *row):
                    key, value = entry
                    seen.add(key)
                    if self._held.entries.get(key) != value:
                        self._held.correct(key, value)
            yield
        yield from self._find_vanished(name, seen, rows_at_once)

    def _find_vanished(
        self, name: MapName, seen: set[Key], at_once: int
    ) -> Iterator[None]:
        """Look for entries that the map lacked, unless they were just written."""
        keys = list(self._held.entries)
        for start in range(0, len(keys), at_once):
            for key in keys[start : start + at_once]:
                if entry_map(key) is name and key not in seen:
                    self._held.lose(key)
            yield
