"""
Sockets of the node itself on the shared egress IP: real ones, with frames on the wire.

A port belongs to who has it first, and neither side loses what is sent to it.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

from bpf.harness import MARK_TRANSLATED, REDIRECT, Node, Outcome, needs_root
from bpf.packets import (
    TCP_NAME,
    UDP_NAME,
    Packet,
    outbound,
    source_of,
    source_port_of,
)
from bpf.uplink import PEER_MAC
from bpf.wire import attached, is_tested, tap
from bpf.world import World
from outgate.kernel import syscall
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.kernel.syscall import AttachType
from outgate.state.entries import Family, Hook

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD
REFUSED = (Reason.DROP_HOST_PORT_TAKEN, OUT, 0)
UPLINK_MAC, ROUTER_MAC = "02:00:ac:12:00:05", "02:00:ac:12:00:01"
MACS = {"source_mac": ROUTER_MAC, "destination_mac": UPLINK_MAC}
PORT = 40000
"""The pod's own port, and the socket's."""

KINDS = {TCP_NAME: socket.SOCK_STREAM, UDP_NAME: socket.SOCK_DGRAM}


@pytest.fixture
def node(own_node: Node, world: World) -> Node:
    """A gateway that knows the MAC addresses of its router and of the other node."""
    own_node.ip("link", "set", "uplink", "address", UPLINK_MAC)
    # A link with a new address has forgotten its neighbours.
    for peer, mac in ((world.ROUTER, ROUTER_MAC), (str(world.worker), PEER_MAC)):
        own_node.ip("neighbour", "add", peer, "lladdr", mac, "dev", "uplink")
    return own_node


@pytest.fixture
def wire(node: Node) -> Iterator[socket.socket]:
    """The far end of the node's uplink."""
    opening = tap("wire")
    yield node.inside(opening.__enter__)
    opening.__exit__(None, None, None)


def next_frame(wire: socket.socket) -> bytes:
    """Return the next frame that the node sends."""
    while True:
        frame, source = wire.recvfrom(2048)
        if source[2] != socket.PACKET_OUTGOING and is_tested(frame):
            return frame


def opened(node: Node, world: World, protocol: str, address: str = "") -> socket.socket:
    """Return a socket of the node, bound to PORT at *address*, else everywhere."""
    family = socket.AF_INET if world.family is Family.V4 else socket.AF_INET6
    made = node.inside(lambda: socket.socket(family, KINDS[protocol]))
    made.settimeout(2)
    made.bind((address, PORT))
    return made


def header(frame: bytes) -> ScapyPacket:
    found: ScapyPacket = Ether(frame)[TCP]
    return found


def from_server(
    world: World, flags: str, seq: int, ack: int = 0, payload: bytes = b""
) -> bytes:
    """Return a segment from SERVER to PORT of the node."""
    family = IP if world.family is Family.V4 else IPv6
    ethernet = Ether(src=ROUTER_MAC, dst=UPLINK_MAC)
    ip = family(src=world.SERVER, dst=world.HERE)
    tcp = TCP(sport=80, dport=PORT, flags=flags, seq=seq, ack=ack)
    return bytes(ethernet / ip / tcp / Raw(payload))


def bound(node: Node, world: World, wire: socket.socket) -> socket.socket:
    return opened(node, world, UDP_NAME, world.HERE)


def bound_anywhere(node: Node, world: World, wire: socket.socket) -> socket.socket:
    return opened(node, world, UDP_NAME)


def connected(node: Node, world: World, wire: socket.socket) -> socket.socket:
    made = bound(node, world, wire)
    made.connect((world.SERVER, 80))
    return made


UDP_SOCKETS = [bound, bound_anywhere, connected]


def translated(node: Node, world: World, protocol: str) -> int:
    """Return the port with which a pod's flow leaves, whose own port is PORT."""
    packet = outbound(protocol, world.REMOTE_POD, world.SERVER, PORT)
    sent = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    port = source_port_of(sent.packet)
    expected = packet.but(source=world.HERE, source_port=port, ttl=63).build()
    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == sent
    return port


def arrive(
    node: Node, wire: socket.socket, frame: bytes, call: Callable[[], bytes]
) -> bytes:
    """Send *frame* from the wire past from-netdev, and return what *call* does."""

    def both() -> bytes:
        with attached(node, Hook.FROM_NETDEV):
            wire.send(frame)
            return call()

    return node.inside(both)


@pytest.mark.parametrize("open_socket", UDP_SOCKETS)
def test_a_datagram_sockets_port_is_never_taken(
    node: Node,
    world: World,
    wire: socket.socket,
    open_socket: Callable[[Node, World, socket.socket], socket.socket],
) -> None:
    with open_socket(node, world, wire) as own:
        port = translated(node, world, UDP_NAME)
        datagram = outbound(UDP_NAME, world.HERE, world.SERVER, PORT).reply()
        frame = datagram.but(payload=b"for the node", **MACS).build()
        received = arrive(node, wire, frame, lambda: own.recv(100))

    assert PORT != port
    assert b"for the node" == received


def test_a_connections_port_is_never_taken(
    node: Node, world: World, wire: socket.socket
) -> None:
    with opened(node, world, TCP_NAME, world.HERE) as own:
        own.setblocking(False)
        own.connect_ex((world.SERVER, 80))
        ack = header(next_frame(wire)).seq + 1
        accept = from_server(world, "SA", 1000, ack)
        acked = header(arrive(node, wire, accept, lambda: next_frame(wire)))
        port = translated(node, world, TCP_NAME)
        own.settimeout(2)
        frame = from_server(world, "PA", 1001, ack, b"for the node")
        received = arrive(node, wire, frame, lambda: own.recv(100))

    assert ("A", 1001) == (str(acked.flags), acked.ack)
    assert PORT != port
    assert b"for the node" == received


@pytest.mark.parametrize("is_anywhere", [False, True])
def test_a_listeners_port_is_never_taken(
    node: Node, world: World, wire: socket.socket, is_anywhere: bool
) -> None:
    address = "" if is_anywhere else world.HERE
    with opened(node, world, TCP_NAME, address) as own:
        own.listen()
        port = translated(node, world, TCP_NAME)
        call = from_server(world, "S", 1000)
        answer = arrive(node, wire, call, lambda: next_frame(wire))

    assert PORT != port
    assert ("SA", 1001) == (str(header(answer).flags), header(answer).ack)
    assert (world.HERE, PORT) == (source_of(answer), source_port_of(answer))


def on_uplink(node: Node, program: int) -> int:
    return syscall.link_create(program, node.uplink, AttachType.TCX_EGRESS)


@contextmanager
def keeping_ports(node: Node) -> Iterator[None]:
    """Attach to-netdev to the uplink."""
    programs = [node.program(Hook.TO_NETDEV, family) for family in Family]
    links = node.inside(lambda: [on_uplink(node, program) for program in programs])
    try:
        yield
    finally:
        for link in links:
            os.close(link)


def datagram(world: World, server: str, port: int) -> Packet:
    """Return what the node's socket sends, as it is on the wire."""
    macs = {"source_mac": UPLINK_MAC, "destination_mac": ROUTER_MAC}
    return outbound(UDP_NAME, world.HERE, server, port).but(**macs)


def test_a_socket_does_not_get_the_port_of_a_pods_flow(
    node: Node, world: World, wire: socket.socket
) -> None:
    """Towards the pod's server; another one may have the same port."""
    assert PORT == translated(node, world, UDP_NAME)
    with keeping_ports(node), opened(node, world, UDP_NAME, world.HERE) as own:
        own.sendto(b"payload", (world.SERVER, 80))
        own.sendto(b"payload", (world.OTHER_COVERED_SERVER, 80))
        frame = next_frame(wire)
        reply = outbound(UDP_NAME, world.HERE, world.SERVER, PORT).reply().but(**MACS)
        to_pod = reply.but(destination=world.REMOTE_POD, ttl=63).build()
        sent = arrive(node, wire, reply.build(), lambda: next_frame(wire))
        received = node.untunnelled(sent)

        assert {REFUSED: 1} == {k: v for k, v in node.counts().items() if k == REFUSED}
        assert (world.OTHER_COVERED_SERVER, PORT) == (
            Ether(frame).payload.dst,
            source_port_of(frame),
        )
        assert to_pod == received
        own.settimeout(0.1)
        with pytest.raises(TimeoutError):
            own.recv(100)

    assert PORT == translated(node, world, UDP_NAME)


def test_a_connection_is_not_made_from_the_port_of_a_pods_flow(
    node: Node, world: World, wire: socket.socket
) -> None:
    assert PORT == translated(node, world, TCP_NAME)
    with keeping_ports(node), opened(node, world, TCP_NAME, world.HERE) as own:
        own.setblocking(False)
        own.connect_ex((world.SERVER, 80))
        wire.settimeout(0.2)
        with pytest.raises(TimeoutError):
            next_frame(wire)

    assert node.counts()[REFUSED] >= 1
    assert PORT == translated(node, world, TCP_NAME)
