"""IPv6 beside IPv4 in the real kernel: addresses, the tunnel's outer header, rows."""

import asyncio
import socket
import subprocess
from dataclasses import replace
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest

from contract.kernel_sides import (
    PIN_DIR,
    SETTINGS,
    TUNNEL,
    Side,
    held_by,
    ip,
    isolated,
    start,
)
from outgate.kernel import devices, netlink
from outgate.kernel.linux import LinuxKernel
from outgate.kernel.maps import MapName
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.settings import CONFIG_KEY, GatewayPath, RuntimeConfig
from outgate.state.entries import (
    CLUSTER,
    HOST,
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
    IpcacheEntry,
    IpcacheKey,
    NodeEntry,
    NodeKey,
    NoEgressIP,
    NoGateway,
    PolicyId,
    RowSet,
    RowsKey,
    TunnelKey,
    ViaGateway,
)
from outgate.state.plan import Put, Remove, diff
from outgate.state.snapshot import Snapshot, render

POD, POD_6 = ip_address("10.0.1.42"), ip_address("fd00:10:1::42")
GATEWAY, GATEWAY_6 = ip_address("172.18.0.5"), ip_address("2001:db8::5")
ECHO, ECHO_6 = ip_network("172.18.0.0/16"), ip_network("2001:db8::/64")
POLICY = PolicyId(7)

MIXED: Snapshot = {
    NodeKey(GATEWAY): NodeEntry(),
    NodeKey(GATEWAY_6): NodeEntry(),
    IpcacheKey(ip_network("0.0.0.0/0")): IpcacheEntry(WORLD, None),
    IpcacheKey(ip_network("::/0")): IpcacheEntry(WORLD, None),
    IpcacheKey(ip_network("fd00:10:2::/64")): IpcacheEntry(CLUSTER, GATEWAY),
    IpcacheKey(ip_network("fd00:10:3::/64")): IpcacheEntry(CLUSTER, GATEWAY_6),
    CoveredKey(ECHO): CoveredEntry(POLICY),
    CoveredKey(ECHO_6): CoveredEntry(POLICY),
    RowsKey(POD): RowSet({ECHO: ViaGateway(GATEWAY, GATEWAY, POLICY)}),
    RowsKey(POD_6): RowSet(
        {
            ECHO_6: ViaGateway(GATEWAY_6, GATEWAY, POLICY),
            ip_network("2001:db8::9/128"): Excluded(POLICY),
            ip_network("2001:db8::8/128"): ViaGateway(None, GATEWAY_6, POLICY),
            ip_network("::/0"): NoEgressIP(GATEWAY_6, POLICY),
        }
    ),
    EndpointKey(GATEWAY): EndpointEntry(EndpointFlag.HOST),
    EndpointKey(GATEWAY_6): EndpointEntry(EndpointFlag.HOST, is_egress_ip=True),
    EndpointKey(POD): EndpointEntry(EndpointFlag.POD, is_other_family=True),
    EndpointKey(POD_6): EndpointEntry(EndpointFlag.POD),
}

CONF = Path("/proc/sys/net/ipv6/conf")

linux_only = pytest.mark.usefixtures("tiny_datapath")


def runtime_config() -> RuntimeConfig:
    with PinnedMap(PIN_DIR / MapName.CONFIG) as opened:
        return RuntimeConfig.decode(opened.get(CONFIG_KEY.pack(0)))


def add_veth() -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    for name in ("v0", "v1"):
        ip("link", "set", name, "up")


async def converge(kernel: LinuxKernel, desired: Snapshot) -> None:
    assert await kernel.apply(diff(desired, await held_by(kernel))) == {}


def test_entries_of_both_families_are_observed_as_they_were_put(side: Side) -> None:
    async def body(side: Side) -> None:
        kernel = await side.start()
        failures = await kernel.apply(diff(MIXED, {}))
        seen = render(await held_by(kernel))
        again = diff(MIXED, await held_by(kernel))
        await kernel.apply(diff({}, MIXED))

        assert (failures, again) == ({}, ())
        assert seen == render(MIXED)
        assert await held_by(kernel) == {}

    side.run(body)


@pytest.mark.kernel
@linux_only
def test_a_pod_stays_unknown_while_an_ipv6_row_of_it_is_refused() -> None:
    async def body() -> None:
        kernel = await start()
        with PinnedMap(PIN_DIR / MapName.EGRESS_V6) as opened:
            for i in range(4):
                opened.put(
                    b"\x80\0\0\0" + bytes(15) + bytes([i]) + bytes(16), bytes(40)
                )
        row, pod = RowsKey(POD_6), EndpointKey(POD_6)
        known = EndpointEntry(EndpointFlag.POD)
        four = Put(EndpointKey(POD), known)
        failures = await kernel.apply(
            [Put(row, RowSet({ECHO_6: NoGateway(POLICY)})), four, Put(pod, known)]
        )

        assert set(failures) == {row, pod}
        assert set(await held_by(kernel)) == {four.key}

    isolated(body)


@pytest.mark.kernel
def test_an_ipv6_address_counts_when_something_may_leave_under_it() -> None:
    """
    Not while another may have it, nor when it is for this link only.

    A deprecated one counts: sockets keep it, and a policy names it on purpose.
    """

    async def body() -> None:
        add_veth()
        ip("link", "add", "v2", "type", "veth", "peer", "name", "v3")
        ip("address", "add", "2001:db8::1/64", "dev", "v0", "nodad")
        ip("address", "add", "2001:db8::2/64", "dev", "v2")
        ip(
            "address",
            "add",
            "2001:db8::3/64",
            "dev",
            "v0",
            "nodad",
            "preferred_lft",
            "0",
        )
        ip("address", "add", "172.18.0.5/16", "dev", "v0")
        ip("-6", "route", "add", "default", "via", "fe80::1", "dev", "v0")
        ip("-6", "route", "add", "unreachable", "default", "metric", "4096")
        facts = devices.observe(TUNNEL.name).facts
        found = {link.name: {str(a) for a in link.addresses} for link in facts.links}

        assert found["v0"] == {"172.18.0.5", "2001:db8::1", "2001:db8::3"}
        assert found["v2"] == set()
        assert (facts.default_interface, facts.default_interface_v6) == (None, "v0")

    isolated(body)


@pytest.mark.kernel
@linux_only
def test_the_kernel_tells_when_an_ipv6_address_is_its_own() -> None:
    async def body() -> None:
        add_veth()
        kernel = await start()
        running = asyncio.create_task(kernel.run())
        await kernel.wait_changed()
        ip("address", "add", "2001:db8::1/64", "dev", "v0")
        async with asyncio.timeout(10):
            while "2001:db8::1" not in await addresses_of_v0(kernel):
                await kernel.wait_changed()
        running.cancel()

    isolated(body)


async def addresses_of_v0(kernel: LinuxKernel) -> set[str]:
    await kernel.observe()
    (link,) = (link for link in kernel.facts.links if link.name == "v0")
    return {str(address) for address in link.addresses}


@pytest.mark.kernel
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
def test_the_tunnel_device_receives_outer_headers_of(address: str) -> None:
    """Also on a node that disables IPv6 on new interfaces."""

    async def body() -> None:
        ip("link", "set", "lo", "up")
        (CONF / "default" / "disable_ipv6").write_text("1")
        netlink.create_tunnel(TUNNEL)
        before = received()
        send_vxlan(address, TUNNEL.port)

        assert received() == before + 1

    isolated(body)


def received() -> int:
    path = Path("/proc/thread-self/net/dev")
    (line,) = (row for row in path.read_text().splitlines() if TUNNEL.name in row)
    return int(line.partition(":")[2].split()[1])


def send_vxlan(address: str, port: int) -> None:
    """Send one frame of the ethertype for experiments through the tunnel."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    vxlan = b"\x08\0\0\0" + SETTINGS.tunnel_vni.to_bytes(3, "big") + b"\0"
    frame = b"\xff" * 6 + bytes(6) + b"\x88\xb5" + bytes(46)
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(vxlan + frame, (address, port))


@pytest.mark.kernel
@linux_only
def test_the_tunnel_device_speaks_ipv6_where_others_must_not() -> None:
    async def body() -> None:
        (CONF / "default" / "disable_ipv6").write_text("1")
        kernel = await start()
        await kernel.apply([Put(TunnelKey(), TUNNEL)])

        for name, value in (("disable_ipv6", "0"), ("accept_ra", "0")):
            assert (CONF / TUNNEL.name / name).read_text().strip() == value

    isolated(body)


@pytest.mark.kernel
@linux_only
def test_what_fits_the_tunnel_follows_the_outer_header() -> None:
    async def body() -> None:
        add_veth()
        kernel = await start()
        await kernel.observe()
        four: Snapshot = {
            IpcacheKey(ip_network("10.0.2.0/24")): IpcacheEntry(CLUSTER, GATEWAY),
            AttachmentKey("v0", Hook.TO_NETDEV): Attachment.CURRENT,
        }
        six = IpcacheKey(ip_network("fd00:10:2::/64"))
        seen = []
        for desired in (four, {**four, six: IpcacheEntry(CLUSTER, GATEWAY_6)}, four):
            await converge(kernel, desired)
            seen.append(runtime_config().tunnel_mtu)

        assert seen == [1450, 1430, 1450]

    isolated(body)


@pytest.mark.kernel
@linux_only
def test_ipv6_tunnels_leave_from_an_address_of_the_node_object() -> None:
    """An uplink may have others too: peers believe those of the Node object alone."""

    async def body() -> None:
        add_veth()
        for address in ("2001:db8::7/64", "2001:db8::99/64"):
            ip("address", "add", address, "dev", "v0", "nodad")
        kernel = await start()
        await kernel.observe()
        uplink: Snapshot = {AttachmentKey("v0", Hook.TO_NETDEV): Attachment.CURRENT}
        own = IpcacheKey(ip_network("2001:db8::99/128"))
        elsewhere = IpcacheKey(ip_network("2001:db8::1/128"))
        seen = []
        for desired in (
            uplink,
            {**uplink, own: IpcacheEntry(HOST, None)},
            {**uplink, elsewhere: IpcacheEntry(HOST, None)},
        ):
            await converge(kernel, desired)
            seen.append(runtime_config().tunnel_source)

        assert seen == [None, IPv6Address("2001:db8::99"), None]

    isolated(body)


@pytest.mark.kernel
@linux_only
def test_policy_generation_counts_batches_that_touch_policy_rows() -> None:
    async def body() -> None:
        kernel = await start()
        row, network = RowsKey(POD_6), CoveredKey(ECHO_6)
        four, six = (
            RowSet({ECHO: NoGateway(POLICY)}),
            RowSet({ECHO_6: NoGateway(POLICY)}),
        )
        seen = []
        for operations in (
            [Put(network, CoveredEntry(POLICY))],
            [Put(row, six), Put(RowsKey(POD), four)],
            [Remove(row)],
            [Remove(network)],
        ):
            assert await kernel.apply(operations) == {}
            seen.append(runtime_config().policy_generation)

        assert seen == [0, 1, 2, 2]

    isolated(body)


@pytest.mark.kernel
@linux_only
def test_a_new_agent_begins_a_policy_generation() -> None:
    """The former one may have died between a row and the word that it changed."""

    async def body() -> None:
        kernel = await start()
        before = runtime_config().policy_generation
        running = asyncio.create_task(kernel.run())
        await kernel.wait_changed()
        running.cancel()

        assert runtime_config().policy_generation == before + 1

    isolated(body)


@pytest.mark.kernel
@linux_only
def test_generations_start_anew() -> None:
    async def body() -> None:
        kernel = await start()
        with PinnedMap(PIN_DIR / MapName.CONFIG) as opened:
            last = RuntimeConfig(policy_generation=2**16 - 1)
            opened.put(CONFIG_KEY.pack(0), last.encode())
        await kernel.apply([Put(RowsKey(POD), RowSet({ECHO: NoGateway(POLICY)}))])

        assert runtime_config() == replace(last, policy_generation=0)

    isolated(body)


@pytest.mark.kernel
@linux_only
def test_path_stack_replaces_the_table_that_knew_ipv4_only() -> None:
    async def body() -> None:
        nft("add table ip outgate")
        (await start(GatewayPath.STACK)).close()
        tables = [nft("list tables")]
        nft("add table ip outgate")
        (await start(GatewayPath.DIRECT)).close()
        tables.append(nft("list tables"))

        assert tables == ["table inet outgate\n", ""]

    isolated(body)


def nft(command: str) -> str:
    done = subprocess.run(
        ("nft", *command.split()), check=True, capture_output=True, text=True
    )
    return done.stdout
