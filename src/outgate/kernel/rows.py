"""
The rows of pods as bytes: one set packed once, for however many pods share it.

A packed set has its keys in the order in which the kernel hands them out (children of
the trie before their parents), with zeroes where the source belongs.  So the keys of
one pod are a copy with four (or sixteen) strides filled in, and an audit compares all
rows of a pod at once.  A thousand pods of a thousand rows are packed in milliseconds
instead of seconds.  The same holds for the keys under which a set has these rows by
itself (``kernel.policysets``).

Pure.  ``kernel.rowtable`` moves the bytes, ``kernel.maps`` knows single rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from weakref import ref

from outgate.kernel.layouts import (
    ADDRESS_SIZES,
    EGRESS_KEY,
    EGRESS_VALUE,
    SET_KEY,
    SET_NUMBER,
    SOURCE_VALUE,
    address,
    network_of,
    pick,
)
from outgate.kernel.maps import (
    decode_destination,
    decode_policy_value,
    encode_destination,
    encode_policy_value,
)
from outgate.state.entries import (
    Address,
    Family,
    Network,
    PolicyEntry,
    RowSet,
    family_of,
)

START_AT = 4
"""Where the source, or the number of the set, stands: behind the prefix length."""

SET_BITS = 32
"""How many bits the number of a set adds to a prefix length."""

NO_ROWS = RowSet({})


@dataclass(frozen=True, slots=True)
class PackedRows:
    """
    Rows of no pod yet, all of one family.

    Shape: *keys* (of pods), *set_keys* and *values* are those of *destinations*, in
    their order; *values* is empty where rows are to be removed.
    """

    family: Family
    destinations: tuple[Network, ...]
    keys: bytes
    set_keys: bytes
    values: bytes

    def __len__(self) -> int:
        return len(self.destinations)

    def keys_of(self, sources: Sequence[bytes]) -> bytes:
        """Return the keys of these rows for each of *sources*, packed addresses."""
        return fill(self.keys, EGRESS_KEY[self.family].size, sources)

    def keys_in(self, number: int) -> bytes:
        """Return the keys of these rows in the set that has this *number*."""
        size = SET_KEY[self.family].size
        return fill(self.set_keys, size, (SET_NUMBER.pack(number),))


def fill(keys: bytes, size: int, starts: Sequence[bytes]) -> bytes:
    """Return all *keys*, of *size* bytes each, once for each of *starts*."""
    count, width = len(keys) // size, len(starts[0])
    filled = bytearray(keys * len(starts))
    if count > len(starts):
        for pod, start in enumerate(starts):
            first, end = pod * len(keys) + START_AT, (pod + 1) * len(keys)
            for i, value in enumerate(start, first):
                filled[i:end:size] = bytes((value,)) * count
        return bytes(filled)
    # Few rows each: byte by byte of all addresses, row by row.
    columns = b"".join(starts)
    for i in range(width):
        for first in range(START_AT + i, len(keys), size):
            filled[first :: len(keys)] = columns[i::width]
    return bytes(filled)


_packed: dict[int, tuple[ref[RowSet], PackedRows]] = {}
"""By the set's identity: to hash a thousand rows takes as long as to pack them."""


def pack(rows: RowSet) -> PackedRows:
    """Return *rows*, which must not be empty, as bytes; each set is packed once."""
    number = id(rows)
    if number not in _packed:
        living = ref(rows, lambda _: _packed.pop(number, None))
        _packed[number] = living, pack_rows(rows)
    return _packed[number][1]


def pack_rows(rows: Mapping[Network, PolicyEntry]) -> PackedRows:
    """Return *rows*, which must not be empty, as bytes."""
    keys, encoded = pack_keys(rows), dict[int, bytes]()
    for entry in rows.values():
        if id(entry) not in encoded:
            encoded[id(entry)] = encode_policy_value(entry, keys.family)
    values = b"".join(encoded[id(rows[one])] for one in keys.destinations)
    return replace(keys, values=values)


def pack_keys(destinations: Iterable[Network]) -> PackedRows:
    """Return the keys alone, of one *destination* at least."""
    placed = sorted((*_placed(one), one) for one in destinations)
    ordered = tuple(one for *_, one in placed)
    keys = b"".join(key for _, _, key, _, _ in placed)
    set_keys = b"".join(key for *_, key, _ in placed)
    return PackedRows(family_of(ordered[0]), ordered, keys, set_keys, b"")


@lru_cache(maxsize=1 << 14)
def _placed(network: Network) -> tuple[int, int, bytes, bytes]:
    """
    Return where *network* stands, and its keys without source and number.

    The kernel's trie is walked so that the parts of a network come before the whole.
    """
    host_bits = (1 << network.max_prefixlen - network.prefixlen) - 1
    last = int(network.network_address) | host_bits
    set_key = SET_KEY[family_of(network)].pack(
        SET_BITS + network.prefixlen, 0, network.network_address.packed
    )
    return last, -network.prefixlen, encode_destination(network), set_key


@dataclass(frozen=True, slots=True)
class Change:
    """From one set of rows to another: what to write, and what to remove after it."""

    puts: PackedRows | None
    removes: PackedRows | None


def change(before: RowSet, after: RowSet) -> Change:
    """Return what differs."""
    if not before or not after:
        return Change(
            puts=pack(after) if after else None,
            removes=pack(before) if before else None,
        )
    news = {d: entry for d, entry in after.items() if before.get(d) != entry}
    gone = [destination for destination in before if destination not in after]
    return Change(
        puts=pack_rows(news) if news else None,
        removes=pack_keys(gone) if gone else None,
    )


def encode_source(packed: bytes, number: int) -> bytes:
    """Encode a value of ``outgate_source_v*``: the source again, and its set."""
    return encode_sources((packed,), number)


def encode_sources(sources: Sequence[bytes], number: int) -> bytes:
    """Encode the values of *sources*, which all have the same set, in one go."""
    end = SET_NUMBER.pack(number)
    return end.join(sources) + end


def decode_source(key: bytes, value: bytes) -> tuple[Address, int]:
    """
    Return a source and the number of its set.

    ValueError for a row that programs take for none: of no set, or another source's.
    """
    packed, number = pick(SOURCE_VALUE, value).unpack(value)
    if packed != key or not number:
        raise ValueError("a source without a set")
    return address(key), number


def decode_set_key(key: bytes) -> tuple[int, Network]:
    """Return set and destination of a key of ``outgate_set_v*``; or ValueError."""
    prefix_len, number, packed = pick(SET_KEY, key).unpack(key)
    return number, network_of(prefix_len - SET_BITS, address(packed))


class RowReader:
    """
    Decodes the rows of one family, pod by pod; equal rows become one object.

    Foreign rows, which nobody here writes, are left out.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._key_size = EGRESS_KEY[family].size
        self._value_size = EGRESS_VALUE[family].size
        self._source_size = ADDRESS_SIZES[family]
        self._destinations: dict[bytes, Network | None] = {}
        self._entries: dict[bytes, PolicyEntry | None] = {}
        self._sets: dict[tuple[bytes, bytes], RowSet] = {}

    def read(self, keys: bytes, values: bytes) -> RowSet:
        """Return the rows of one pod."""
        bare = fill(keys, self._key_size, (bytes(self._source_size),))
        if (bare, values) not in self._sets:
            self._sets[bare, values] = self._decode(bare, values)
        return self._sets[bare, values]

    def _decode(self, keys: bytes, values: bytes) -> RowSet:
        rows: dict[Network, PolicyEntry] = {}
        for row in range(len(keys) // self._key_size):
            destination = self._destination(_slice(keys, row, self._key_size))
            entry = self._entry(_slice(values, row, self._value_size))
            if destination is not None and entry is not None:
                rows[destination] = entry
        return RowSet(rows)

    def _destination(self, key: bytes) -> Network | None:
        if key not in self._destinations:
            try:
                self._destinations[key] = decode_destination(key)
            except ValueError:
                self._destinations[key] = None
        return self._destinations[key]

    def _entry(self, value: bytes) -> PolicyEntry | None:
        if value not in self._entries:
            try:
                self._entries[value] = decode_policy_value(value)
            except ValueError:
                self._entries[value] = None
        return self._entries[value]


def _slice(raw: bytes, row: int, size: int) -> bytes:
    return raw[row * size : (row + 1) * size]
