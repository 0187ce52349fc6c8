"""
The rows of a trie whose keys begin alike: all of one pod, or all of one set.

The kernel hands such rows out together, because what they have in common stands first
and counts in full.  Called by ``kernel.rowtable`` and ``kernel.policysets``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from struct import Struct

from outgate.kernel.layouts import Layout
from outgate.kernel.pinned import CHUNK, PinnedMap
from outgate.kernel.rows import START_AT
from outgate.state.entries import Family


@dataclass(frozen=True, slots=True)
class Shape:
    """How rows are laid out: bytes of a key, of what it begins with, of a value."""

    key_size: int
    start_size: int
    value_size: int

    @classmethod
    def of(cls, key: Layout, value: Layout, family: Family, start_size: int) -> "Shape":
        """Return the shape of rows of *family*."""
        return cls(key[family].size, start_size, value[family].size)


@dataclass(frozen=True, slots=True)
class Group:
    """All rows that begin with *start*; not *is_whole*: read in two goes."""

    start: bytes
    keys: bytes
    values: bytes
    is_whole: bool


def groups(table: PinnedMap, shape: Shape, chunk: int = CHUNK) -> Iterator[list[Group]]:
    """Yield the groups of *table* by the slice, which has up to *chunk* rows."""
    key_size, value_size = shape.key_size, shape.value_size
    rest = key_size - START_AT - shape.start_size
    starts = Struct(f"={START_AT}x {shape.start_size}s {rest}x")
    keys = values = b""
    for more_keys, more_values in table.packed_rows(chunk):
        carried = len(keys) // key_size
        keys, values = keys + more_keys, values + more_values
        found, first = [], 0
        for (start,), rows in groupby(starts.iter_unpack(keys)):
            end = first + sum(1 for _ in rows)
            found.append(
                Group(
                    start,
                    keys[first * key_size : end * key_size],
                    values[first * value_size : end * value_size],
                    is_whole=first >= carried,
                )
            )
            first = end
        # More rows of the last one may follow.
        last = found.pop() if found else None
        keys, values = (last.keys, last.values) if last else (b"", b"")
        yield found
    if keys:
        (start,) = starts.unpack(keys[:key_size])
        yield [Group(start, keys, values, is_whole=False)]
