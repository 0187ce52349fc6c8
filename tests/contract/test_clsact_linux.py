"""The two programs of a hook, as classifiers: what kernels without tcx run."""

import asyncio
import errno
import socket
import subprocess
import threading
from collections.abc import Callable

import pytest

from contract.isolation import skip_without
from contract.kernel_sides import (
    PIN_DIR,
    SETTINGS,
    held_by,
    ip,
    isolated,
    send_until,
    start,
)
from outgate.errors import KernelError
from outgate.kernel import syscall
from outgate.kernel.attachments import Attachments, has_tcx
from outgate.kernel.clsact import observe_filters
from outgate.kernel.datapath import pin_programs, unpin_programs
from outgate.kernel.hooks import AttachWay
from outgate.kernel.links import FOLDER
from outgate.kernel.linux import LinuxKernel
from outgate.kernel.records import MetricDirection, MetricRecord
from outgate.state.entries import Attachment, AttachmentKey, Family, Hook, PolicyId
from outgate.state.plan import Put, Remove, diff
from outgate.state.snapshot import Snapshot

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("tiny_datapath")]

UPLINK = AttachmentKey("v0", Hook.TO_NETDEV)
ARRIVING = AttachmentKey("v0", Hook.FROM_NETDEV)
CURRENT, STALE = Attachment.CURRENT, Attachment.STALE

CHANGES = 3
PROBE = b"\xff" * 6 + bytes(6) + b"\x88\xb5" + bytes(46)
PRIORITY_TAG = b"\x81\x00\x00\x00"


def test_a_hook_has_a_direct_action_filter_for_each_family_in_order() -> None:
    async def body() -> None:
        await attached(UPLINK)

        assert shown("egress") == ["to_netdev_v4", "to_netdev_v6"]
        assert shown("ingress") == []
        assert tcx_programs() == ()

    isolated(body)


def test_filters_outlive_their_agent_without_any_pin() -> None:
    async def body() -> None:
        (await attached(UPLINK)).close()

        assert len(observe_filters()) == 2
        assert not (PIN_DIR / FOLDER).exists()

    isolated(body)


def test_no_packet_passes_without_a_program_while_agents_change() -> None:
    async def body() -> None:
        kernel = await attached(ARRIVING)
        enough = threading.Event()
        sending = asyncio.create_task(
            asyncio.to_thread(send_until, enough, "v1", PROBE)
        )
        try:
            for _ in range(CHANGES):
                kernel.close()
                kernel = await attach(await clsact(), ARRIVING)
        finally:
            enough.set()
        sent = await sending

        assert sent > 0
        assert counted(kernel) == [
            MetricRecord(family, MetricDirection.TO_POD, PolicyId(0), sent, sent * 60)
            for family in Family
        ]

    isolated(body)


def test_a_frame_with_a_priority_tag_meets_the_programs_too() -> None:
    """The stack takes VLAN 0 as no VLAN: a filter for IP alone could be evaded."""

    async def body() -> None:
        kernel = await attached(ARRIVING)
        send(PROBE[:12] + PRIORITY_TAG + PROBE[12:], 3)

        assert [record.packets for record in counted(kernel)] == [3, 3]

    isolated(body)


@pytest.mark.parametrize("lost", ["100", "101"])
def test_one_lost_filter_of_two_makes_a_hook_stale_until_it_is_mended(
    lost: str,
) -> None:
    async def body() -> None:
        kernel = await attached(UPLINK)
        tc("filter", "del", "dev", "v0", "egress", "prio", lost)
        before = await held_by(kernel)
        await attach(kernel, UPLINK)

        assert before == {UPLINK: STALE}
        assert await held_by(kernel) == {UPLINK: CURRENT}
        assert shown("egress") == ["to_netdev_v4", "to_netdev_v6"]

    isolated(body)


def test_detaching_removes_the_qdisc_that_nobody_else_uses() -> None:
    async def body() -> None:
        kernel = await attached(UPLINK, ARRIVING)
        await kernel.apply([Remove(UPLINK)])
        half = [qdiscs(), shown("egress"), shown("ingress")]
        await kernel.apply([Remove(ARRIVING)])

        assert half == ["clsact", [], ["from_netdev_v4", "from_netdev_v6"]]
        assert qdiscs() == ""

    isolated(body)


def test_filters_of_others_stay_with_their_qdisc() -> None:
    async def body() -> None:
        kernel = await started()
        tc("qdisc", "add", "dev", "v0", "clsact")
        other = ("prio", "100", "handle", "7", "bpf", "direct-action")
        programs = PIN_DIR / "programs"
        pin_programs(PIN_DIR, SETTINGS)
        pinned = ("object-pinned", str(programs / "from_overlay_v4"))
        tc("filter", "add", "dev", "v0", "egress", *other, *pinned)
        await attach(kernel, UPLINK)
        both = shown("egress")
        await kernel.apply([Remove(UPLINK)])

        assert sorted(both) == ["from_overlay_v4", "to_netdev_v4", "to_netdev_v6"]
        assert shown("egress") == ["from_overlay_v4"]
        assert qdiscs() == "clsact"

    isolated(body)


def test_a_qdisc_that_sees_nothing_leave_is_refused_with_the_mend() -> None:
    """The kernel would hang the guard at the wire on what comes in."""

    async def body() -> None:
        kernel = await started()
        tc("qdisc", "add", "dev", "v0", "ingress")
        await kernel.observe()
        failures = await kernel.apply([Put(key, CURRENT) for key in (UPLINK, ARRIVING)])

        assert set(failures) == {UPLINK}
        assert "tc qdisc del dev v0 ingress" in str(failures[UPLINK])
        assert await held_by(kernel) == {ARRIVING: CURRENT}
        assert shown("ingress") == ["from_netdev_v4", "from_netdev_v6"]

        tc("qdisc", "del", "dev", "v0", "ingress")
        await attach(kernel, UPLINK, ARRIVING)

    isolated(body)


def test_a_priority_that_another_protocol_has_is_named() -> None:
    async def body() -> None:
        kernel = await started()
        pin_programs(PIN_DIR, SETTINGS)
        tc("qdisc", "add", "dev", "v0", "clsact")
        pinned = ("object-pinned", str(PIN_DIR / "programs" / "from_overlay_v4"))
        other = ("prio", "101", "protocol", "ipv6", "bpf", "direct-action")
        tc("filter", "add", "dev", "v0", "egress", *other, *pinned)
        await kernel.observe()
        failures = await kernel.apply([Put(UPLINK, CURRENT)])

        assert "another's filter have priority 101" in str(failures[UPLINK])

    isolated(body)


@pytest.mark.parametrize(
    "flush",
    ["qdisc del dev v0 clsact", "filter del dev v0 egress"],
    ids=["qdisc", "filters"],
)
def test_the_kernel_tells_when_somebody_takes_filters_away(flush: str) -> None:
    async def body() -> None:
        kernel = await attached(UPLINK)
        running = asyncio.create_task(kernel.run())
        await kernel.wait_changed()
        tc(*flush.split())
        async with asyncio.timeout(5):
            while await held_by(kernel):
                await kernel.wait_changed()
        await attach(kernel, UPLINK)
        running.cancel()

        assert await held_by(kernel) == {UPLINK: CURRENT}

    isolated(body)


def test_an_attachment_follows_a_renamed_interface() -> None:
    async def body() -> None:
        kernel = await attached(UPLINK)
        for change in (("down",), ("name", "uplink.7")):
            ip("link", "set", "v0", *change)
        renamed: Snapshot = {AttachmentKey("uplink.7", UPLINK.hook): CURRENT}
        failures = await kernel.apply(diff(renamed, await held_by(kernel)))

        assert failures == {}
        assert await held_by(kernel) == renamed

    isolated(body)


@pytest.mark.parametrize("to", [AttachWay.TCX, AttachWay.CLSACT])
def test_another_way_takes_over_before_the_former_one_ends(
    to: AttachWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without(AttachWay.TCX)
    former = {AttachWay.TCX: AttachWay.CLSACT, AttachWay.CLSACT: AttachWay.TCX}[to]

    async def body() -> None:
        (await attach(await started(former), UPLINK)).close()
        kernel = await start(way=to)
        before = await held_by(kernel)
        seen = count_at_end(former, monkeypatch)
        await attach(kernel, UPLINK)

        assert before == {UPLINK: STALE}
        assert seen == [4]
        assert await held_by(kernel) == {UPLINK: CURRENT}
        assert len(shown("egress")) + len(tcx_programs()) == 2

    isolated(body)


def test_auto_chooses_classifiers_where_the_kernel_has_no_tcx(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> tuple[int, ...]:
        raise OSError(errno.EINVAL, "bpf")

    async def body() -> None:
        monkeypatch.setattr(syscall, "attached_programs", refuse)
        kernel = await attach(await started(AttachWay.AUTO), UPLINK)

        assert len(observe_filters()) == 2
        assert await held_by(kernel) == {UPLINK: CURRENT}

    isolated(body)


def test_tcx_on_a_kernel_without_it_is_answered_with_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(errno.EINVAL, "bpf")

    async def body() -> None:
        kernel = await started(AttachWay.TCX)
        monkeypatch.setattr(syscall, "link_create", refuse)
        failures = await kernel.apply([Put(UPLINK, CURRENT)])

        assert "set attach to auto" in str(failures[UPLINK])

    isolated(body)


def test_unload_leaves_the_maps_of_an_agent_with_classifiers() -> None:
    async def body() -> None:
        (await attached(UPLINK)).close()
        with pytest.raises(KernelError, match="an agent's classifiers are on v0"):
            unpin_programs(PIN_DIR)

    isolated(body)


async def clsact() -> LinuxKernel:
    return await start(way=AttachWay.CLSACT)


async def started(way: AttachWay = AttachWay.CLSACT) -> LinuxKernel:
    """Start an agent's kernel side in a namespace with a veth."""
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    for link in ("v0", "v1"):
        ip("link", "set", link, "up")
    return await start(way=way)


async def attach(kernel: LinuxKernel, *keys: AttachmentKey) -> LinuxKernel:
    await kernel.observe()

    assert await kernel.apply([Put(key, CURRENT) for key in keys]) == {}
    return kernel


async def attached(*keys: AttachmentKey) -> LinuxKernel:
    return await attach(await started(), *keys)


def count_at_end(way: AttachWay, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many programs there are when the first attachment by *way* ends."""
    seen: list[int] = []

    def noting(end: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            seen.append(len(shown("egress")) + len(tcx_programs()))
            end(*arguments)

        return call

    name = "links" if way is AttachWay.TCX else "clsact"
    door = f"{Attachments.__module__}.{name}.detach"
    module = __import__(f"outgate.kernel.{name}", fromlist=["detach"])
    monkeypatch.setattr(door, noting(module.detach))
    return seen


def counted(kernel: LinuxKernel) -> list[MetricRecord]:
    return sorted(kernel.metrics(), key=lambda record: record.reason)


def send(frame: bytes, count: int) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as peer:
        peer.bind(("v1", 0))
        for _ in range(count):
            peer.send(frame)


def shown(side: str) -> list[str]:
    """Return the names of the programs that ``tc`` shows, in their order."""
    words = tc("filter", "show", "dev", "v0", side).split()
    assert words.count("direct-action") == words.count("jited")
    return [words[i + 1] for i, word in enumerate(words) if word == "name"]


def qdiscs() -> str:
    words = tc("qdisc", "show", "dev", "v0").split()
    return " ".join(word for word in words if word in ("clsact", "ingress"))


def tcx_programs() -> tuple[int, ...]:
    if not has_tcx():
        return ()
    index = socket.if_nametoindex("v0")
    return syscall.attached_programs(index, syscall.AttachType.TCX_EGRESS)


def tc(*arguments: str) -> str:
    done = subprocess.run(("tc", *arguments), check=True, capture_output=True)
    return done.stdout.decode()
