"""
The sets of pods: what programs find at any moment, whatever is refused or cut short.

Each pair is looked up as ``policy_lookup()`` does, after every single row that is
written or removed in any map.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import ip_network

import pytest

from outgate.kernel.rows import encode_source
from outgate.state.entries import (
    Address,
    Excluded,
    Family,
    NoGateway,
    RowSet,
    RowsKey,
    family_of,
)
from outgate.state.snapshot import Snapshot
from unit.kernel.memory import (
    NETWORKS,
    PODS,
    POLICY,
    Bench,
    Contents,
    Fates,
    MemoryMap,
    any_wish,
    fates_of,
    found_at,
)

ALL_PODS = [pod for pods in PODS.values() for pod in pods]
Found = dict[Address, Fates]


class DiedError(Exception):
    """The agent ended here."""


def wished(wish: Snapshot) -> Found:
    """Return what programs shall find."""
    found = {}
    for pod in ALL_PODS:
        rows = wish.get(RowsKey(pod), RowSet({}))
        assert isinstance(rows, RowSet)
        found[pod] = fates_of(rows, family_of(pod))
    return found


def watch(bench: Bench, written: Callable[[MemoryMap], None]) -> None:
    for table in bench.all_maps():
        table.written = partial(written, table)


def refuse_some(bench: Bench, chance: random.Random, maps: list[MemoryMap]) -> None:
    for table in bench.all_maps():
        table.room = None
    for table in maps:
        table.room = chance.choice([None, len(table.data), len(table.data) + 2, 0])


def in_force(bench: Bench) -> Found:
    """Return what the rows of pods say."""
    found = wished({})
    for pod, rows in bench.rows_by_pod().items():
        found[pod] = fates_of(rows, family_of(pod))
    return found


def assert_nothing_is_left_over(bench: Bench) -> None:
    assert bench.numbers_there() == bench.numbers_in_use()


@pytest.mark.parametrize("has_room", [True, False])
@pytest.mark.parametrize("seed", range(5))
async def test_a_pod_has_its_former_rows_or_its_new_ones_at_any_moment(
    seed: int, has_room: bool
) -> None:
    """Nothing between the two, from the moment on that it has a set."""
    chance, bench = random.Random(seed), Bench()
    before: Found = {}
    after: Found = {}
    watched: list[Address] = []

    def check(_: MemoryMap) -> None:
        found = bench.found_by_programs()
        for pod in watched:
            assert found[pod] in (before[pod], after[pod])

    watch(bench, check)
    for _ in range(8):
        if not has_room:
            refuse_some(bench, chance, [*bench.sources.values(), *bench.sets.values()])
        wish = any_wish(chance)
        before, after = bench.found_by_programs(), wished(wish)
        watched = [pod for pod in ALL_PODS if bench.set_of(pod)]
        assert await bench.bring(wish) == {}

        assert bench.found_by_programs() == after
        if has_room:
            assert {pod for pod in ALL_PODS if bench.set_of(pod)} == {
                key.source for key in wish if isinstance(key, RowsKey)
            }
        assert_nothing_is_left_over(bench)


@pytest.mark.parametrize("seed", range(5))
async def test_no_covered_pair_is_ever_without_a_row(seed: int) -> None:
    """Neither with sets nor without, nor while some get one and others lose it."""
    chance, bench = random.Random(seed), Bench()
    before: Found = {}
    after: Found = {}

    def check(_: MemoryMap) -> None:
        found = bench.found_by_programs()
        for pod in ALL_PODS:
            pairs = zip(before[pod], after[pod], found[pod], strict=True)
            for old, new, now in pairs:
                assert now or not (old and new)

    watch(bench, check)
    for _ in range(8):
        refuse_some(bench, chance, [*bench.sources.values(), *bench.sets.values()])
        wish = any_wish(chance)
        before, after = bench.found_by_programs(), wished(wish)
        await bench.bring(wish)


@pytest.mark.parametrize("has_room", [True, False])
@pytest.mark.parametrize("seed", range(5))
async def test_a_lookup_that_changes_overtake_finds_a_row_nevertheless(
    seed: int, has_room: bool
) -> None:
    """Up to three changes, each of which covers the pair, while a program looks."""
    chance, bench = random.Random(seed), Bench()
    moments: list[Contents] = []
    watch(bench, lambda _: moments.append(bench.contents()))
    for _ in range(4):
        moments[:] = [bench.contents()]
        always = [bench.found_by_programs()]
        for _ in range(chance.randint(1, 3)):
            if not has_room:
                tables = [*bench.sources.values(), *bench.sets.values()]
                refuse_some(bench, chance, tables)
            wish = any_wish(chance)
            await bench.bring(wish)
            always.append(wished(wish))
        for pod in ALL_PODS:
            is_covered = [
                all(fates) for fates in zip(*(f[pod] for f in always), strict=True)
            ]
            for _ in range(40):
                when = sorted(chance.choices(range(len(moments)), k=4))
                found = found_at([moments[i] for i in when], pod)

                for now, covered in zip(found, is_covered, strict=True):
                    assert now or not covered


@pytest.mark.parametrize("seed", range(5))
async def test_a_pod_whose_rows_were_refused_has_no_set_but_those_rows(
    seed: int,
) -> None:
    chance, bench = random.Random(seed), Bench()
    for _ in range(8):
        refuse_some(bench, chance, bench.all_maps())
        for table in bench.maps.values():
            some = chance.sample(sorted(table.data), min(len(table.data), 2))
            table.refused = set(some)
        failures = await bench.bring(any_wish(chance))

        assert bench.found_by_programs() == in_force(bench)
        for key in failures:
            assert isinstance(key, RowsKey)
            assert not bench.set_of(key.source)
        assert_nothing_is_left_over(bench)


@pytest.mark.parametrize("seed", range(20))
async def test_an_agent_that_dies_at_any_row_leaves_what_the_next_one_mends(
    seed: int,
) -> None:
    chance, bench = random.Random(seed), Bench()
    await bench.bring(any_wish(chance))
    wish = any_wish(chance)
    before, after = bench.found_by_programs(), wished(wish)
    left = chance.randint(1, 60)

    def die(_: MemoryMap) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise DiedError

    def check(_: MemoryMap) -> None:
        found = bench.found_by_programs()
        for pod in ALL_PODS:
            pairs = zip(before[pod], after[pod], found[pod], strict=True)
            assert all(now or not (old and new) for old, new, now in pairs)

    watch(bench, die)
    with suppress(DiedError):
        await bench.bring(wish)
    watch(bench, check)
    bench.restart()
    await bench.table.read()

    assert bench.found_by_programs() == in_force(bench)
    assert_nothing_is_left_over(bench)
    assert await bench.bring(wish) == {}
    assert bench.found_by_programs() == after
    assert_nothing_is_left_over(bench)


async def test_an_agent_adopts_the_sets_that_it_finds() -> None:
    bench = Bench()
    await bench.bring(any_wish(random.Random(3)))
    written: list[MemoryMap] = []
    watch(bench, written.append)
    bench.restart()
    await bench.table.read()

    assert written == []
    assert bench.numbers_in_use()


async def test_rows_of_a_version_without_sets_get_them_when_they_are_read() -> None:
    bench, wish = Bench(), any_wish(random.Random(3))
    await bench.bring(wish)
    for table in (*bench.sources.values(), *bench.sets.values()):
        table.data.clear()
    found = bench.found_by_programs()
    bench.restart()
    await bench.table.read()

    assert bench.found_by_programs() == found == wished(wish)
    assert all(bench.set_of(key.source) for key in wish if isinstance(key, RowsKey))


async def test_rows_come_before_their_set_and_sets_before_who_has_them() -> None:
    """The rows of pods first of all, for users' tools; also when they go."""
    bench, pod = Bench(), PODS[Family.V4][0]
    written: list[str] = []
    watch(bench, lambda table: written.append(table.name))
    await bench.bring(
        {RowsKey(pod): RowSet({NETWORKS[Family.V4][0]: NoGateway(POLICY)})}
    )
    await bench.bring({})

    assert written == ["rows", "sets", "sources", "rows", "sources", "sets"]


async def test_pods_of_one_fate_have_one_set() -> None:
    bench, pods = Bench(), PODS[Family.V4]
    rows = {pod: dict.fromkeys(NETWORKS[Family.V4], NoGateway(POLICY)) for pod in pods}
    await bench.bring({RowsKey(pod): RowSet(rows[pod]) for pod in pods})

    assert len({bench.set_of(pod) for pod in pods}) == 1


async def test_a_number_is_not_used_again() -> None:
    """A program may have read it before the set went, and look it up after."""
    bench, pod, seen = Bench(), PODS[Family.V4][0], set()
    for i in range(5):
        network = NETWORKS[Family.V4][i % 2]
        await bench.bring({RowsKey(pod): RowSet({network: NoGateway(POLICY)})})
        seen.add(bench.set_of(pod))
        if i == 2:
            bench.restart()
            await bench.table.read()

    assert len(seen) == 5


MEDDLING: dict[str, Callable[[Bench], None]] = {
    "a set lost a row": lambda b: take_away(b.sets[Family.V4]),
    "a set is gone": lambda b: b.sets[Family.V4].data.clear(),
    "a row of a set changed": lambda b: change(b.sets[Family.V4]),
    "a set of nobody": lambda b: add_to_set(b, 4711),
    "a set got a row": lambda b: add_to_set(b, b.set_of(PODS[Family.V4][0])),
    "a source is gone": lambda b: take_away(b.sources[Family.V4]),
    "a source has another set": lambda b: change(b.sources[Family.V4]),
    "a source of nobody": lambda b: b.sources[Family.V4].data.update(
        {bytes(4): encode_source(bytes(4), 1)}
    ),
}


def take_away(table: MemoryMap) -> None:
    del table.data[min(table.data)]


def change(table: MemoryMap) -> None:
    table.data[min(table.data)] = bytes(table.sizes[1])


def add_to_set(bench: Bench, number: int) -> None:
    table = bench.sets[Family.V4]
    key, value = next(iter(table.data.items()))
    destination = ip_network("198.51.100.0/24").network_address
    added = (56).to_bytes(4, "little") + number.to_bytes(4, "little")
    table.data[added + destination.packed] = value
    assert key != added


@pytest.mark.parametrize("at_once", [1, 100])
@pytest.mark.parametrize("what", MEDDLING)
async def test_an_audit_mends_what_somebody_else_wrote(what: str, at_once: int) -> None:
    bench, pods = Bench(), PODS[Family.V4]
    nets = NETWORKS[Family.V4]
    of_all = RowSet(dict.fromkeys(nets, NoGateway(POLICY)))
    of_one = RowSet({nets[0]: Excluded(POLICY)})
    wish: Snapshot = dict.fromkeys(map(RowsKey, pods[:2]), of_all)
    await bench.bring({**wish, RowsKey(pods[2]): of_one})
    right = [dict(table.data) for table in bench.all_maps()]
    MEDDLING[what](bench)
    assert [table.data for table in bench.all_maps()] != right
    for family in Family:
        for _ in bench.table.audit(family, at_once):
            pass

    assert [table.data for table in bench.all_maps()] == right


async def test_an_audit_gives_sets_to_those_for_whom_there_was_no_room() -> None:
    bench, wish = Bench(), any_wish(random.Random(5))
    for table in (*bench.sources.values(), *bench.sets.values()):
        table.room = 1
    await bench.bring(wish)
    for table in bench.all_maps():
        table.room = None
    for family in Family:
        for _ in bench.table.audit(family, 1):
            pass

    assert all(bench.set_of(key.source) for key in wish if isinstance(key, RowsKey))
    assert bench.found_by_programs() == wished(wish)
