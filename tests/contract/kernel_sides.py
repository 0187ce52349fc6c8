"""The two kernels of the contract, and what the world can do to each."""

import asyncio
import errno
import os
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from contract.isolation import BPF_FS, run_isolated
from outgate.errors import KernelError
from outgate.kernel.collector import COLLECT
from outgate.kernel.fake import FakeKernel
from outgate.kernel.hooks import AttachWay
from outgate.kernel.linux import KernelConfig, LinuxKernel
from outgate.kernel.maps import MapName
from outgate.kernel.objects import program_name
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.settings import DatapathSettings, GatewayPath
from outgate.reconcile import ports
from outgate.state.entries import (
    Address,
    Family,
    Hook,
    InterfaceIndex,
    Key,
    Network,
    PolicyEntry,
    RowSet,
    RowsKey,
    TunnelDevice,
    Value,
)
from outgate.state.facts import Link, NodeFacts
from outgate.state.snapshot import Snapshot

ROOT = Path(__file__).parents[2]
PIN_DIR = BPF_FS / "outgate"

SETTINGS = DatapathSettings(
    tunnel_vni=25959,
    mark_mask=0x70,
    mark_translated=0x20,
    mark_overlay=0x40,
    mark_seen=0x10,
    jiffies_per_second=250,
    port_first=1024,
    port_last=65535,
    gateway_path=GatewayPath.DIRECT,
)

TUNNEL = TunnelDevice("outgate_vx", 4789)

AnyKernel = FakeKernel | LinuxKernel


class Side(Protocol):
    """One kernel, and the hand that changes its world from outside."""

    def run(self, body: Callable[["Side"], Awaitable[None]]) -> None: ...
    async def start(self) -> AnyKernel: ...
    async def restart(self, kernel: AnyKernel) -> AnyKernel: ...
    async def add_link(self, kernel: AnyKernel, name: str) -> None: ...
    async def remove_link(self, kernel: AnyKernel, name: str) -> None: ...
    def leave_no_room_for(self, kernel: AnyKernel, key: RowsKey) -> None: ...


class FakeSide:
    """Changes go through the fake's own doors."""

    def run(self, body: Callable[[Side], Awaitable[None]]) -> None:
        async def call() -> None:
            await body(self)

        asyncio.run(call())

    async def start(self) -> AnyKernel:
        return FakeKernel()

    async def restart(self, kernel: AnyKernel) -> AnyKernel:
        assert isinstance(kernel, FakeKernel)
        kernel.restart()
        return kernel

    async def add_link(self, kernel: AnyKernel, name: str) -> None:
        assert isinstance(kernel, FakeKernel)
        index = InterfaceIndex(len(kernel.facts.links) + 2)
        links = (*kernel.facts.links, Link(name, index))
        kernel.set_facts(replace(kernel.facts, links=links))

    async def remove_link(self, kernel: AnyKernel, name: str) -> None:
        assert isinstance(kernel, FakeKernel)
        links = tuple(link for link in kernel.facts.links if link.name != name)
        kernel.set_facts(NodeFacts(links))

    def leave_no_room_for(self, kernel: AnyKernel, key: RowsKey) -> None:
        assert isinstance(kernel, FakeKernel)
        kernel.refuse(key, KernelError("write map", errno.ENOSPC))


class LinuxSide:
    """A namespace of its own, with programs that pass everything."""

    def __init__(self, way: AttachWay) -> None:
        self._way = way

    def run(self, body: Callable[[Side], Awaitable[None]]) -> None:
        isolated(lambda: body(self))

    async def start(self) -> AnyKernel:
        return await start(way=self._way)

    async def restart(self, kernel: AnyKernel) -> AnyKernel:
        kernel.close()
        return await self.start()

    async def add_link(self, kernel: AnyKernel, name: str) -> None:
        ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")

    async def remove_link(self, kernel: AnyKernel, name: str) -> None:
        ip("link", "del", name)

    def leave_no_room_for(self, kernel: AnyKernel, key: RowsKey) -> None:
        with PinnedMap(PIN_DIR / MapName.EGRESS_V4) as opened:
            for i in range(4):
                source = IPv4Address(i).packed
                opened.put(b"\x20\0\0\0" + source + bytes(4), bytes(16))


def rows(source: Address, entries: Mapping[Network, PolicyEntry]) -> tuple[Key, Value]:
    """Return the entry of a pod with these rows."""
    return RowsKey(source), RowSet(entries)


async def held_by(kernel: ports.Kernel) -> Snapshot:
    """Return what *kernel* holds now, which does not change with it."""
    return dict((await kernel.observe()).snapshot)


def isolated(body: Callable[[], Awaitable[None]]) -> None:
    async def call() -> None:
        await body()

    run_isolated(lambda: asyncio.run(call()))


async def start(
    gateway_path: GatewayPath = GatewayPath.DIRECT,
    way: AttachWay = AttachWay.AUTO,
    settings: DatapathSettings = SETTINGS,
    *,
    is_xdp_used: bool = False,
) -> LinuxKernel:
    settings = replace(settings, gateway_path=gateway_path)
    config = KernelConfig(PIN_DIR, TUNNEL.name, settings, way, is_xdp_used)
    kernel = LinuxKernel(config)
    await kernel.open()
    return kernel


def send_until(enough: threading.Event, interface: str, frame: bytes) -> int:
    """Send *frame* until there are *enough* of it; return how many were sent."""
    count = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((interface, 0))
        while not enough.is_set():
            sender.send(frame)
            count += 1
    return count


def ip(*arguments: str) -> None:
    """Run ``ip`` in the calling thread's namespace."""
    subprocess.run(("ip", *arguments), check=True)


def compile_tiny(folder: Path, defines: tuple[str, ...] = ()) -> Path:
    """Compile the datapath that passes everything, two objects per hook."""
    for hook in (*Hook, COLLECT):
        compile_objects(Path(__file__).parent / "tiny.bpf.c", folder, hook, defines)
    return folder


def compile_objects(
    source: Path, folder: Path, hook: str, defines: tuple[str, ...] = ()
) -> None:
    """Compile *source* as the objects of *hook*."""
    if hook == Hook.FORWARD_GUARD:
        defines = (*defines, "-DIS_NETFILTER")
    if hook == Hook.XDP_NETDEV:
        defines = (*defines, "-DIS_XDP")
    if hook == COLLECT:
        defines = (*defines, "-DIS_COLLECTOR")
    multiarch = f"-I/usr/include/{os.uname().machine}-linux-gnu"
    flags = ("-O2", "-g", "-target", "bpf", multiarch, f"-I{ROOT}/bpf/vendor")
    for family in Family:
        name = program_name(hook, family)
        given = (f"-DHOOK={name}", f"-DOUTGATE_FAMILY={family}", *defines)
        output = ("-c", str(source), "-o", str(folder / f"{name}.bpf.o"))
        subprocess.run(("clang", *flags, *given, *output), check=True)
