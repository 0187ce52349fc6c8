"""The XDP gateway on a real interface: frames arrive from the wire, and leave there."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bpf import outer
from bpf.gateway_xdp import packed
from bpf.harness import Node, Setup, needs_root
from bpf.packets import UDP_NAME, Packet, outbound
from bpf.uplink import PEER_MAC, ROUTER_MAC, UPLINK_MAC, command
from bpf.wire import attached, is_tested, tap
from bpf.world import World, gateway_entries
from outgate.kernel import syscall
from outgate.state.entries import Family, Hook

pytestmark = [needs_root, pytest.mark.kernel]

SECOND = 25
"""Jiffies in a second of these nodes, of which the kernel has 250."""

MOVED_MAC = "02:00:ac:12:00:77"
UPLINK, ROUTER, PEER, MOVED = map(packed, (UPLINK_MAC, ROUTER_MAC, PEER_MAC, MOVED_MAC))


@pytest.fixture
def node(world: World) -> Iterator[Node]:
    """A gateway whose uplink can send in XDP."""
    with Node(Setup(has_xdp=True, jiffies_per_second=SECOND)) as node:
        # A veth takes what XDP sends it where it has NAPI.
        node.inside(lambda: command("ethtool", "-K", "wire", "gro", "on"))
        node.put(gateway_entries(world))
        yield node


@pytest.fixture
def request_packet(world: World) -> Packet:
    """What a pod of the other node sends through this gateway."""
    return outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)


@contextmanager
def xdp_on_uplink(node: Node) -> Iterator[None]:
    """Attach XDP to the uplink, in its driver; to be used inside the node."""
    number = syscall.program_id(node.program(Hook.XDP_NETDEV, Family.V4))
    device = ("dev", "uplink")
    command("bpftool", "net", "attach", "xdpdrv", "id", str(number), *device)
    try:
        yield
    finally:
        command("bpftool", "net", "detach", "xdpdrv", *device)


def sent(node: Node, wire: socket.socket, frame: bytes) -> bytes | None:
    """Return what the node sends for *frame*; None: nothing."""
    del node
    wire.settimeout(0.3)
    wire.send(frame)
    while True:
        try:
            seen, source = wire.recvfrom(1 << 16)
        except TimeoutError:
            return None
        if source[2] != socket.PACKET_OUTGOING and is_tested(seen):
            return seen


def tunnelled(packet: Packet, world: World) -> bytes:
    """Return *packet* as the other node tunnels it here."""
    return outer.wrap(packet.build(), world.worker)


def translated(packet: Packet, world: World) -> Packet:
    """Return what leaves for *packet*, on its way to the router."""
    macs = {"source_mac": UPLINK_MAC, "destination_mac": ROUTER_MAC}
    return packet.but(source=world.HERE, ttl=63, **macs)


def answer(packet: Packet, world: World) -> Packet:
    """Return the server's reply to *packet*, as the router sends it here."""
    macs = {"source_mac": ROUTER_MAC, "destination_mac": UPLINK_MAC}
    return packet.but(source=world.HERE).reply().but(**macs)


def test_a_flow_goes_out_and_back_by_xdp_alone(
    node: Node, world: World, request_packet: Packet
) -> None:
    there = tunnelled(request_packet, world)
    reply = answer(request_packet, world)
    node.run(Hook.FROM_OVERLAY, request_packet.build(), tunnel=world.worker)

    def body() -> None:
        with tap("wire") as wire, xdp_on_uplink(node):
            # Without tc nobody sends the packets that are the kernel's.
            sent(node, wire, there), sent(node, wire, reply.build())
            out = sent(node, wire, there)
            back = sent(node, wire, reply.build())

        assert out == translated(request_packet, world).build()
        assert back
        assert back[:12] == PEER + UPLINK
        inner = outer.unwrap(back)
        assert inner
        assert inner.destination == world.worker
        to_pod = reply.but(destination=world.REMOTE_POD, ttl=63)
        assert inner.frame == to_pod.build()

    node.inside(body)


def test_a_flow_goes_on_while_xdp_comes_and_goes(
    node: Node, world: World, request_packet: Packet
) -> None:
    there = tunnelled(request_packet, world)
    reply = answer(request_packet, world)
    to_pod = reply.but(destination=world.REMOTE_POD, ttl=63).build()

    def both_ways(wire: socket.socket) -> list[bool]:
        out = sent(node, wire, there)
        back = outer.unwrap(sent(node, wire, reply.build()) or b"")
        expected = translated(request_packet, world).build()
        return [out == expected, back is not None and back.frame == to_pod]

    def body() -> None:
        seen: list[bool] = []
        with tap("wire") as wire, attached(node, Hook.FROM_NETDEV):
            for _ in range(3):
                seen += both_ways(wire)
                with xdp_on_uplink(node):
                    for _ in range(3):
                        seen += both_ways(wire)

        assert seen == [True] * len(seen)

    node.inside(body)


def test_a_neighbour_that_moves_is_followed_within_a_second(
    node: Node, world: World, request_packet: Packet
) -> None:
    there = tunnelled(request_packet, world)
    reply = answer(request_packet, world).build()
    node.run(Hook.FROM_OVERLAY, request_packet.build(), tunnel=world.worker)

    def macs(wire: socket.socket) -> tuple[bytes, bytes]:
        for _ in range(2):
            out, back = sent(node, wire, there), sent(node, wire, reply)
        assert out
        assert back
        return out[:6], back[:6]

    def body() -> None:
        with tap("wire") as wire, xdp_on_uplink(node):
            before = macs(wire)
            for address in (world.ROUTER, str(world.worker)):
                way = ("lladdr", MOVED_MAC, "dev", "uplink")
                command("ip", "neighbour", "replace", address, *way)
            time.sleep(0.15)
            after = macs(wire)

        assert (before, after) == ((ROUTER, PEER), (MOVED, MOVED))

    node.inside(body)
