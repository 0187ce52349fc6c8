"""What a node sees of its links, and when it looks again."""

import asyncio

import pytest

from contract.kernel_sides import TUNNEL, ip, isolated, start
from outgate.kernel import devices
from outgate.kernel.linux import LinuxKernel
from outgate.state.facts import Link, NodeFacts

pytestmark = pytest.mark.kernel


def facts() -> NodeFacts:
    return devices.observe(TUNNEL.name).facts


def uplink(seen: NodeFacts) -> Link:
    (link,) = (link for link in seen.links if link.name == "v0")
    return link


def add_uplink() -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ip("link", "set", "v0", "up")
    ip("address", "add", "172.18.0.5/16", "dev", "v0")


def test_a_link_has_every_name_that_users_may_call_it_by() -> None:
    async def body() -> None:
        add_uplink()
        for name in ("enp3s0f0np0", "uplink-to-the-rack"):
            ip("link", "property", "add", "dev", "v0", "altname", name)

        assert uplink(facts()).altnames == ("enp3s0f0np0", "uplink-to-the-rack")

    isolated(body)


def test_addresses_stand_in_the_kernels_order() -> None:
    async def body() -> None:
        add_uplink()
        for address in ("192.0.2.9/24", "172.18.0.1/16"):
            ip("address", "add", address, "dev", "v0")
        found = [str(address) for address in uplink(facts()).addresses]

        assert found == ["172.18.0.5", "192.0.2.9", "172.18.0.1"]

    isolated(body)


def test_of_default_routes_the_one_with_the_lowest_metric_counts() -> None:
    async def body() -> None:
        add_uplink()
        ip("link", "add", "v2", "type", "veth", "peer", "name", "v3")
        ip("link", "set", "v2", "up")
        ip("address", "add", "192.0.2.5/24", "dev", "v2")
        ip("route", "add", "default", "via", "172.18.0.1", "metric", "20")
        before = facts().default_interface
        ip("route", "add", "default", "via", "192.0.2.1", "metric", "10")
        ip("route", "add", "203.0.113.0/24", "via", "172.18.0.1")

        assert (before, facts().default_interface) == ("v0", "v2")

    isolated(body)


def test_a_default_route_over_several_hops_is_that_of_the_first() -> None:
    async def body() -> None:
        add_uplink()
        hops = ("nexthop", "via", "172.18.0.1", "nexthop", "via", "172.18.0.2")
        ip("route", "add", "default", *hops)

        assert facts().default_interface == "v0"

    isolated(body)


def test_a_default_route_of_another_table_does_not_count() -> None:
    async def body() -> None:
        add_uplink()
        ip("route", "add", "default", "via", "172.18.0.1", "table", "100")

        assert facts().default_interface is None

    isolated(body)


@pytest.mark.parametrize(
    "change",
    [
        ("link", "property", "add", "dev", "v0", "altname", "enp3s0"),
        ("address", "add", "192.0.2.9/24", "dev", "v0"),
        ("address", "del", "172.18.0.5/16", "dev", "v0"),
        ("route", "add", "default", "dev", "v0"),
        ("-6", "route", "add", "default", "dev", "v0"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("tiny_datapath")
def test_what_changes_on_the_node_is_seen_at_the_event(change: tuple[str, ...]) -> None:
    async def body() -> None:
        add_uplink()
        kernel = await start()
        running = asyncio.create_task(kernel.run())
        before = await settled(kernel)
        ip(*change)
        async with asyncio.timeout(10):
            while kernel.facts == before:
                await kernel.wait_changed()
                await kernel.observe()
        running.cancel()

        assert kernel.facts == facts()

    isolated(body)


@pytest.mark.usefixtures("tiny_datapath")
def test_nothing_is_looked_at_again_without_an_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    look = devices.observe

    def counted(name: str, xdp: devices.XdpKnown) -> devices.Observed:
        nonlocal looks
        looks += 1
        return look(name, xdp)

    async def body() -> None:
        monkeypatch.setattr(devices, "observe", counted)
        kernel = await start()
        running = asyncio.create_task(kernel.run())
        await settled(kernel)
        before = looks
        for _ in range(3):
            await kernel.observe()
        quiet = looks
        ip("link", "add", "v2", "type", "veth", "peer", "name", "v3")
        await kernel.wait_changed()
        await kernel.observe()
        running.cancel()

        assert (quiet, looks) == (before, before + 1)

    isolated(body)


async def settled(kernel: LinuxKernel) -> NodeFacts:
    """Observe until no event has come for a while."""
    while True:
        await kernel.observe()
        try:
            async with asyncio.timeout(0.2):
                await kernel.wait_changed()
        except TimeoutError:
            return kernel.facts
