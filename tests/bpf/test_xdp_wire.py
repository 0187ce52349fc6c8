"""The XDP gateway on a real interface: frames arrive from the wire, and leave there."""

import socket
from collections.abc import Callable, Iterator
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


def is_udp(frame: bytes) -> bool:
    """Tell a translated packet, in its tunnel or not, from what the stack says."""
    at = {outer.ETHERTYPES[Family.V4]: 23, outer.ETHERTYPES[Family.V6]: 20}
    return is_tested(frame) and frame[at[frame[12:14]]] == socket.IPPROTO_UDP


def sent(
    wire: socket.socket, frame: bytes, is_wanted: Callable[[bytes], bool]
) -> bytes:
    """
    Return what the node sends for *frame*, and *is_wanted*.

    Sent again until it is there, in less than a second of the node: without tc nobody
    sends what is the kernel's turn.
    """
    wire.settimeout(0.02)
    for _ in range(200):
        wire.send(frame)
        try:
            while True:
                seen, source = wire.recvfrom(1 << 16)
                is_sent = source[2] != socket.PACKET_OUTGOING and is_udp(seen)
                if is_sent and is_wanted(seen):
                    return seen
        except TimeoutError:
            continue
    raise TimeoutError("nothing was sent")


def is_in_tunnel(frame: bytes) -> bool:
    """Tell what goes back to the pod's node."""
    return outer.unwrap(frame) is not None


def is_outside(frame: bytes) -> bool:
    """Tell what goes into the world."""
    return not is_in_tunnel(frame)


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


def open_flow(node: Node, world: World, packet: Packet) -> None:
    """Let tc see the first packet, and an answer: now nothing is left to decide."""
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    node.run(Hook.FROM_NETDEV, answer(packet, world).build())


def test_a_flow_goes_out_and_back_by_xdp_alone(
    node: Node, world: World, request_packet: Packet
) -> None:
    there = tunnelled(request_packet, world)
    reply = answer(request_packet, world)
    open_flow(node, world, request_packet)

    def body() -> None:
        with tap("wire") as wire, xdp_on_uplink(node):
            out = sent(wire, there, is_outside)
            back = sent(wire, reply.build(), is_in_tunnel)

        assert out == translated(request_packet, world).build()
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
        out = sent(wire, there, is_outside)
        back = outer.unwrap(sent(wire, reply.build(), is_in_tunnel))
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


def test_a_neighbour_that_moves_is_followed(
    node: Node, world: World, request_packet: Packet
) -> None:
    there = tunnelled(request_packet, world)
    reply = answer(request_packet, world).build()
    open_flow(node, world, request_packet)

    def is_moved(frame: bytes) -> bool:
        return frame[:6] == MOVED

    def body() -> None:
        with tap("wire") as wire, xdp_on_uplink(node):
            out = sent(wire, there, is_outside)
            back = sent(wire, reply, is_in_tunnel)
            assert (out[:6], back[:6]) == (ROUTER, PEER)
            for address in (world.ROUTER, str(world.worker)):
                way = ("lladdr", MOVED_MAC, "dev", "uplink")
                command("ip", "neighbour", "replace", address, *way)
            moved = sent(wire, there, is_moved), sent(wire, reply, is_moved)

        assert moved == (MOVED + out[6:], MOVED + without_id(back, moved[1]))

    node.inside(body)


def without_id(frame: bytes, other: bytes) -> bytes:
    """Return *frame* behind its first MAC, with the number and checksum of *other*."""
    if frame[12:14] != outer.ETHERTYPES[Family.V4]:
        return frame[6:]
    return frame[6:18] + other[18:20] + frame[20:24] + other[24:26] + frame[26:]
