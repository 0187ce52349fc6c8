"""
Which addresses policies leave alone: told to programs, who then need not look.

The map ``outgate_free`` (``free.h``) has a bit for each address, by a hash.  1 says
that no policy row was ever written for it since the table is there, and that no flow
was known of it then; so a pod that no policy ever selected costs two lookups less for
each packet.  A bit is taken back before a row is written, and never comes back: flows
may live on when rows are gone, and programs that are attached may still have the maps
of another version.  0 is always right: the programs look.  A new table is all 0, and
so it stays without an agent.

Called by ``kernel.linux``.  It does not know pods: an address may be nobody's.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from struct import unpack

from outgate.kernel.layouts import FREE_KEY, FREE_VALUE, TUPLE
from outgate.kernel.maps import FLOWS, MapName
from outgate.kernel.pinned import PinnedMap
from outgate.state.entries import Family, Key, RowsKey, family_of

FACTOR = 0x9E3779B1
SHIFT = 12
WORD_BITS = 64
WORDS = 1 << (32 - SHIFT - 6)

_HASH = (1 << 32) - 1
_ALL = (1 << WORD_BITS) - 1


def bit_of(packed: bytes) -> int:
    """
    Return the number of an address's bit, as ``is_free_address()`` finds it.

    Units: *packed* is in network order.  Neighbours have bits far from each other.
    """
    (number,) = _bits_of([packed])
    return number


def _bits_of(addresses: Sequence[bytes]) -> list[int]:
    """Return the same of many addresses of one family, one at least."""
    joined = b"".join(addresses)
    words = unpack(f"!{len(joined) // 4}I", joined)
    width = len(words) // len(addresses)
    numbers = list(words[::width])
    for i in range(1, width):
        pairs = zip(numbers, words[i::width], strict=True)
        numbers = [number * FACTOR & _HASH ^ word for number, word in pairs]
    return [(number * FACTOR & _HASH) >> SHIFT for number in numbers]


class FreeAddresses:
    """
    The one writer of a node's table, and what it wrote there.

    Errors: KernelError; then nothing is called free that was not.
    """

    def __init__(self, maps: Mapping[MapName, PinnedMap]) -> None:
        self._table = maps[MapName.FREE]
        self._flows = [(maps[name], TUPLE[family]) for family, name in FLOWS.items()]
        self._words: list[int] = []
        """Before ``begin`` nothing: then words are cleared whole."""

    async def begin(self, held: Iterable[Key]) -> None:
        """
        Take over what the table says, a new one says that all addresses are free; take
        back what it says of those of *held* rows, and of flows.
        """
        words = [FREE_VALUE.unpack(row)[0] for _, row in self._table.rows()]
        if not any(words):
            words = [_ALL] * WORDS
        sources = [key.source for key in held if isinstance(key, RowsKey)]
        for family in Family:
            _clear(words, [s.packed for s in sources if family_of(s) is family])
        for flows, form in self._flows:
            for keys, _ in flows.packed_rows():
                _clear(words, [*{source for source, *_ in form.iter_unpack(keys)}])
                await asyncio.sleep(0)
        self._write(dict(enumerate(words)))
        self._words = words

    def take(self, addresses: Sequence[bytes]) -> None:
        """Say that *addresses*, packed and of one family, may have rows from now on."""
        if not addresses:
            return
        words = self._words.copy() or [0] * WORDS
        changed = _clear(words, addresses)
        if not self._words:
            changed = set(range(WORDS))
        if changed:
            self._write({number: words[number] for number in changed})
            self._words = words

    def _write(self, words: Mapping[int, int]) -> None:
        keys, values = map(FREE_KEY.pack, words), map(FREE_VALUE.pack, words.values())
        for error in self._table.put_packed(b"".join(keys), b"".join(values)).values():
            raise error


def _clear(words: list[int], addresses: Sequence[bytes]) -> set[int]:
    """
    Clear the bits of *addresses*, all of one family.

    Returns the numbers of the words that changed.
    """
    bits = _bits_of(addresses) if addresses else []
    held = [bit for bit in bits if words[bit // WORD_BITS] >> bit % WORD_BITS & 1]
    for bit in held:
        words[bit // WORD_BITS] &= ~(1 << bit % WORD_BITS)
    return {bit // WORD_BITS for bit in held}
