"""The guard of the forwarding path, as agents come and go: nothing slips through."""

import asyncio
import json
import os
import socket
import subprocess
import threading

import pytest

from bpf.packets import HOST_MAC, UDP_NAME, outbound
from bpf.uplink import build_uplink
from bpf.world import IPV4, IPV6, POLICY, World, gateway_entries, snapshot_of
from contract.isolation import skip_without_root
from contract.kernel_sides import PIN_DIR, SETTINGS, held_by, ip, isolated, start
from outgate.kernel import syscall
from outgate.kernel.links import FOLDER, pin_name
from outgate.kernel.linux import LinuxKernel
from outgate.kernel.netfilter import PRIORITIES, PROTOCOLS
from outgate.kernel.objects import load_program
from outgate.kernel.reasons import Reason
from outgate.state.entries import FORWARD_GUARD, Attachment, Family
from outgate.state.plan import Put, Remove

pytestmark = pytest.mark.kernel

CHANGES = 2
PLUGIN = f"""
table inet plugin {{
    chain masquerading {{
        type nat hook postrouting priority 100;
        ip saddr {IPV4.LOCAL_PODS} masquerade
        ip6 saddr {IPV6.LOCAL_PODS} masquerade
    }}
    chain sent {{
        type filter hook postrouting priority 200;
        oifname uplink udp dport 80 counter
    }}
}}
"""
"""A plugin's masquerade, and how many packets left the node after it."""

in_each_family = pytest.mark.parametrize("world", [IPV4, IPV6], ids=lambda w: w.name)


@pytest.fixture(autouse=True)
def _needs_root() -> None:
    skip_without_root()


@in_each_family
def test_a_pod_born_while_no_agent_runs_reaches_no_covered_network(
    world: World,
) -> None:
    async def body() -> None:
        make_uplink(world)
        (await guarded(None, world)).close()
        make_pod(world)
        send_covered(world, 3)
        kernel = await start()

        assert dropped(kernel) == 3
        assert sent_by_uplink() == 0

    isolated(body)


@in_each_family
def test_without_the_guard_it_leaves_under_the_nodes_address(world: World) -> None:
    async def body() -> None:
        make_uplink(world)
        kernel = await guarded(None, world)
        await kernel.apply([Remove(FORWARD_GUARD)])
        make_pod(world)
        send_covered(world, 3)

        assert dropped(kernel) == 0
        assert sent_by_uplink() == 3

    isolated(body)


@in_each_family
def test_no_packet_slips_through_while_agents_change(world: World) -> None:
    async def body() -> None:
        make_uplink(world)
        kernel = await guarded(None, world)
        make_pod(world)
        enough = threading.Event()
        sending = asyncio.create_task(asyncio.to_thread(send_until, enough, world))
        try:
            for _ in range(CHANGES):
                kernel = await guarded(kernel, world)
        finally:
            enough.set()

        assert await sending == dropped(kernel) > 0
        assert sent_by_uplink() == 0

    isolated(body)


def test_a_link_that_a_dying_agent_left_unfinished_ends_with_the_next_one() -> None:
    """It died between making its link and giving it the name of the former one."""

    async def body() -> None:
        kernel = await guarded(None)
        folder = PIN_DIR / FOLDER
        names = [pin_name(FORWARD_GUARD, family) for family in Family]
        for name in names:
            (folder / name).rename(folder / f"next_{name}")
        before = await held_by(kernel)
        await guarded(kernel)

        assert FORWARD_GUARD not in before
        assert sorted(path.name for path in folder.iterdir()) == names

    isolated(body)


def test_the_guard_finds_a_priority_beside_programs_of_others() -> None:
    async def body() -> None:
        kernel = await guarded(None)
        settings = SETTINGS.encode()
        program = load_program(FORWARD_GUARD.hook, Family.V6, PIN_DIR, settings).fd
        others = [
            syscall.link_create_forward(program, priority, PROTOCOLS[Family.V6])
            for priority in PRIORITIES[1:]
        ]
        os.close(others.pop(0))
        await guarded(kernel)
        for fd in (*others, program):
            os.close(fd)

    isolated(body)


async def guarded(former: LinuxKernel | None, world: World = IPV4) -> LinuxKernel:
    """Let an agent take the place of *former*, with rows, and with the guard."""
    if former:
        former.close()
    kernel = await start()
    operations = [Put(*entry) for entry in snapshot_of(gateway_entries(world)).items()]
    operations.append(Put(FORWARD_GUARD, Attachment.CURRENT))

    assert await kernel.apply(operations) == {}
    assert (await held_by(kernel))[FORWARD_GUARD] is Attachment.CURRENT
    return kernel


def make_uplink(world: World) -> None:
    """Give the namespace a way out, behind a plugin's masquerade."""
    build_uplink(has_route=True)
    ip("neighbour", "add", world.ROUTER, "lladdr", HOST_MAC, "dev", "uplink")
    subprocess.run(("nft", "-f", "-"), input=PLUGIN, text=True, check=True)


def make_pod(world: World) -> None:
    """Add a pod's veth that no agent has seen."""
    pair = ("veth", "address", HOST_MAC, "type", "veth", "peer", "name", "pod")
    ip("link", "add", *pair)
    prefix = world.LOCAL_PODS.rpartition("/")[2]
    ip("address", "add", f"{world.POD_ROUTER}/{prefix}", "dev", "veth")
    for link in ("veth", "pod"):
        ip("link", "set", link, "up")


def send_covered(world: World, count: int) -> None:
    """Send what a policy covers, from the pod's end of the veth."""
    frame = outbound(UDP_NAME, world.UNKNOWN_POD, world.SERVER).build()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as pod:
        pod.bind(("pod", 0))
        for _ in range(count):
            pod.send(frame)


def send_until(enough: threading.Event, world: World) -> int:
    """Send covered packets until there are *enough*; return how many."""
    count = 0
    while not enough.is_set():
        send_covered(world, 100)
        count += 100
    return count


def dropped(kernel: LinuxKernel) -> int:
    records = kernel.metrics()
    reason = Reason.DROP_UNSEEN_POD
    return sum(r.packets for r in records if (r.reason, r.policy) == (reason, POLICY))


def sent_by_uplink() -> int:
    """Return how many of these packets left the node."""
    show = ("nft", "--json", "list", "chain", "inet", "plugin", "sent")
    done = subprocess.run(show, check=True, capture_output=True)
    rules = (item.get("rule") for item in json.loads(done.stdout)["nftables"])
    parts = [part for rule in rules if rule for part in rule["expr"]]
    return sum(int(part["counter"]["packets"]) for part in parts if "counter" in part)
