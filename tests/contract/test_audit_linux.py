"""Somebody else writes our maps: an audit finds it, and the next round repairs it."""

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

import pytest

from contract.kernel_sides import PIN_DIR, held_by, isolated, start
from outgate.kernel.linux import LinuxKernel
from outgate.kernel.maps import MapName, encode_key, encode_value
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.rows import pack
from outgate.state.entries import (
    HOST,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
    IpcacheEntry,
    IpcacheKey,
    Key,
    NodeEntry,
    NodeKey,
    NoGateway,
    PolicyEntry,
    PolicyId,
    PolicyKey,
    RowSet,
    RowsKey,
    Value,
)
from outgate.state.plan import diff
from outgate.state.snapshot import Snapshot

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("tiny_datapath")]

POD, OTHER = IPv4Address("10.0.1.42"), IPv4Address("10.0.1.43")
NODE = IPv4Address("172.18.0.4")
ECHO, WEB = IPv4Network("172.18.0.0/16"), IPv4Network("192.0.2.0/24")
TEN = IPv4Network("10.0.0.0/8")
ROWS = (PolicyKey(POD, ECHO), PolicyKey(POD, WEB))
OF_7, OF_8 = NoGateway(PolicyId(7)), Excluded(PolicyId(8))

WANTED: dict[Key, Value] = {
    NodeKey(NODE): NodeEntry(),
    IpcacheKey(IPv4Network("172.18.0.5/32")): IpcacheEntry(HOST, None),
    CoveredKey(ECHO): CoveredEntry(PolicyId(7)),
    RowsKey(POD): RowSet({ECHO: OF_7, WEB: OF_8}),
    EndpointKey(POD): EndpointEntry(EndpointFlag.POD),
}


async def converge(
    kernel: LinuxKernel, desired: Snapshot, touched: set[Key] | None = None
) -> None:
    observed = await kernel.observe()
    if touched is None and observed.touched is not None:
        touched = set(observed.touched)
    plan = diff(desired, observed.snapshot, touched=touched)

    assert await kernel.apply(plan) == {}


async def audit(kernel: LinuxKernel) -> None:
    """Do a pass in the smallest slices, with a turn for others after each."""
    await kernel.audit(rest=lambda _: asyncio.sleep(0), rows_at_once=1)


def write(key: Key | PolicyKey, value: Value | PolicyEntry) -> None:
    name, raw = encode_key(key)
    with PinnedMap(PIN_DIR / name) as opened:
        opened.put(raw, encode_value(key, value))


def remove(*keys: Key | PolicyKey) -> None:
    for key in keys:
        name, raw = encode_key(key)
        with PinnedMap(PIN_DIR / name) as opened:
            opened.remove_many([raw])


async def rows_in_the_maps() -> Snapshot:
    """Return what an agent finds that comes only now."""
    fresh = await start()
    try:
        return await held_by(fresh)
    finally:
        fresh.close()


MEDDLING: dict[str, Callable[[], None]] = {
    "a row of a pod removed": lambda: remove(PolicyKey(POD, ECHO)),
    "all rows of a pod removed": lambda: remove(
        PolicyKey(POD, ECHO), PolicyKey(POD, WEB)
    ),
    "a row of a pod changed": lambda: write(PolicyKey(POD, ECHO), OF_8),
    "a row added to a pod": lambda: write(PolicyKey(POD, TEN), OF_7),
    "a row added to no pod": lambda: write(PolicyKey(OTHER, ECHO), OF_7),
    "an endpoint removed": lambda: remove(EndpointKey(POD)),
    "an endpoint changed": lambda: write(
        EndpointKey(POD), EndpointEntry(EndpointFlag.HOST)
    ),
    "an endpoint added": lambda: write(
        EndpointKey(OTHER), EndpointEntry(EndpointFlag.POD)
    ),
    "a covered network removed": lambda: remove(CoveredKey(ECHO)),
    "a node removed": lambda: remove(NodeKey(NODE)),
    "a node of nobody added": lambda: write(NodeKey(OTHER), NodeEntry()),
    "an identity changed": lambda: write(
        IpcacheKey(IPv4Network("172.18.0.5/32")), IpcacheEntry(HOST, NODE)
    ),
}


@pytest.mark.parametrize("what", MEDDLING)
def test_what_somebody_else_wrote_is_repaired(what: str) -> None:
    async def body() -> None:
        kernel = await start()
        await converge(kernel, WANTED)
        await kernel.observe()
        MEDDLING[what]()
        await audit(kernel)
        await converge(kernel, WANTED)

        assert await rows_in_the_maps() == WANTED

    isolated(body)


def test_the_kernel_hands_rows_out_in_the_order_of_packed_ones() -> None:
    """Else each audit would decode every row to find that all is well."""

    async def body() -> None:
        nested = ("0.0.0.0/0", "10.0.0.0/8", "10.128.0.0/9", "10.1.2.3/32")
        rows = RowSet({IPv4Network(text): OF_7 for text in nested})
        kernel = await start()
        await converge(kernel, {RowsKey(POD): rows})
        with PinnedMap(PIN_DIR / MapName.EGRESS_V4) as opened:
            keys = b"".join(keys for keys, _ in opened.packed_rows())

        assert keys == pack(rows).keys_of([POD.packed])

    isolated(body)


def test_an_audit_wakes_who_waits_for_a_change() -> None:
    async def body() -> None:
        kernel = await start()
        await converge(kernel, WANTED)
        remove(EndpointKey(POD))
        await audit(kernel)
        async with asyncio.timeout(5):
            await kernel.wait_changed()

        assert EndpointKey(POD) not in await held_by(kernel)

    isolated(body)


def test_an_audit_of_what_is_right_touches_nothing() -> None:
    async def body() -> None:
        kernel = await start()
        await converge(kernel, WANTED)
        await kernel.observe()
        await audit(kernel)

        assert (await kernel.observe()).touched == set()

    isolated(body)


def test_rows_of_others_in_our_maps_are_left_alone() -> None:
    async def body() -> None:
        kernel = await start()
        await converge(kernel, WANTED)
        foreign = encode_key(PolicyKey(POD, TEN))[1]
        with PinnedMap(PIN_DIR / MapName.EGRESS_V4) as opened:
            opened.put(foreign, bytes(16))
        await audit(kernel)
        await converge(kernel, WANTED)
        with PinnedMap(PIN_DIR / MapName.EGRESS_V4) as opened:
            assert opened.find(foreign) == bytes(16)

    isolated(body)


def test_a_lost_row_is_found_amid_churn() -> None:
    """Rows and endpoints of another pod come and go between the slices."""

    async def body() -> None:
        kernel = await start()
        await converge(kernel, WANTED)
        remove(PolicyKey(POD, ECHO))
        busy: Snapshot = {
            **WANTED,
            RowsKey(OTHER): RowSet({ECHO: OF_7, WEB: OF_8}),
            EndpointKey(OTHER): EndpointEntry(EndpointFlag.POD),
        }
        keys: set[Key] = {RowsKey(OTHER), EndpointKey(OTHER)}
        found: set[Key] = set()
        auditing = asyncio.create_task(audit(kernel))
        while not auditing.done():
            for desired in (busy, WANTED):
                observed = await kernel.observe()
                found |= set(observed.touched or ())
                await kernel.apply(diff(desired, observed.snapshot, touched=keys))
                await asyncio.sleep(0)
        found |= set((await kernel.observe()).touched or ())
        await converge(kernel, WANTED, found)

        assert found == {RowsKey(POD)}
        assert await rows_in_the_maps() == WANTED

    isolated(body)
