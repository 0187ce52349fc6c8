"""Addresses that policies leave alone: said so, and taken back before it is wrong."""

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import cast

import pytest

from outgate.errors import KernelError
from outgate.kernel.free import WORD_BITS, WORDS, FreeAddresses, bit_of
from outgate.kernel.layouts import FREE_KEY, FREE_VALUE
from outgate.kernel.maps import MapName
from outgate.kernel.pinned import PinnedMap
from outgate.state.entries import Address, Excluded, PolicyId, RowSet, RowsKey

POD, OTHER_POD, POD_6 = (
    ip_address(text) for text in ("10.0.1.42", "10.0.1.43", "fd00::42")
)
ROWS = RowSet({ip_network("203.0.113.0/24"): Excluded(PolicyId(7))})


class Table:
    """The map ``outgate_free``, which may refuse what is written."""

    def __init__(self) -> None:
        self.words = {FREE_KEY.pack(n): FREE_VALUE.pack(0) for n in range(WORDS)}
        self.is_refusing = False

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.words.items())

    def put_packed(self, keys: bytes, values: bytes) -> dict[int, KernelError]:
        count = len(keys) // FREE_KEY.size
        if self.is_refusing:
            return dict.fromkeys(range(count), KernelError("write map", 12))
        rows = zip(_cut(keys, count), _cut(values, count), strict=True)
        self.words.update(rows)
        return {}

    def is_free(self, address: Address) -> bool:
        number, bit = divmod(bit_of(address.packed), WORD_BITS)
        (word,) = FREE_VALUE.unpack(self.words[FREE_KEY.pack(number)])
        return bool(word >> bit & 1)


def _cut(packed: bytes, count: int) -> list[bytes]:
    size = len(packed) // count
    return [packed[i : i + size] for i in range(0, len(packed), size)]


class Flows:
    """A table of flows, by their sources."""

    def __init__(self, *sources: Address) -> None:
        self._keys = b"".join(s.packed + s.packed + bytes(8) for s in sources)

    def packed_rows(self) -> Iterator[tuple[bytes, bytes]]:
        yield self._keys, b""


def agent(table: Table, *flows: Address) -> FreeAddresses:
    """Return what an agent over *table* has, while *flows* are known."""
    fours = Flows(*(a for a in flows if a.version == 4))
    sixes = Flows(*(a for a in flows if a.version == 6))
    maps = {
        MapName.FREE: cast("PinnedMap", table),
        MapName.FLOW_V4: cast("PinnedMap", fours),
        MapName.FLOW_V6: cast("PinnedMap", sixes),
    }
    return FreeAddresses(maps)


def begin(table: Table, *rows_of: Address, flows: tuple[Address, ...] = ()) -> None:
    asyncio.run(agent(table, *flows).begin(RowsKey(address) for address in rows_of))


def test_a_new_table_says_nothing() -> None:
    assert not Table().is_free(POD)


def test_addresses_without_rows_and_flows_are_free() -> None:
    table = Table()
    begin(table, POD, flows=(POD_6,))

    assert [table.is_free(a) for a in (POD, POD_6, OTHER_POD)] == [False, False, True]


@pytest.mark.parametrize("pod", [POD, POD_6])
def test_what_gets_rows_is_free_no_more(pod: Address) -> None:
    table = Table()
    free = agent(table)
    asyncio.run(free.begin(()))
    free.take([pod.packed])

    assert not table.is_free(pod)
    assert table.is_free(OTHER_POD)


def test_what_had_rows_is_free_no_more_even_for_the_next_agent() -> None:
    """Its flows may live on, and programs of another version may have its rows."""
    table = Table()
    free = agent(table)
    asyncio.run(free.begin(()))
    free.take([POD.packed])
    begin(table)

    assert not table.is_free(POD)


def test_rows_of_an_agent_that_knew_no_such_table_take_back_what_it_says() -> None:
    table = Table()
    begin(table)
    begin(table, POD, POD_6, flows=(OTHER_POD,))

    assert not any(table.is_free(address) for address in (POD, POD_6, OTHER_POD))


def test_rows_before_the_first_look_free_nobody() -> None:
    """What the former agent said is not known yet."""
    table = Table()
    begin(table)
    agent(table).take([POD.packed])

    assert not table.is_free(POD)


def test_rows_are_not_written_where_it_cannot_be_taken_back() -> None:
    table = Table()
    free = agent(table)
    asyncio.run(free.begin(()))
    table.is_refusing = True
    for _ in range(2):
        with pytest.raises(KernelError):
            free.take([POD.packed])


@pytest.mark.parametrize("networks", ["10.128.0.0/15", "fd00:10:0:80::/64"])
def test_pods_of_many_other_nodes_leave_a_nodes_own_their_bits(networks: str) -> None:
    """Whole networks that shared their bits would be a node without free pods."""
    first = ip_network(networks).network_address
    others = {bit_of((first + number).packed) for number in range(25_600)}
    shares = []
    for node in range(100):
        start = first + (1 << 17) + 256 * node
        shared = sum(bit_of((start + pod).packed) in others for pod in range(256))
        shares.append(shared / 256)

    assert max(shares) < 0.2
