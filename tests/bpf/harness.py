"""
Runs the real programs on one packet at a time, in the real kernel (BPF_PROG_TEST_RUN).

A ``Node`` is one node's datapath without wires: its own network and mount namespace,
its own maps (``nodemaps``), an uplink with a default route so that route lookups work.
"""

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from struct import pack_into, unpack_from
from typing import Self

import pytest

from bpf import outer
from bpf.gateway_xdp import GatewayXdp
from bpf.nodemaps import NodeMaps
from bpf.uplink import ROUTER_MAC, UPLINK, build_uplink, command
from bpf.wrapper import tunnel_source, wrapper_object
from outgate.kernel import syscall
from outgate.kernel.datapath import load_programs
from outgate.kernel.layouts import XDP_DEVICE, XDP_DEVICE_KEY
from outgate.kernel.maps import MapName
from outgate.kernel.objects import Pair, load_program
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.runtime import Runtime
from outgate.kernel.settings import (
    CONFIG_KEY,
    DatapathSettings,
    ExistingFlows,
    GatewayPath,
    OtherFamily,
    RuntimeConfig,
    TunnelWay,
)
from outgate.kernel.testrun import run_program
from outgate.kernel.xdp import join_families
from outgate.state.entries import (
    Address,
    Family,
    Hook,
)

PASS, DROP, REDIRECT = -1, 2, 7
"""PASS: the next program shall look at the packet, and at the end the host's stack."""

VNI = 25959
TUNNEL_PORT = 8472
TUNNEL_MTU = 1450
UPLINK_MTU = 1500
TUNNEL_MAC = bytes.fromhex("020000000aa0")
CONTEXT_SIZE = 192
MARK, IFINDEX, CB, GSO_SIZE = 8, 40, 48, 176
"""Offsets in ``struct __sk_buff``."""

JIFFIES_PER_SECOND = 250
MARK_SEEN, MARK_TRANSLATED, MARK_OVERLAY, MARK_MASK = 0x10, 0x20, 0x40, 0x70


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a hook's programs did with a packet."""

    verdict: int
    packet: bytes
    mark: int


@dataclass(frozen=True, slots=True)
class Setup:
    """Settings that tests vary."""

    gateway_path: GatewayPath = GatewayPath.DIRECT
    existing_flows: ExistingFlows = ExistingFlows.KEEP
    other_family: OtherFamily = OtherFamily.PASS
    ports: tuple[int, int] = (1024, 65535)
    has_route: bool = True
    has_sets: bool = True
    """Pods have their rows by sets; else only one by one, as where there is no room."""
    flow_table_size: int | None = None
    jiffies_per_second: int = JIFFIES_PER_SECOND
    tunnel_way: TunnelWay = TunnelWay.AUTO
    has_xdp: bool = False

    @property
    def datapath(self) -> DatapathSettings:
        """Return what every program is loaded with."""
        return DatapathSettings(
            tunnel_vni=VNI,
            mark_mask=MARK_MASK,
            mark_translated=MARK_TRANSLATED,
            mark_overlay=MARK_OVERLAY,
            mark_seen=MARK_SEEN,
            jiffies_per_second=self.jiffies_per_second,
            port_first=self.ports[0],
            port_last=self.ports[1],
            gateway_path=self.gateway_path,
            existing_flows=self.existing_flows,
            other_family=self.other_family,
            tunnel_port=TUNNEL_PORT,
            tunnel_way=self.tunnel_way,
            flow_table_size=self.flow_table_size,
        )


class Node(NodeMaps):
    """Every hook's two programs, and their maps; see the module's docstring."""

    def __init__(self, setup: Setup | None = None) -> None:
        self._setup = setup or Setup()
        super().__init__(self._setup.datapath, has_sets=self._setup.has_sets)
        self._programs: dict[tuple[Hook, Family], int] = {}
        self._wrappers: dict[Family, int] = {}
        self.xdp: GatewayXdp | None = None
        self.uplink = 0
        self.inside(self._build)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.inside(self._tear_down)
        self.leave()

    def _build(self) -> None:
        self.pins.mkdir()
        command("mount", "-t", "bpf", "bpf", str(self.pins))
        build_uplink(self._setup.has_route)
        self.uplink = socket.if_nametoindex("uplink")
        programs = load_programs(self.pins, self._setup.datapath)
        for hook, pair in programs.items():
            for family, program in pair.items():
                self._programs[hook, family] = program.fd
        if self._setup.has_xdp:
            self._build_xdp(programs[Hook.XDP_NETDEV])
        for family in Family:
            self._wrappers[family] = self._load_wrapper(family)
        self._configure()
        self.free_all()

    def _build_xdp(self, pair: Pair) -> None:
        """Let the XDP programs find each other, and neighbours."""
        with PinnedMap(self.pins / MapName.XDP) as programs:
            join_families(programs, pair)
        self.xdp = GatewayXdp(pair[Family.V4].fd)
        for at in UPLINK.values():
            way = ("lladdr", ROUTER_MAC, "dev", "uplink")
            command("ip", "neighbour", "replace", at.router, *way)

    def configure(
        self,
        *,
        tunnel: int = 0,
        policy_generation: int = 0,
        source: IPv6Address | None = None,
    ) -> None:
        """
        Set what programs read anew with each packet; *tunnel* 0 is the uplink.

        A new generation of routes begins each time.
        """
        self.inside(lambda: self._configure(tunnel, policy_generation, source))

    def _configure(
        self,
        tunnel: int = 0,
        policy_generation: int = 0,
        source: IPv6Address | None = None,
    ) -> None:
        key = CONFIG_KEY.pack(0)
        with PinnedMap(self.pins / MapName.CONFIG) as table:
            before = RuntimeConfig.decode(table.get(key))
            config = RuntimeConfig(
                tunnel or self.uplink,
                tunnel_mac=TUNNEL_MAC,
                tunnel_mtu=TUNNEL_MTU,
                policy_generation=policy_generation,
                route_generation=before.route_generation,
                tunnel_source=source,
            )
            table.put(key, config.encode())
            Runtime(table).begin_route_generation()
        with PinnedMap(self.pins / MapName.XDP_DEVICE) as table:
            table.put(
                XDP_DEVICE_KEY.pack(self.uplink), XDP_DEVICE.pack(UPLINK_MTU, True)
            )

    def _load_wrapper(self, family: Family) -> int:
        folder = self.pins / f"v{family}"
        folder.mkdir()
        pin = folder / "tunnel_source"
        command(
            *("bpftool", "prog", "load", str(wrapper_object()), str(pin)),
            *("type", "tc", "pinmaps", str(folder)),
        )
        array = syscall.obj_get(folder / "program_under_test")
        program = self._programs[Hook.FROM_OVERLAY, family]
        syscall.map_update(array, bytes(4), program.to_bytes(4, sys.byteorder))
        os.close(array)
        return syscall.obj_get(pin)

    def _tear_down(self) -> None:
        for fd in (*self._programs.values(), *self._wrappers.values()):
            os.close(fd)
        command("umount", str(self.pins))
        command("ip", "link", "delete", "uplink")

    def reset(self) -> None:
        """Forget every row; interfaces, routes and neighbours stay."""
        self.forget()
        self.configure()

    def ip(self, *arguments: str) -> None:
        """Run the ``ip`` command in the node's namespaces."""
        self.inside(lambda: command("ip", *arguments))

    def restart(self, hook: Hook, family: Family) -> None:
        """Replace a program by a fresh one over the same maps, as a new agent does."""
        self.inside(lambda: self._restart(hook, family))

    def _restart(self, hook: Hook, family: Family) -> None:
        os.close(self._programs[hook, family])
        fresh = self._load(hook, family)
        self._programs[hook, family] = fresh
        if hook is Hook.FROM_OVERLAY:
            array = syscall.obj_get(self.pins / f"v{family}" / "program_under_test")
            syscall.map_update(array, bytes(4), fresh.to_bytes(4, sys.byteorder))
            os.close(array)

    def _load(self, hook: Hook, family: Family) -> int:
        settings = self._setup.datapath
        raw, sizes = settings.encode(), settings.sizes
        return load_program(hook, family, self.pins, raw, sizes).fd

    def program(self, hook: Hook, family: Family, *, is_tunnelled: bool = False) -> int:
        """Return the file descriptor to run for *hook*, for tests that run many."""
        return self._wrappers[family] if is_tunnelled else self._programs[hook, family]

    def run(
        self,
        hook: Hook,
        packet: bytes,
        *,
        mark: int = 0,
        tunnel: Address | None = None,
        vni: int = VNI,
        gso_size: int = 0,
        ifindex: int = 0,
    ) -> Outcome:
        """
        Run *hook* on *packet*; *tunnel* is the node that tunnelled it here.
        *ifindex* is the interface, 0 the uplink.

        As on an interface, the next family's program sees what the first one passed.
        With *gso_size* it is a super-packet whose segments carry that many bytes.
        """
        context = bytearray(CONTEXT_SIZE)
        pack_into("=I", context, IFINDEX, ifindex or self.uplink)
        pack_into("=I", context, GSO_SIZE, gso_size)
        if tunnel:
            context[CB : CB + 20] = tunnel_source(tunnel, vni)
        before = Outcome(PASS, packet, mark)
        if tunnel and self._setup.tunnel_way is TunnelWay.AUTO:
            # From the wire; from-netdev takes it, or leaves it to the tunnel device.
            arrived = Outcome(PASS, outer.wrap(packet, tunnel, vni), mark)
            outcome = self._arrive(arrived, context, is_plain=not gso_size)
            if outcome != arrived:
                return self._of_device(outcome, mark)
        if hook is Hook.FROM_NETDEV:
            is_plain = not gso_size and ifindex in (0, self.uplink)
            outcome = self._arrive(before, context, is_plain=is_plain)
            return self._of_device(outcome, mark)
        is_tunnelled = tunnel is not None
        outcome = self._pass(hook, before, context, is_tunnelled=is_tunnelled)
        return self._of_device(outcome, mark)

    def _arrive(
        self, arrived: Outcome, context: bytearray, *, is_plain: bool
    ) -> Outcome:
        """Show a frame from the wire to XDP, and to tc if that passed it."""
        xdp = self.xdp
        if xdp and is_plain:
            sent = self.inside(lambda: xdp.run(arrived.packet))
            if sent is not None:
                mark = arrived.mark & ~MARK_MASK | MARK_TRANSLATED
                return Outcome(REDIRECT, sent, mark)
        return self._pass(Hook.FROM_NETDEV, arrived, context)

    def _of_device(self, outcome: Outcome, mark: int) -> Outcome:
        """Show what a program tunnelled by itself as if the device were to do it."""
        if outcome.verdict != REDIRECT:
            return outcome
        frame = self.untunnelled(outcome.packet)
        if frame == outcome.packet:
            return outcome
        assert MARK_TRANSLATED == outcome.mark & MARK_MASK
        return Outcome(REDIRECT, frame, mark)

    def untunnelled(self, frame: bytes) -> bytes:
        """Return what is in the tunnel, where a program put it there by itself."""
        is_auto = self._setup.tunnel_way is TunnelWay.AUTO
        inner = outer.unwrap(frame) if is_auto else None
        return inner.frame if inner else frame

    def _pass(
        self,
        hook: Hook,
        outcome: Outcome,
        context: bytearray,
        *,
        is_tunnelled: bool = False,
    ) -> Outcome:
        """Show a packet to one family's program, and the other's if that passed it."""
        for family in Family:
            if outcome.verdict == PASS:
                program = self.program(hook, family, is_tunnelled=is_tunnelled)
                outcome = self._run(program, outcome, context)
        return outcome

    def raw(self, hook: Hook, packet: bytes, *, gso_size: int = 0) -> bytes:
        """Return what *hook* makes of *packet*, in its tunnel if it is in one."""
        context = bytearray(CONTEXT_SIZE)
        pack_into("=I", context, IFINDEX, self.uplink)
        pack_into("=I", context, GSO_SIZE, gso_size)
        return self._pass(hook, Outcome(PASS, packet, 0), context).packet

    def _run(self, program: int, before: Outcome, context: bytearray) -> Outcome:
        pack_into("=I", context, MARK, before.mark)
        after = self.inside(lambda: run_program(program, before.packet, bytes(context)))
        (mark,) = unpack_from("=I", after.context, MARK)
        return Outcome(after.verdict, after.packet, mark)


MakeNode = Callable[[Setup], Node]
"""What makes, or finds, a node with settings of the caller's choice."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root")
