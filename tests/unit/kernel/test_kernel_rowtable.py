"""Rows of pods as bytes, and a table that remembers precisely which ones are there."""

import errno
import random
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from outgate.errors import KernelError
from outgate.kernel.held import Held
from outgate.kernel.layouts import EGRESS_KEY, EGRESS_VALUE
from outgate.kernel.maps import EGRESS, decode_row, encode_key, encode_value
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.rows import RowReader, pack
from outgate.kernel.rowtable import RowTable
from outgate.state.entries import (
    Address,
    Excluded,
    Family,
    Key,
    Network,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    PolicyId,
    PolicyKey,
    RowSet,
    RowsKey,
    Value,
    ViaGateway,
)
from outgate.state.plan import diff
from outgate.state.snapshot import Snapshot, policy_rows

POLICY = PolicyId(7)
PODS: dict[Family, list[Address]] = {
    Family.V4: [IPv4Address("10.0.1.1") + i for i in range(4)],
    Family.V6: [IPv6Address("fd00::1") + i for i in range(4)],
}
NETWORKS: dict[Family, list[Network]] = {
    Family.V4: [
        ip_network(text)
        for text in ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/9", "10.1.2.3/32")
    ],
    Family.V6: [ip_network(t) for t in ("::/0", "2001:db8::/32", "2001:db8::1/128")],
}
GATEWAY: dict[Family, Address] = {
    Family.V4: IPv4Address("172.18.0.5"),
    Family.V6: IPv6Address("2001:db8::5"),
}


def fates(family: Family) -> list[PolicyEntry]:
    gateway = GATEWAY[family]
    return [
        ViaGateway(gateway, gateway, POLICY),
        ViaGateway(None, gateway, POLICY),
        Excluded(POLICY),
        NoGateway(POLICY),
        NoEgressIP(gateway, POLICY),
    ]


class MemoryMap(PinnedMap):
    """A map without a kernel; *refused* keys can be neither written nor removed."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.refused: set[bytes] = set()
        self.sizes = (0, 0)

    def packed_rows(self, chunk: int = 4096) -> Iterator[tuple[bytes, bytes]]:
        keys = sorted(self.data, key=lambda key: key[4:])
        for start in range(0, len(keys), chunk):
            part = keys[start : start + chunk]
            yield b"".join(part), b"".join(self.data[key] for key in part)

    def put_packed(self, keys: bytes, values: bytes) -> dict[int, KernelError]:
        key_size, value_size = self.sizes
        failures = {}
        for row in range(len(keys) // key_size):
            key = bytes(keys[row * key_size : (row + 1) * key_size])
            if key in self.refused:
                failures[row] = KernelError("write map", errno.ENOMEM)
            else:
                value = values[row * value_size : (row + 1) * value_size]
                self.data[key] = bytes(value)
        return failures

    def remove_packed(self, keys: bytes) -> dict[int, KernelError]:
        key_size, _ = self.sizes
        failures = {}
        for row in range(len(keys) // key_size):
            key = bytes(keys[row * key_size : (row + 1) * key_size])
            if key in self.refused:
                failures[row] = KernelError("remove from map", errno.EBUSY)
            else:
                self.data.pop(key, None)
        return failures


class Bench:
    """Two maps in memory, a table over them, and what it remembers."""

    def __init__(self) -> None:
        self.maps = {family: MemoryMap() for family in Family}
        for family, table in self.maps.items():
            table.sizes = EGRESS_KEY[family].size, EGRESS_VALUE[family].size
        self.held = Held()
        self.table = RowTable(self.maps, self.held)

    async def bring(self, wish: Snapshot) -> dict[Key, KernelError]:
        plan = diff(wish, self.held.entries)
        return await self.table.change(plan, lambda failures: None)

    def rows(self) -> list[tuple[PolicyKey, PolicyEntry]]:
        """Return what the maps hold, in order."""
        found: dict[RowsKey, dict[Network, PolicyEntry]] = {}
        for family, table in self.maps.items():
            for row in table.data.items():
                decoded = decode_row(EGRESS[family], *row)
                assert decoded
                key, entry = decoded
                assert isinstance(key, PolicyKey)
                assert isinstance(entry, ViaGateway | Excluded | NoGateway | NoEgressIP)
                found.setdefault(RowsKey(key.source), {})[key.destination] = entry
        return list(policy_rows({key: RowSet(rows) for key, rows in found.items()}))


def any_wish(chance: random.Random) -> Snapshot:
    wish: dict[Key, Value] = {}
    for family in Family:
        for pod in PODS[family]:
            rows: dict[Network, PolicyEntry] = {
                network: chance.choice(fates(family))
                for network in NETWORKS[family]
                if chance.random() < 0.5
            }
            if rows:
                wish[RowsKey(pod)] = RowSet(rows)
    return wish


@pytest.mark.parametrize("seed", range(20))
async def test_memory_is_what_the_maps_hold_whatever_was_refused(seed: int) -> None:
    chance, bench = random.Random(seed), Bench()
    keys = {
        family: [
            encode_key(PolicyKey(pod, network))[1]
            for pod in PODS[family]
            for network in NETWORKS[family]
        ]
        for family in Family
    }
    for _ in range(20):
        for family, table in bench.maps.items():
            table.refused = set(chance.sample(keys[family], chance.randint(0, 4)))
        wish = any_wish(chance)
        failures = await bench.bring(wish)

        assert list(policy_rows(bench.held.entries)) == bench.rows()
        for key in wish.keys() | bench.held.entries.keys():
            is_done = bench.held.entries.get(key) == wish.get(key)
            assert is_done is (key not in failures)


async def test_refused_rows_are_told_by_pod_with_the_first_and_how_many() -> None:
    bench, pod = Bench(), PODS[Family.V4][0]
    rows: dict[Network, PolicyEntry] = dict.fromkeys(
        NETWORKS[Family.V4], NoGateway(POLICY)
    )
    table = bench.maps[Family.V4]
    table.refused = {
        encode_key(PolicyKey(pod, network))[1] for network in NETWORKS[Family.V4][:2]
    }
    failures = await bench.bring({RowsKey(pod): RowSet(rows)})

    (error,) = failures.values()
    assert error.rows == 2
    assert "2 of 4 rows, 10.0.0.0/8 first" in str(error)


async def test_new_rows_are_there_before_old_ones_go() -> None:
    bench, pod = Bench(), PODS[Family.V4][0]
    before, after = NETWORKS[Family.V4][:2]
    await bench.bring({RowsKey(pod): RowSet({before: NoGateway(POLICY)})})
    seen = []
    plan = diff({RowsKey(pod): RowSet({after: NoGateway(POLICY)})}, bench.held.entries)
    await bench.table.change(plan, lambda failures: seen.append(len(bench.rows())))

    assert (seen, len(bench.rows())) == ([2], 1)


@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
async def test_what_is_read_is_what_was_written(rows_at_once: int) -> None:
    bench, again = Bench(), Bench()
    await bench.bring(any_wish(random.Random(7)))
    again.maps.update(bench.maps)
    await again.table.read()
    for family in Family:
        for _ in again.table.audit(family, rows_at_once):
            pass

    assert again.held.entries == bench.held.entries
    assert again.held.touched is None


async def test_pods_of_one_fate_are_read_as_one_object() -> None:
    bench, again = Bench(), Bench()
    rows = RowSet(dict.fromkeys(NETWORKS[Family.V6], NoGateway(POLICY)))
    await bench.bring({RowsKey(pod): rows for pod in PODS[Family.V6]})
    again.maps.update(bench.maps)
    await again.table.read()

    assert len({id(value) for value in again.held.entries.values()}) == 1


@pytest.mark.parametrize("family", Family)
def test_packed_rows_are_the_rows_one_by_one(family: Family) -> None:
    pod = PODS[family][0]
    rows = dict(zip(NETWORKS[family], fates(family), strict=False))
    packed = pack(RowSet(rows))
    keys = [PolicyKey(pod, destination) for destination in packed.destinations]

    assert bytes(packed.keys_of(pod)) == b"".join(encode_key(key)[1] for key in keys)
    assert packed.values == b"".join(
        encode_value(key, rows[key.destination]) for key in keys
    )


def test_packed_rows_stand_as_the_trie_is_walked() -> None:
    """The parts of a network before the network itself."""
    networks = [*NETWORKS[Family.V4], ip_network("10.128.0.0/9")]
    packed = pack(RowSet(dict.fromkeys(networks, NoGateway(POLICY))))

    assert [str(destination) for destination in packed.destinations] == [
        "10.1.2.3/32",
        "10.0.0.0/9",
        "10.128.0.0/9",
        "10.0.0.0/8",
        "0.0.0.0/0",
    ]


def test_a_foreign_row_is_no_row_of_its_pod() -> None:
    pod, (wide, narrow) = PODS[Family.V4][0], NETWORKS[Family.V4][:2]
    keys = [encode_key(PolicyKey(pod, network))[1] for network in (wide, narrow)]
    value = encode_value(PolicyKey(pod, wide), NoGateway(POLICY))
    rows = RowReader(Family.V4).read(b"".join(keys), value + bytes(16))

    assert rows == RowSet({wide: NoGateway(POLICY)})
