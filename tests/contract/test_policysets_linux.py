"""Sets of rows in the kernel's own maps: adopted, mended, made anew, done without."""

import asyncio
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from itertools import product
from pathlib import Path

import pytest

from contract.kernel_sides import PIN_DIR, compile_tiny, held_by, isolated, start
from outgate.kernel.linux import LinuxKernel
from outgate.kernel.maps import SETS, SOURCES, MapName
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.rows import decode_set_key, decode_source, encode_source
from outgate.state.entries import (
    Excluded,
    Family,
    Key,
    NoGateway,
    PolicyId,
    RowSet,
    RowsKey,
    Value,
)
from outgate.state.plan import diff
from outgate.state.snapshot import Snapshot

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("tiny_datapath")]

PODS = {
    Family.V4: [ip_address("10.0.1.42"), ip_address("10.0.1.43")],
    Family.V6: [ip_address("fd00::42"), ip_address("fd00::43")],
}
NESTED = {
    Family.V4: [ip_network("203.0.113.0/24"), ip_network("203.0.113.64/28")],
    Family.V6: [ip_network("2001:db8::/32"), ip_network("2001:db8::1/128")],
}
ALL_NAMES = (*SOURCES.values(), *SETS.values())
SHARED: dict[Key, Value] = {
    RowsKey(pod): RowSet(dict.fromkeys(NESTED[family], NoGateway(PolicyId(7))))
    for family, pods in PODS.items()
    for pod in pods
}
OTHERWISE: dict[Key, Value] = {
    RowsKey(pods[0]): RowSet({NESTED[family][0]: Excluded(PolicyId(8))})
    for family, pods in PODS.items()
}

Rows = dict[str, dict[bytes, bytes]]


async def converge(kernel: LinuxKernel, desired: Snapshot) -> None:
    assert await kernel.apply(diff(desired, await held_by(kernel))) == {}


def in_the_maps() -> Rows:
    """Return all rows of the maps of sources and sets."""
    found = {}
    for name in ALL_NAMES:
        with PinnedMap(PIN_DIR / name) as opened:
            found[str(name)] = dict(opened.rows())
    return found


def shape(rows: Rows) -> list[tuple[list[str], list[str]]]:
    """Return for each set, whatever its number: who has it, and for what networks."""
    sets: dict[tuple[Family, int], tuple[list[str], list[str]]] = {}
    for family in Family:
        for row in rows[SOURCES[family]].items():
            source, number = decode_source(*row)
            sets.setdefault((family, number), ([], []))[0].append(str(source))
        for key in rows[SETS[family]]:
            number, network = decode_set_key(key)
            sets.setdefault((family, number), ([], []))[1].append(str(network))
    return sorted((sorted(pods), sorted(networks)) for pods, networks in sets.values())


SHAPE = sorted(
    (sorted(map(str, PODS[family])), sorted(map(str, NESTED[family])))
    for family in Family
)


def test_pods_of_one_fate_share_a_set_and_leave_nothing_behind() -> None:
    async def body() -> None:
        kernel = await start()
        await converge(kernel, SHARED)
        first = shape(in_the_maps())
        await converge(kernel, OTHERWISE)
        second = shape(in_the_maps())
        await converge(kernel, {})

        assert first == SHAPE
        assert second == sorted(
            ([str(PODS[family][0])], [str(NESTED[family][0])]) for family in Family
        )
        assert not any(in_the_maps().values())

    isolated(body)


def test_the_next_agent_adopts_sets_as_they_are() -> None:
    """Byte for byte, so that no program sees a change."""

    async def body() -> None:
        kernel = await start()
        await converge(kernel, SHARED)
        before = in_the_maps()
        kernel.close()
        again = await start()
        await converge(again, SHARED)

        assert in_the_maps() == before

    isolated(body)


def empty(*names: MapName) -> None:
    for name in names:
        with PinnedMap(PIN_DIR / name) as opened:
            assert not opened.remove_many([key for key, _ in opened.rows()])


@pytest.mark.parametrize(
    "lost", [tuple(SOURCES.values()), tuple(SETS.values()), ALL_NAMES]
)
def test_sets_are_made_anew_where_an_agent_finds_rows_without(
    lost: tuple[MapName, ...],
) -> None:
    """A former version knew none; or its agent died before it had written them."""

    async def body() -> None:
        kernel = await start()
        await converge(kernel, SHARED)
        kernel.close()
        empty(*lost)
        await held_by(await start())

        assert shape(in_the_maps()) == SHAPE

    isolated(body)


def change_first(name: MapName) -> None:
    with PinnedMap(PIN_DIR / name) as opened:
        key, value = min(opened.rows())
        opened.put(key, value[:-8] + b"\x63" * 8)


def remove_first(name: MapName) -> None:
    with PinnedMap(PIN_DIR / name) as opened:
        assert not opened.remove_many([min(opened.rows())[0]])


def add_source_of_nobody(name: MapName) -> None:
    stranger = PODS[Family.V4 if name is MapName.SOURCE_V4 else Family.V6][0] + 9
    with PinnedMap(PIN_DIR / name) as opened:
        opened.put(stranger.packed, encode_source(stranger.packed, 1))


@pytest.mark.parametrize(
    ("meddle", "name"),
    [
        *product((change_first, remove_first, empty), ALL_NAMES),
        *product((add_source_of_nobody,), SOURCES.values()),
    ],
)
def test_an_audit_mends_sets(meddle: Callable[[MapName], None], name: MapName) -> None:
    async def body() -> None:
        kernel = await start()
        await converge(kernel, SHARED)
        await kernel.observe()
        right = in_the_maps()
        meddle(name)
        assert in_the_maps() != right
        await kernel.audit(rest=lambda _: asyncio.sleep(0), rows_at_once=1)

        assert in_the_maps() == right
        assert (await kernel.observe()).touched == set()

    isolated(body)


def test_pods_do_without_a_set_for_which_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No failure: their own rows say the same."""

    async def body() -> None:
        objects = compile_tiny(tmp_path, ("-DSET_ROOM=1",))
        monkeypatch.setenv("OUTGATE_BPF_OBJECTS", str(objects))
        kernel = await start()
        await converge(kernel, SHARED)

        assert await held_by(kernel) == SHARED
        assert not any(in_the_maps().values())

    isolated(body)


def test_sets_of_the_former_version_stay_as_its_programs_know_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its rows are set aside: numbers are those of other maps now."""

    async def body() -> None:
        with monkeypatch.context() as former:
            objects = compile_tiny(tmp_path, ("-DEGRESS_ROOM=5",))
            former.setenv("OUTGATE_BPF_OBJECTS", str(objects))
            kernel = await start()
            await converge(kernel, SHARED)
            kernel.close()
        with PinnedMap(PIN_DIR / MapName.SOURCE_V4) as of_former:
            before = dict(of_former.rows())
            kernel = await start()
            await converge(kernel, OTHERWISE)

            assert dict(of_former.rows()) == before
            assert in_the_maps()[MapName.SOURCE_V4] != before

    isolated(body)
