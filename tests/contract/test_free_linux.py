"""An agent tells programs who is free, and takes it back before rows are written."""

from ipaddress import ip_address, ip_network

import pytest

from contract.kernel_sides import PIN_DIR, isolated, start
from outgate.errors import KernelError
from outgate.kernel.free import WORD_BITS, bit_of
from outgate.kernel.layouts import FREE_KEY, FREE_VALUE, TUPLE
from outgate.kernel.linux import LinuxKernel
from outgate.kernel.maps import EGRESS, FLOWS, MapName
from outgate.kernel.pinned import PinnedMap
from outgate.state.entries import (
    Address,
    Excluded,
    Family,
    PolicyId,
    RowSet,
    RowsKey,
    family_of,
)
from outgate.state.plan import Put, Remove

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("tiny_datapath")]

POD, OTHER_POD, THIRD_POD = (ip_address(f"10.0.1.{i}") for i in (42, 43, 44))
POD_6 = ip_address("fd00::42")
ROWS = {
    Family.V4: RowSet({ip_network("203.0.113.0/24"): Excluded(PolicyId(7))}),
    Family.V6: RowSet({ip_network("2001:db8::/32"): Excluded(PolicyId(7))}),
}


def is_free(address: Address) -> bool:
    """Return whether programs need not look for *address*."""
    number, bit = divmod(bit_of(address.packed), WORD_BITS)
    with PinnedMap(PIN_DIR / MapName.FREE) as table:
        (word,) = FREE_VALUE.unpack(table.get(FREE_KEY.pack(number)))
    return bool(word >> bit & 1)


def open_flow(pod: Address) -> None:
    """Do what programs do for the first packet of a flow."""
    family = family_of(pod)
    key = TUPLE[family].pack(pod.packed, pod.packed, b"\0\1", b"\0\2", 6, 0)
    with PinnedMap(PIN_DIR / FLOWS[family]) as table:
        table.put(key, bytes(table.shape.value_size))


async def adopt(former: LinuxKernel | None = None) -> LinuxKernel:
    """Start an agent and let it look; *former* stops before."""
    if former is not None:
        former.close()
    kernel = await start()
    await kernel.observe()
    return kernel


def test_nobody_is_free_before_an_agent_has_looked() -> None:
    async def body() -> None:
        await start()

        assert not is_free(POD)

    isolated(body)


@pytest.mark.parametrize("pod", [POD, POD_6])
def test_a_pod_is_free_no_more_when_its_first_row_is_written(
    pod: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        kernel = await adopt()
        before, seen = is_free(pod), list[bool]()
        put = PinnedMap.put_packed

        def note(
            table: PinnedMap, keys: bytes, values: bytes
        ) -> dict[int, KernelError]:
            if table.name == EGRESS[family_of(pod)] and keys:
                seen.append(is_free(pod))
            return put(table, keys, values)

        monkeypatch.setattr(PinnedMap, "put_packed", note)
        operations = [Put(RowsKey(pod), ROWS[family_of(pod)])]

        assert not await kernel.apply(operations)
        assert (before, seen) == (True, [False])
        assert is_free(OTHER_POD)

    isolated(body)


def test_flows_that_outlive_their_rows_are_found_after_the_next_agent() -> None:
    async def body() -> None:
        kernel = await adopt()
        await kernel.apply([Put(RowsKey(POD), ROWS[Family.V4])])
        await kernel.apply([Remove(RowsKey(POD))])
        await adopt(kernel)

        assert not is_free(POD)
        assert is_free(OTHER_POD)

    isolated(body)


def test_rows_and_flows_of_a_version_without_the_table_are_found() -> None:
    async def body() -> None:
        kernel = await adopt()
        await kernel.apply([Put(RowsKey(POD), ROWS[Family.V4])])
        open_flow(OTHER_POD)
        open_flow(POD_6)
        kernel.close()
        (PIN_DIR / MapName.FREE).unlink()
        await adopt()
        pods = POD, OTHER_POD, POD_6, THIRD_POD

        assert [is_free(pod) for pod in pods] == [False, False, False, True]
        assert {family_of(pod) for pod in pods} == set(Family)

    isolated(body)
