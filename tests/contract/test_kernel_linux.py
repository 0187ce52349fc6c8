"""What only the real kernel can show: programs, links, devices, and its refusals."""

import asyncio
import shutil
import socket
import subprocess
import threading
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from contract.isolation import BPF_FS
from contract.kernel_sides import (
    PIN_DIR,
    SETTINGS,
    TUNNEL,
    held_by,
    ip,
    isolated,
    send_until,
    start,
)
from outgate.errors import KernelError
from outgate.kernel import devices, syscall
from outgate.kernel.collector import COLLECT
from outgate.kernel.datapath import (
    PROGRAM_FOLDER,
    load_programs,
    pin_programs,
    unpin_programs,
)
from outgate.kernel.linux import LinuxKernel
from outgate.kernel.maps import MapName
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.records import MetricDirection, MetricRecord
from outgate.kernel.settings import CONFIG_KEY, GatewayPath, RuntimeConfig
from outgate.kernel.syscall import AttachType
from outgate.kernel.testrun import run_program
from outgate.state.entries import (
    Attachment,
    AttachmentKey,
    Family,
    Hook,
    NodeEntry,
    NodeKey,
    PolicyId,
    TunnelKey,
)
from outgate.state.facts import NodeFacts
from outgate.state.plan import Put, Remove, diff
from outgate.state.snapshot import Snapshot

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("tiny_datapath")]

CHANGES = 3
PROBE = b"\xff" * 6 + bytes(6) + b"\x88\xb5" + bytes(46)
TO_POD = MetricDirection.TO_POD
UPLINK = AttachmentKey("v0", Hook.TO_NETDEV)
NODE = NodeKey(IPv4Address("192.0.2.7"))


def runtime_config() -> RuntimeConfig:
    with PinnedMap(PIN_DIR / MapName.CONFIG) as opened:
        return RuntimeConfig.decode(opened.get(CONFIG_KEY.pack(0)))


def test_settings_reach_the_program() -> None:
    async def body() -> None:
        programs = load_programs(PIN_DIR, replace(SETTINGS, tunnel_vni=4711))
        for program in programs[Hook.TO_NETDEV].values():
            outcome = run_program(program.fd, bytes(64))

            assert outcome.verdict == 4711
            assert outcome.packet == bytes(64)

    isolated(body)


def test_a_program_is_replaced_in_place() -> None:
    async def body() -> None:
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        index = socket.if_nametoindex("v0")
        seen = []
        for _ in range(2):
            kernel = await start()
            await kernel.observe()
            await kernel.apply([Put(UPLINK, Attachment.CURRENT)])
            seen.append(syscall.attached_programs(index, AttachType.TCX_EGRESS))
            kernel.close()

        assert [len(programs) for programs in seen] == [2, 2]
        assert not set(seen[0]) & set(seen[1])

    isolated(body)


def test_an_attachment_outlives_its_agent() -> None:
    async def body() -> None:
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        kernel = await start()
        await kernel.observe()
        await kernel.apply([Put(UPLINK, Attachment.CURRENT)])
        kernel.close()
        index = socket.if_nametoindex("v0")

        assert len(syscall.attached_programs(index, AttachType.TCX_EGRESS)) == 2

    isolated(body)


def test_no_packet_passes_without_a_program_while_agents_change() -> None:
    async def body() -> None:
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        ip("link", "set", "v0", "up")
        ip("link", "set", "v1", "up")
        hook = AttachmentKey("v0", Hook.FROM_CONTAINER)
        kernel = await adopt(None, hook)
        enough = threading.Event()
        sending = asyncio.create_task(
            asyncio.to_thread(send_until, enough, "v1", PROBE)
        )
        try:
            for _ in range(CHANGES):
                kernel = await adopt(kernel, hook)
        finally:
            enough.set()
        sent = await sending
        counted = sorted(kernel.metrics(), key=lambda record: record.reason)

        assert sent > 0
        assert counted == [
            MetricRecord(family, TO_POD, PolicyId(0), sent, sent * 60)
            for family in Family
        ]

    isolated(body)


def test_an_attachment_follows_a_renamed_interface_without_a_gap() -> None:
    async def body() -> None:
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        kernel = await start()
        await kernel.observe()
        await kernel.apply([Put(UPLINK, Attachment.CURRENT)])
        ip("link", "set", "v0", "name", "uplink.7")
        renamed: Snapshot = {AttachmentKey("uplink.7", UPLINK.hook): Attachment.CURRENT}
        failures = await kernel.apply(diff(renamed, await held_by(kernel)))

        assert failures == {}
        assert await held_by(kernel) == renamed

    isolated(body)


def test_a_removed_pin_directory_is_made_again() -> None:
    async def body() -> None:
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        kernel = await start()
        shutil.rmtree(PIN_DIR)
        desired: Snapshot = {UPLINK: Attachment.CURRENT}
        failures = await kernel.apply(diff(desired, await held_by(kernel)))

        assert failures == {}
        assert await held_by(kernel) == desired

    isolated(body)


def test_config_follows_the_tunnel_device() -> None:
    async def body() -> None:
        kernel = await start()
        before = runtime_config()
        await kernel.apply([Put(TunnelKey(), TUNNEL)])
        created, index = runtime_config(), socket.if_nametoindex(TUNNEL.name)
        ip("link", "del", TUNNEL.name)
        await kernel.observe()

        assert before.tunnel_ifindex == 0
        assert created.tunnel_ifindex == index
        assert created.tunnel_mac != bytes(6)
        assert runtime_config().tunnel_ifindex == 0

    isolated(body)


def test_config_follows_the_smallest_uplink() -> None:
    async def body() -> None:
        ip("link", "add", "v0", "mtu", "9000", "type", "veth", "peer", "name", "v1")
        ip("link", "add", "v2", "mtu", "1400", "type", "veth", "peer", "name", "v3")
        small = AttachmentKey("v2", Hook.TO_NETDEV)
        kernel = await start()
        await kernel.observe()
        seen = [runtime_config().tunnel_mtu]
        for operation in (
            Put(UPLINK, Attachment.CURRENT),
            Put(small, Attachment.CURRENT),
            Remove(small),
        ):
            await kernel.apply([operation])
            seen.append(runtime_config().tunnel_mtu)
        ip("link", "set", "v0", "mtu", "1500")
        await kernel.observe()

        assert seen == [0, 8950, 1350, 8950]
        assert runtime_config().tunnel_mtu == 1450

    isolated(body)


def test_a_tunnel_device_that_is_otherwise_is_made_anew() -> None:
    async def body() -> None:
        ip("link", "add", TUNNEL.name, "type", "vxlan", "id", "7", "dstport", "4789")
        kernel = await start()
        before = await held_by(kernel)
        await kernel.apply([Put(TunnelKey(), TUNNEL)])

        assert before == {}
        assert await held_by(kernel) == {TunnelKey(): TUNNEL}

    isolated(body)


def test_route_generation_counts_up_when_a_node_goes() -> None:
    """Programs remember whose tunnel packets they believe, not whose they do not."""

    async def body() -> None:
        kernel = await start()
        seen = [runtime_config().route_generation]
        await kernel.observe()
        for change in (Put(NODE, NodeEntry()), Remove(NODE)):
            assert not await kernel.apply([change])
            seen.append(runtime_config().route_generation)

        assert [seen[1] - seen[0], seen[2] > seen[1]] == [0, True]

    isolated(body)


def test_route_generation_counts_up_when_a_route_changes() -> None:
    async def body() -> None:
        ip("link", "set", "lo", "up")
        kernel = await start()
        running = asyncio.create_task(kernel.run())
        await kernel.wait_changed()
        before = runtime_config().route_generation
        ip("route", "add", "192.0.2.0/24", "dev", "lo")
        await asyncio.wait_for(kernel.wait_changed(), timeout=5)
        running.cancel()

        assert runtime_config().route_generation > before

    isolated(body)


def test_facts_name_the_default_interface() -> None:
    async def body() -> None:
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        ip("address", "add", "172.18.0.5/16", "dev", "v0")
        ip("link", "set", "v0", "up")
        ip("route", "add", "default", "via", "172.18.0.1")
        facts: NodeFacts = devices.observe(TUNNEL.name).facts
        found = {link.name: [str(a) for a in link.addresses] for link in facts.links}

        assert facts.default_interface == "v0"
        assert found == {"lo": [], "v0": ["172.18.0.5"], "v1": []}

    isolated(body)


def test_path_stack_keeps_tunnelled_packets_untracked() -> None:
    async def body() -> None:
        (await start(GatewayPath.STACK)).close()
        tables = [nft_tables()]
        (await start(GatewayPath.DIRECT)).close()
        tables.append(nft_tables())

        assert "notrack" in tables[0]
        assert tables[1] == ""

    isolated(body)


def test_load_without_attachment_is_taken_back_whole() -> None:
    async def body() -> None:
        before = sorted(BPF_FS.iterdir())
        pinned = [pin_programs(PIN_DIR, SETTINGS) for _ in range(2)]
        removed = unpin_programs(PIN_DIR)

        assert pinned[0] == pinned[1] == removed
        programs = len((*Hook, COLLECT)) * len(Family)
        assert len(removed) == programs + len(MapName)
        assert sorted(BPF_FS.iterdir()) == before
        assert unpin_programs(PIN_DIR) == ()

    isolated(body)


@pytest.mark.parametrize("again", [False, True], ids=["unload", "load"])
def test_programs_that_a_former_version_pinned_go_too(again: bool) -> None:
    async def body() -> None:
        pin_programs(PIN_DIR, SETTINGS)
        folder = PIN_DIR / PROGRAM_FOLDER
        (folder / "to_netdev_v4").rename(folder / "to_netdev")
        if again:
            pin_programs(PIN_DIR, SETTINGS)
            assert not (folder / "to_netdev").exists()
        unpin_programs(PIN_DIR)

        assert not PIN_DIR.exists()

    isolated(body)


def test_unload_leaves_the_maps_of_a_running_agent() -> None:
    async def body() -> None:
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        kernel = await start()
        await kernel.observe()
        await kernel.apply([Put(UPLINK, Attachment.CURRENT)])
        with pytest.raises(KernelError, match="an agent's links are pinned there"):
            unpin_programs(PIN_DIR)

        assert (PIN_DIR / MapName.EGRESS_V4).exists()

    isolated(body)


async def adopt(former: LinuxKernel | None, key: AttachmentKey) -> LinuxKernel:
    """Let a new agent take the place of *former*, and attach its program."""
    if former:
        former.close()
    kernel = await start()
    await kernel.observe()

    assert await kernel.apply([Put(key, Attachment.CURRENT)]) == {}
    return kernel


def nft_tables() -> str:
    done = subprocess.run(
        ("nft", "list", "ruleset"), check=True, capture_output=True, text=True
    )
    return done.stdout
