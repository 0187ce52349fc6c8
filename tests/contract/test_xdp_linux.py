"""The XDP program on a node's uplinks: attached, adopted, mended, kept off."""

import asyncio
import errno
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from contract.isolation import skip_without_root
from contract.kernel_sides import PIN_DIR, SETTINGS, held_by, ip, isolated, start
from contract.xdp_uplink import (
    CURRENT,
    PIN,
    STALE,
    UPLINK,
    add_link,
    attach,
    devices,
    joined,
    link_of,
    mode_of,
    program_of,
    put_foreign,
    route_generation,
    with_link,
)
from outgate.kernel import netdev, syscall, xdp
from outgate.kernel.layouts import XDP_PROGRAM
from outgate.kernel.links import FOLDER
from outgate.kernel.maps import MapName
from outgate.kernel.objects import load_program
from outgate.kernel.pinned import PinnedMap
from outgate.state.entries import AttachmentKey, Family, Hook
from outgate.state.facts import XdpFeature, XdpProgram
from outgate.state.plan import Put, Remove

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("tiny_datapath")]


@pytest.fixture(autouse=True)
def _needs_driver_facts() -> None:
    skip_without_root()
    if netdev.xdp_features() is None:
        pytest.skip("needs what drivers can do in XDP: Linux 6.3")


def test_xdp_runs_the_program_for_ipv4_natively_and_leads_to_the_one_for_ipv6() -> None:
    async def body() -> None:
        kernel = await with_link()
        await attach(kernel)

        assert await held_by(kernel) == {UPLINK: CURRENT}
        assert mode_of("v0") == "native"
        assert joined() not in (0, program_of("v0"))
        assert len(list((PIN_DIR / FOLDER).iterdir())) == 1

    isolated(body)


def test_a_link_says_what_its_driver_can_and_whose_program_it_has() -> None:
    async def body() -> None:
        kernel = await with_link()
        before = link_of(kernel)
        await attach(kernel)
        await kernel.observe()

        able = XdpFeature.BASIC | XdpFeature.REDIRECT
        assert (before.xdp_features, before.xdp_program) == (able, XdpProgram.NONE)
        assert link_of(kernel).xdp_program is XdpProgram.OURS
        assert link_of(kernel, "br0").xdp_features == XdpFeature(0)

    isolated(body)


def test_a_new_agent_replaces_the_program_in_place() -> None:
    async def body() -> None:
        kernel = await with_link()
        await attach(kernel)
        first, link = program_of("v0"), PIN.stat().st_ino
        kernel.close()
        kernel = await start(is_xdp_used=True)
        before = await held_by(kernel)
        program_between = program_of("v0")
        whose = link_of(kernel).xdp_program
        await attach(kernel)

        assert before == {UPLINK: STALE}
        assert whose is XdpProgram.FORMER
        assert program_between == first
        assert program_of("v0") not in (0, first)
        assert PIN.stat().st_ino == link
        assert await held_by(kernel) == {UPLINK: CURRENT}

    isolated(body)


def test_xdp_sends_out_of_an_interface_only_while_it_has_a_program() -> None:
    async def body() -> None:
        kernel = await with_link(can_send=True)
        none = devices()
        await attach(kernel)
        mtu = {link_of(kernel).index: 1500}
        during = devices()
        await kernel.apply([Remove(UPLINK)])

        assert (none, during, devices()) == ({}, mtu, {})
        assert mode_of("v0") == ""
        assert list((PIN_DIR / FOLDER).iterdir()) == []

    isolated(body)


def test_xdp_does_not_send_out_of_a_veth_whose_peer_would_lose_it() -> None:
    async def body() -> None:
        kernel = await with_link(can_send=False)
        await attach(kernel)

        assert await held_by(kernel) == {UPLINK: CURRENT}
        assert devices() == {}

    isolated(body)


def test_a_changed_mtu_is_told_to_the_programs() -> None:
    async def body() -> None:
        kernel = await with_link(can_send=True)
        await attach(kernel)
        before = route_generation()
        ip("link", "set", "v0", "mtu", "1400")
        await kernel.observe()

        assert devices() == {link_of(kernel).index: 1400}
        assert route_generation() != before

    isolated(body)


def test_xdp_does_not_send_out_of_an_interface_that_is_down() -> None:
    async def body() -> None:
        kernel = await with_link(can_send=True)
        await attach(kernel)
        ip("link", "set", "v0", "down")
        await kernel.observe()

        assert devices() == {}

    isolated(body)


def test_an_interface_that_went_leaves_a_stale_hook_and_no_device() -> None:
    async def body() -> None:
        kernel = await with_link(can_send=True)
        await attach(kernel)
        ip("link", "del", "v0")
        lost = await held_by(kernel)
        without = devices()
        add_link(can_send=True)
        await attach(kernel)

        assert (lost, without) == ({UPLINK: STALE}, {})
        assert await held_by(kernel) == {UPLINK: CURRENT}
        assert devices() == {link_of(kernel).index: 1500}

    isolated(body)


def test_a_link_that_somebody_detached_is_stale_until_it_is_mended() -> None:
    async def body() -> None:
        kernel = await with_link()
        await attach(kernel)
        link = syscall.obj_get(PIN)
        syscall.link_detach(link)
        os.close(link)
        lost = await held_by(kernel)
        await attach(kernel)

        assert lost == {UPLINK: STALE}
        assert await held_by(kernel) == {UPLINK: CURRENT}

    isolated(body)


def test_another_way_to_ipv6_is_stale_until_it_is_mended() -> None:
    async def body() -> None:
        kernel = await with_link()
        await attach(kernel)
        program = load_program(UPLINK.hook, Family.V6, PIN_DIR, SETTINGS.encode())
        with PinnedMap(PIN_DIR / MapName.XDP) as table:
            table.put(bytes(4), XDP_PROGRAM.pack(program.fd))
        os.close(program.fd)
        lost = await held_by(kernel)
        await attach(kernel)

        assert lost == {UPLINK: STALE}
        assert await held_by(kernel) == {UPLINK: CURRENT}

    isolated(body)


def test_a_renamed_interface_keeps_its_program() -> None:
    async def body() -> None:
        kernel = await with_link()
        await attach(kernel)
        ip("link", "set", "v0", "name", "wan0")
        renamed = AttachmentKey("wan0", Hook.XDP_NETDEV)
        lost = await held_by(kernel)
        before = program_of("wan0")
        failures = await kernel.apply([Put(renamed, CURRENT), Remove(UPLINK)])

        assert lost == {UPLINK: STALE}
        assert failures == {}
        assert await held_by(kernel) == {renamed: CURRENT}
        assert program_of("wan0") == before

    isolated(body)


def test_an_interface_renamed_between_two_agents_runs_the_new_program() -> None:
    async def body() -> None:
        kernel = await with_link()
        await attach(kernel)
        kernel.close()
        ip("link", "set", "v0", "name", "wan0")
        kernel = await start(is_xdp_used=True)
        await kernel.observe()
        before = program_of("wan0")
        renamed = AttachmentKey("wan0", Hook.XDP_NETDEV)
        failures = await kernel.apply([Put(renamed, CURRENT), Remove(UPLINK)])

        assert failures == {}
        assert await held_by(kernel) == {renamed: CURRENT}
        assert program_of("wan0") != before

    isolated(body)


def test_xdp_stops_sending_out_of_an_interface_before_its_program_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A driver lets go of what it sends by together with the program.

    Programs look again where they may send when the generation moves.
    """
    seen: list[tuple[Mapping[int, int], bool]] = []
    detach = syscall.link_detach

    async def body() -> None:
        kernel = await with_link(can_send=True)
        await attach(kernel)
        before = route_generation()

        def noting(link: int) -> None:
            seen.append((devices(), route_generation() != before))
            detach(link)

        monkeypatch.setattr(syscall, "link_detach", noting)
        await kernel.apply([Remove(UPLINK)])

        assert seen == [({}, True)]

    isolated(body)


@pytest.mark.parametrize("mode", ["xdp", "xdpgeneric"])
def test_the_xdp_program_of_somebody_else_stays(mode: str) -> None:
    async def body() -> None:
        kernel = await with_link()
        foreign = put_foreign(mode)
        await kernel.observe()
        whose = link_of(kernel).xdp_program
        failures = await kernel.apply([Put(UPLINK, CURRENT)])

        assert whose is XdpProgram.FOREIGN
        assert "an XDP program of somebody else is there" in str(failures[UPLINK])
        assert "gateway-hook" in str(failures[UPLINK])
        assert program_of("v0") == foreign
        assert await held_by(kernel) == {}

    isolated(body)


def test_a_driver_without_xdp_refuses_and_the_mend_is_told() -> None:
    async def body() -> None:
        kernel = await with_link()
        bridge = AttachmentKey("br0", Hook.XDP_NETDEV)
        failures = await kernel.apply([Put(bridge, CURRENT)])

        assert "its driver has no native XDP" in str(failures[bridge])
        assert await held_by(kernel) == {}

    isolated(body)


def test_a_driver_that_refuses_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any change brings a round, and each try may cost a card its queues."""
    tries: list[int] = []
    create = syscall.link_create_xdp

    def counting(program: int, ifindex: int) -> int:
        tries.append(ifindex)
        return create(program, ifindex)

    async def body() -> None:
        kernel = await with_link()
        monkeypatch.setattr(syscall, "link_create_xdp", counting)
        bridge = AttachmentKey("br0", Hook.XDP_NETDEV)
        told = [
            str((await kernel.apply([Put(bridge, CURRENT)]))[bridge]) for _ in "123"
        ]
        counts = [len(tries)]
        monkeypatch.setattr(xdp, "REFUSAL_SECONDS", 0)
        await kernel.apply([Put(bridge, CURRENT)])

        assert len(set(told)) == 1
        assert [*counts, len(tries)] == [1, 2]

    isolated(body)


def test_what_is_refused_wakes_no_round() -> None:
    async def body() -> None:
        kernel = await with_link()
        before = route_generation()
        await kernel.apply([Put(AttachmentKey("br0", Hook.XDP_NETDEV), CURRENT)])
        assert route_generation() == before
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await kernel.wait_changed()
        await attach(kernel)
        async with asyncio.timeout(5):
            await kernel.wait_changed()

    isolated(body)


def test_a_driver_that_refuses_the_new_program_keeps_no_former_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That would go on by the settings of the agent that attached it."""

    def refusing(link: int, program: int) -> None:
        raise OSError(errno.ENOMEM, "no queues")

    async def body() -> None:
        kernel = await with_link(can_send=True)
        await attach(kernel)
        kernel.close()
        kernel = await start(is_xdp_used=True)
        await kernel.observe()
        monkeypatch.setattr(syscall, "link_update", refusing)
        failures = await kernel.apply([Put(UPLINK, CURRENT)])

        assert list(failures) == [UPLINK]
        assert mode_of("v0") == ""
        assert devices() == {}
        assert await held_by(kernel) == {}

    isolated(body)


def test_without_xdp_an_agent_takes_away_what_a_former_one_attached() -> None:
    async def body() -> None:
        kernel = await with_link(can_send=True)
        await attach(kernel)
        kernel.close()
        kernel = await start(is_xdp_used=False)

        assert await held_by(kernel) == {}
        assert mode_of("v0") == ""
        assert devices() == {}
        assert list((PIN_DIR / FOLDER).iterdir()) == []

    isolated(body)


def test_a_refused_program_leaves_nothing_of_a_former_agents(
    tiny_objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former one would go on by maps that the new tc programs may not share."""
    for path in tiny_objects.iterdir():
        if not path.name.startswith("xdp_netdev"):
            (tmp_path / path.name).symlink_to(path)

    async def body() -> None:
        kernel = await with_link()
        await attach(kernel)
        kernel.close()
        monkeypatch.setenv("OUTGATE_BPF_OBJECTS", str(tmp_path))
        kernel = await start(is_xdp_used=True)
        failures = await kernel.apply([Put(UPLINK, CURRENT)])

        assert mode_of("v0") == ""
        assert await held_by(kernel) == {}
        assert "load xdp_netdev_v4" in str(failures[UPLINK])

    isolated(body)
