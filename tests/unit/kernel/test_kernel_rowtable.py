"""Rows of pods as bytes, and a table that remembers precisely which ones are there."""

import random
from ipaddress import ip_network

import pytest

from outgate.kernel.layouts import SET_KEY
from outgate.kernel.maps import encode_key, encode_value
from outgate.kernel.rows import RowReader, decode_set_key, pack
from outgate.state.entries import (
    Family,
    Network,
    NoGateway,
    PolicyEntry,
    PolicyKey,
    RowSet,
    RowsKey,
)
from outgate.state.plan import Remove, diff
from outgate.state.snapshot import policy_rows
from unit.kernel.memory import NETWORKS, PODS, POLICY, Bench, any_wish, fates


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
    await bench.table.change(
        plan, lambda addresses: None, lambda failures: seen.append(len(bench.rows()))
    )

    assert (seen, len(bench.rows())) == ([2], 1)


async def test_addresses_are_told_before_rows_of_them_are_written() -> None:
    bench = Bench()
    for table in bench.maps.values():
        table.written = lambda: seen.append(
            {pod.packed for pod in bench.rows_by_pod()} - bench.taken
        )
    seen: list[set[bytes]] = []
    await bench.bring(any_wish(random.Random(7)))

    assert seen
    assert not any(seen)


@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
async def test_what_is_read_is_what_was_written(rows_at_once: int) -> None:
    bench, wish = Bench(), any_wish(random.Random(7))
    await bench.bring(wish)
    bench.restart()
    await bench.table.read()
    for family in Family:
        for _ in bench.table.audit(family, rows_at_once):
            pass

    assert bench.held.entries == wish
    assert bench.held.touched is None


async def test_a_set_stays_as_long_as_a_source_of_it_cannot_go() -> None:
    bench, pods = Bench(), PODS[Family.V4]
    rows = RowSet(dict.fromkeys(NETWORKS[Family.V4], NoGateway(POLICY)))
    await bench.bring({RowsKey(pod): rows for pod in pods})
    sources = bench.sources[Family.V4]
    sources.refused = {pods[1].packed}
    await bench.bring({})

    assert sources.data.keys() == sources.refused
    assert bench.numbers_in_use() == bench.numbers_there()


async def test_a_pod_loses_its_set_though_its_rows_were_lost_before() -> None:
    """Whoever stands beside it, of either family."""
    bench, (pod, other) = Bench(), (PODS[family][0] for family in Family)
    rows = RowSet(dict.fromkeys(NETWORKS[Family.V6], NoGateway(POLICY)))
    await bench.bring({RowsKey(other): rows})
    bench.held.correct(RowsKey(other), None)
    removes = [Remove(RowsKey(pod)), Remove(RowsKey(other))]
    await bench.table.change(removes, bench.taken.update, lambda failures: None)

    assert not bench.set_of(other)
    assert not bench.numbers_there()


async def test_an_audit_tries_again_as_long_as_there_is_no_room() -> None:
    bench, wish = Bench(), any_wish(random.Random(5))
    for table in bench.sources.values():
        table.room = 0
    await bench.bring(wish)
    written: list[str] = []
    for family in Family:
        sets = bench.sets[family]
        sets.written = lambda: written.append("a row of a set")
        for _ in range(2):
            written.clear()
            for _ in bench.table.audit(family, 1):
                pass
            assert written
            assert not any(bench.set_of(pod) for pod in PODS[family])


async def test_pods_of_one_fate_are_read_as_one_object() -> None:
    bench = Bench()
    rows = RowSet(dict.fromkeys(NETWORKS[Family.V6], NoGateway(POLICY)))
    await bench.bring({RowsKey(pod): rows for pod in PODS[Family.V6]})
    bench.restart()
    await bench.table.read()

    assert len({id(value) for value in bench.held.entries.values()}) == 1


@pytest.mark.parametrize("pods", [1, 2, 4])
@pytest.mark.parametrize("family", Family)
def test_packed_rows_are_the_rows_one_by_one(family: Family, pods: int) -> None:
    """For fewer pods than there are rows, and for more."""
    rows = dict(zip(NETWORKS[family], fates(family), strict=False))
    packed, sources = pack(RowSet(rows)), PODS[family][:pods]
    keys = [PolicyKey(pod, one) for pod in sources for one in packed.destinations]

    assert set(rows) == set(packed.destinations)
    assert packed.keys_of([pod.packed for pod in sources]) == b"".join(
        encode_key(key)[1] for key in keys
    )
    assert packed.values * pods == b"".join(
        encode_value(key, rows[key.destination]) for key in keys
    )


@pytest.mark.parametrize("family", Family)
def test_rows_of_a_set_say_the_same_under_its_number(family: Family) -> None:
    rows = dict(zip(NETWORKS[family], fates(family), strict=False))
    packed, size = pack(RowSet(rows)), SET_KEY[family].size
    keys = packed.keys_in(0xA1B2C3D4)

    assert [decode_set_key(keys[i : i + size]) for i in range(0, len(keys), size)] == [
        (0xA1B2C3D4, destination) for destination in packed.destinations
    ]


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
