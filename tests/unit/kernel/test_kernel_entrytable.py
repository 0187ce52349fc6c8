"""Entries by the thousand, over a map that remembers what was written."""

import errno
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import cast

from outgate.errors import KernelError
from outgate.kernel.entrytable import EntryTables
from outgate.kernel.held import Held
from outgate.kernel.maps import MapName, encode_key
from outgate.kernel.pinned import CHUNK, PinnedMap
from outgate.state.entries import CoveredEntry, CoveredKey, PolicyId
from outgate.state.plan import Put


class CountingMap:
    """Takes rows, but not those of *refused*; counts the calls."""

    def __init__(self, refused: bytes = b"") -> None:
        self.rows: dict[bytes, bytes] = {}
        self.calls = 0
        self._refused = refused

    def put_many(self, rows: Mapping[bytes, bytes]) -> dict[bytes, KernelError]:
        self.calls += 1
        self.rows |= {k: v for k, v in rows.items() if k != self._refused}
        error = KernelError("write map", errno.ENOSPC)
        return {self._refused: error} if self._refused in rows else {}


def covered(number: int) -> CoveredKey:
    return CoveredKey(IPv4Network((number << 8, 24)))


PUTS = [Put(covered(i), CoveredEntry(PolicyId(7))) for i in range(CHUNK + 1)]


def test_more_entries_than_fit_one_call_are_all_held() -> None:
    table, held = CountingMap(), Held()
    tables = EntryTables({MapName.COVERED_V4: cast(PinnedMap, table)}, held)

    failures = tables.change(PUTS)

    assert failures == {}
    assert (len(table.rows), len(held.entries), table.calls) == (CHUNK + 1,) * 2 + (2,)


def test_a_refusal_in_one_call_is_told_beside_those_of_others() -> None:
    last = PUTS[-1].key
    table, held = CountingMap(refused=encode_key(last)[1]), Held()
    tables = EntryTables({MapName.COVERED_V4: cast(PinnedMap, table)}, held)

    failures = tables.change(PUTS)

    assert list(failures) == [last]
    assert len(held.entries) == CHUNK
