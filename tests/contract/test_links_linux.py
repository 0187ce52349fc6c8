"""The two programs of a hook, as links: attached, lost, mended, taken over."""

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from contract.isolation import skip_without
from contract.kernel_sides import PIN_DIR, SETTINGS, held_by, ip, isolated, start
from outgate.kernel import syscall
from outgate.kernel.hooks import AttachWay
from outgate.kernel.links import FOLDER, pin_name
from outgate.kernel.linux import LinuxKernel
from outgate.kernel.netfilter import FIRST_PRIORITY
from outgate.kernel.objects import load_program
from outgate.state.entries import (
    FORWARD_GUARD,
    Attachment,
    AttachmentKey,
    Family,
    Hook,
)
from outgate.state.plan import Put, Remove

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("tiny_datapath")]

UPLINK = AttachmentKey("v0", Hook.TO_NETDEV)
EGRESS = syscall.AttachType.TCX_EGRESS
CURRENT, STALE = Attachment.CURRENT, Attachment.STALE


@pytest.fixture(autouse=True)
def _needs_tcx() -> None:
    skip_without(AttachWay.TCX)


def test_a_hook_runs_the_program_for_ipv4_then_the_one_for_ipv6() -> None:
    async def body() -> None:
        kernel = await with_link()
        await attach(kernel, UPLINK)

        assert attached() == pinned()
        assert len(attached()) == 2

    isolated(body)


@pytest.mark.parametrize("lost", Family)
def test_one_lost_program_of_two_makes_a_hook_stale_until_it_is_mended(
    lost: Family,
) -> None:
    async def body() -> None:
        kernel = await with_link()
        await attach(kernel, UPLINK)
        (PIN_DIR / FOLDER / pin_name(UPLINK, lost)).unlink()
        await until_attached(1)
        before = await held_by(kernel)
        await attach(kernel, UPLINK)

        assert before == {UPLINK: STALE}
        assert await held_by(kernel) == {UPLINK: CURRENT}
        assert attached() == pinned()

    isolated(body)


def test_a_new_agent_keeps_links_with_their_places_among_those_of_others() -> None:
    async def body() -> None:
        kernel = await with_link()
        program = load_program(Hook.TO_NETDEV, Family.V4, PIN_DIR, SETTINGS.encode())
        other = syscall.link_create(program.fd, index(), EGRESS)
        await attach(kernel, UPLINK)
        before = attached()
        kernel.close()
        await attach(await start(), UPLINK)

        assert attached() == (program.number, *pinned())
        assert set(before) & set(attached()) == {program.number}
        os.close(other)

    isolated(body)


def test_detaching_takes_both_programs_and_leaves_no_pin() -> None:
    async def body() -> None:
        kernel = await with_link()
        await attach(kernel, UPLINK)
        await attach(kernel, FORWARD_GUARD)
        await kernel.apply([Remove(UPLINK), Remove(FORWARD_GUARD)])

        assert attached() == ()
        assert list((PIN_DIR / FOLDER).iterdir()) == []

    isolated(body)


@pytest.mark.parametrize("key", [UPLINK, FORWARD_GUARD], ids=["interface", "guard"])
def test_a_link_of_a_former_version_ends_once_both_families_are_attached(
    key: AttachmentKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        kernel = await with_link()
        pin_former(key)
        before = await held_by(kernel)
        seen_at_detach = watch_detach(monkeypatch)
        await attach(kernel, key)

        assert before == {key: STALE}
        assert seen_at_detach == [3]
        assert await held_by(kernel) == {key: CURRENT}
        assert names() == [pin_name(key, family) for family in Family]

    isolated(body)


def test_a_link_of_a_former_version_that_nobody_wants_is_removed() -> None:
    async def body() -> None:
        kernel = await with_link()
        pin_former(UPLINK)
        await kernel.apply([Remove(UPLINK)])

        assert attached() == ()
        assert names() == []

    isolated(body)


async def with_link() -> LinuxKernel:
    """Start an agent's kernel side in a namespace with a veth."""
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    kernel = await start()
    await kernel.observe()
    return kernel


async def attach(kernel: LinuxKernel, key: AttachmentKey) -> None:
    await kernel.observe()

    assert await kernel.apply([Put(key, CURRENT)]) == {}


async def until_attached(count: int) -> None:
    """Wait for the kernel to end links whose last pin went: it does so later."""
    async with asyncio.timeout(10):
        seen = attached()
        while len(seen) != count:
            await asyncio.sleep(0.001)
            seen = attached()


def pin_former(key: AttachmentKey) -> None:
    """Attach what an agent did that knew one IP family."""
    program = load_program(key.hook, Family.V4, PIN_DIR, SETTINGS.encode()).fd
    if key == FORWARD_GUARD:
        link = syscall.link_create_forward(program, FIRST_PRIORITY)
    else:
        link = syscall.link_create(program, index(), EGRESS)
    (PIN_DIR / FOLDER).mkdir(exist_ok=True)
    syscall.obj_pin(link, PIN_DIR / FOLDER / pin_name(key, None))
    os.close(link)
    os.close(program)


def watch_detach(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note, whenever a link is detached, how many are pinned."""
    seen: list[int] = []
    detach = syscall.link_detach

    def noting(link: int) -> None:
        seen.append(len(names()))
        detach(link)

    monkeypatch.setattr(syscall, "link_detach", noting)
    return seen


def index() -> int:
    return socket.if_nametoindex("v0")


def attached() -> tuple[int, ...]:
    """Return the programs on the way out of the veth, in their order."""
    return syscall.attached_programs(index(), EGRESS)


def pinned() -> tuple[int, ...]:
    """Return the programs of the uplink's pins: of IPv4, of IPv6."""
    return tuple(_pinned())


def _pinned() -> Iterator[int]:
    for family in Family:
        link = syscall.obj_get(PIN_DIR / FOLDER / pin_name(UPLINK, family))
        yield syscall.link_state(link).program_id
        os.close(link)


def names() -> list[str]:
    return sorted(path.name for path in (PIN_DIR / FOLDER).iterdir())
