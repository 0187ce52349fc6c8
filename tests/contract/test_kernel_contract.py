"""One suite, two kernels: what ``reconcile.ports.Kernel`` promises, on both."""

import asyncio
import errno
from ipaddress import IPv4Address, IPv4Network

from contract.kernel_sides import Side, held_by
from outgate.reconcile import ports
from outgate.state.entries import (
    FORWARD_GUARD,
    WORLD,
    Attachment,
    AttachmentKey,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
    Hook,
    Identity,
    IpcacheEntry,
    IpcacheKey,
    NodeEntry,
    NodeKey,
    NoEgressIP,
    NoGateway,
    PolicyId,
    RowSet,
    RowsKey,
    TunnelDevice,
    TunnelKey,
    ViaGateway,
)
from outgate.state.plan import Put, Remove, diff
from outgate.state.snapshot import Snapshot, render

POD = IPv4Address("10.0.1.42")
GATEWAY = IPv4Address("172.18.0.5")
ECHO = IPv4Network("172.18.0.0/16")
POLICY = PolicyId(7)

FULL: Snapshot = {
    TunnelKey(): TunnelDevice("outgate_vx", 4789),
    NodeKey(GATEWAY): NodeEntry(),
    IpcacheKey(IPv4Network("0.0.0.0/0")): IpcacheEntry(WORLD, None),
    IpcacheKey(IPv4Network("10.0.2.0/24")): IpcacheEntry(Identity(3), GATEWAY),
    CoveredKey(ECHO): CoveredEntry(POLICY),
    RowsKey(POD): RowSet(
        {
            ECHO: ViaGateway(GATEWAY, GATEWAY, POLICY),
            IPv4Network("172.18.0.9/32"): Excluded(POLICY),
            IPv4Network("192.0.2.0/24"): NoGateway(POLICY),
            IPv4Network("0.0.0.0/0"): NoEgressIP(GATEWAY, POLICY),
        }
    ),
    EndpointKey(GATEWAY): EndpointEntry(EndpointFlag.HOST, is_egress_ip=True),
    EndpointKey(POD): EndpointEntry(EndpointFlag.POD),
    AttachmentKey("veth.7", Hook.FROM_CONTAINER): Attachment.CURRENT,
    AttachmentKey("veth.7", Hook.TO_CONTAINER): Attachment.CURRENT,
}
ATTACHED = AttachmentKey("v0", Hook.TO_NETDEV)


async def converge(kernel: ports.Kernel, desired: Snapshot) -> None:
    """Bring *kernel* to *desired*, and expect no failure."""
    failures = await kernel.apply(diff(desired, await held_by(kernel)))

    assert failures == {}


def test_a_new_kernel_holds_nothing(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()

        assert await held_by(kernel) == {}

    side.run(body)


def test_observe_returns_each_kind_of_entry_as_it_was_put(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        await side.add_link(kernel, "veth.7")
        await converge(kernel, FULL)

        assert render(FULL) == render(await held_by(kernel))

    side.run(body)


def test_a_second_plan_after_apply_is_empty(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        await side.add_link(kernel, "veth.7")
        await converge(kernel, FULL)

        assert diff(FULL, await held_by(kernel)) == ()

    side.run(body)


def test_remove_takes_everything_back(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        await side.add_link(kernel, "veth.7")
        await converge(kernel, FULL)
        await converge(kernel, {})

        assert await held_by(kernel) == {}

    side.run(body)


def test_remove_of_what_is_not_there_succeeds(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        failures = await kernel.apply([Remove(key) for key in FULL])

        assert failures == {}

    side.run(body)


def test_put_overwrites(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        key = RowsKey(POD)
        await converge(kernel, {key: RowSet({ECHO: ViaGateway(None, GATEWAY, POLICY)})})
        after: Snapshot = {key: RowSet({ECHO: NoGateway(POLICY)})}
        await converge(kernel, after)

        assert await held_by(kernel) == after
        assert await held_by(await side.restart(kernel)) == after

    side.run(body)


def test_a_failed_operation_does_not_stop_the_others(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        await side.add_link(kernel, "v0")
        await kernel.observe()
        lost = AttachmentKey("gone", Hook.TO_NETDEV)
        operations = [
            Put(NodeKey(GATEWAY), NodeEntry()),
            Put(lost, Attachment.CURRENT),
            Put(ATTACHED, Attachment.CURRENT),
        ]
        failures = await kernel.apply(operations)

        assert {key: error.errno for key, error in failures.items()} == {
            lost: errno.ENODEV
        }
        assert set(await held_by(kernel)) == {NodeKey(GATEWAY), ATTACHED}

    side.run(body)


def test_an_attachment_whose_link_went_is_not_current(side: Side) -> None:
    """A tcx link's pin outlives its interface, a classifier does not."""

    async def body(side: Side) -> None:
        kernel = await side.start()
        await side.add_link(kernel, "v0")
        await converge(kernel, {ATTACHED: Attachment.CURRENT})
        await side.remove_link(kernel, "v0")

        assert (await held_by(kernel)).get(ATTACHED) in (None, Attachment.STALE)

    side.run(body)


def test_an_attachment_follows_a_link_that_comes_back(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        await side.add_link(kernel, "v0")
        await converge(kernel, {ATTACHED: Attachment.CURRENT})
        await side.remove_link(kernel, "v0")
        await side.add_link(kernel, "v0")
        await converge(kernel, {ATTACHED: Attachment.CURRENT})

        assert await held_by(kernel) == {ATTACHED: Attachment.CURRENT}

    side.run(body)


def test_a_new_agent_finds_the_entries_of_the_former_one(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        await converge(kernel, {NodeKey(GATEWAY): NodeEntry()})
        kernel = await side.restart(kernel)

        assert await held_by(kernel) == {NodeKey(GATEWAY): NodeEntry()}

    side.run(body)


def test_a_new_agent_replaces_the_program_of_a_former_link(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        await side.add_link(kernel, "v0")
        await converge(kernel, {ATTACHED: Attachment.CURRENT})
        kernel = await side.restart(kernel)
        before = await held_by(kernel)
        await converge(kernel, {ATTACHED: Attachment.CURRENT})

        assert before == {ATTACHED: Attachment.STALE}
        assert await held_by(kernel) == {ATTACHED: Attachment.CURRENT}

    side.run(body)


def test_the_guard_needs_no_interface(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        await converge(kernel, {FORWARD_GUARD: Attachment.CURRENT})

        assert await held_by(kernel) == {FORWARD_GUARD: Attachment.CURRENT}

        await converge(kernel, {})

        assert await held_by(kernel) == {}

    side.run(body)


def test_a_new_agent_replaces_the_guard_of_a_former_one(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        seen = []
        for _ in range(3):
            await converge(kernel, {FORWARD_GUARD: Attachment.CURRENT})
            seen.append(await held_by(kernel))
            kernel = await side.restart(kernel)
            seen.append(await held_by(kernel))

        assert (
            seen
            == [
                {FORWARD_GUARD: Attachment.CURRENT},
                {FORWARD_GUARD: Attachment.STALE},
            ]
            * 3
        )

    side.run(body)


def test_a_pod_stays_unknown_while_a_row_of_it_is_refused(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        key = RowsKey(POD)
        side.leave_no_room_for(kernel, key)
        other = EndpointKey(GATEWAY)
        operations = [
            Put(key, RowSet({ECHO: NoGateway(POLICY)})),
            Put(EndpointKey(POD), EndpointEntry(EndpointFlag.POD)),
            Put(other, EndpointEntry(EndpointFlag.HOST)),
        ]
        failures = await kernel.apply(operations)

        assert set(failures) == {key, EndpointKey(POD)}
        assert other in await held_by(kernel)
        assert EndpointKey(POD) not in await held_by(kernel)

    side.run(body)


def test_a_known_pod_becomes_unknown_when_a_new_row_is_refused(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        await converge(kernel, {EndpointKey(POD): EndpointEntry(EndpointFlag.POD)})
        key = RowsKey(POD)
        side.leave_no_room_for(kernel, key)
        failures = await kernel.apply([Put(key, RowSet({ECHO: NoGateway(POLICY)}))])

        assert set(failures) == {key}
        assert EndpointKey(POD) not in await held_by(kernel)

    side.run(body)


def test_wait_changed_returns_when_a_link_comes(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        running = asyncio.create_task(kernel.run())
        waiting = asyncio.create_task(kernel.wait_changed())
        await asyncio.sleep(0.05)
        await side.add_link(kernel, "v0")
        await asyncio.wait_for(waiting, timeout=5)
        running.cancel()

    side.run(body)
