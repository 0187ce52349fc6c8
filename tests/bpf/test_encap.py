"""
Programs write outer headers by themselves, or leave packets to the tunnel device.

That what becomes of them is the same, the other tests here say: they run both ways,
and hold every outer header to what the kernel's device writes (:mod:`bpf.outer`).
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bpf import outer
from bpf.harness import TUNNEL_MTU, Node, Setup, needs_root
from bpf.packets import PROTOCOLS, SCTP_NAME, TCP_NAME, UDP_NAME, outbound
from bpf.tunnel import through, tunnel_node
from bpf.world import IPV4, WORLDS, World, gateway_entries
from outgate.kernel.settings import TunnelWay
from outgate.state.entries import Family, Hook

pytestmark = [needs_root, pytest.mark.kernel]

ODD = {
    Family.V4: ("super-packet", "too large"),
    Family.V6: ("super-packet", "padding"),
}
"""IPv4's padding goes along; of IPv6 that is too large the sender is told."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pods_packet_never_reaches_the_device(
    node: Node, world: World, tunnel_way: TunnelWay, protocol: str
) -> None:
    frame = outbound(protocol, world.TUNNELLED_POD, world.SERVER).build()
    sent = outer.unwrap(node.raw(Hook.FROM_CONTAINER, frame))

    if tunnel_way is TunnelWay.DEVICE or (
        world.outer is Family.V6 and protocol == SCTP_NAME
    ):
        assert sent is None
    else:
        assert sent
        assert (sent.frame, sent.destination) == (frame, world.worker)


@pytest.mark.parametrize("protocol", [TCP_NAME, UDP_NAME])
def test_a_reply_never_reaches_the_device(
    node: Node, world: World, tunnel_way: TunnelWay, protocol: str
) -> None:
    request = outbound(protocol, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, request.build(), tunnel=world.worker)
    reply = request.but(source=world.HERE).reply()
    sent = outer.unwrap(node.raw(Hook.FROM_NETDEV, reply.build()))

    if tunnel_way is TunnelWay.DEVICE:
        assert sent is None
    else:
        expected = reply.but(destination=world.REMOTE_POD, ttl=63).build()
        assert sent
        assert (sent.frame, sent.destination) == (expected, world.worker)


@pytest.mark.parametrize(
    ("world", "what"),
    [(world, what) for world in WORLDS for what in ODD[world.family]],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_an_odd_packet_is_left_to_the_device(
    node: Node, world: World, what: str
) -> None:
    packet = outbound(UDP_NAME, world.TUNNELLED_POD, world.SERVER)
    gso = 0
    if what == "too large":
        packet = packet.but(payload=bytes(TUNNEL_MTU))
    frame = packet.build()
    if what == "padding":
        frame += bytes(3)
    if what == "super-packet":
        gso = 10

    assert node.raw(Hook.FROM_CONTAINER, frame, gso_size=gso) == frame


@pytest.mark.parametrize("world", [IPV4], ids=lambda world: world.name)
@pytest.mark.parametrize("tunnel_way", [TunnelWay.AUTO])
def test_what_a_link_padded_goes_along(node: Node, world: World) -> None:
    frame = outbound(UDP_NAME, world.TUNNELLED_POD, world.SERVER).build() + bytes(3)
    sent = outer.unwrap(node.raw(Hook.FROM_CONTAINER, frame))

    assert sent
    assert sent.frame == frame


def fixed_fields(frame: bytes, family: Family) -> bytes:
    """
    Blank IPv4's id, which is free, and the checksums.

    IPv4's follows the id; that of UDP over IPv6 the device leaves to the next one.
    """
    if family is Family.V6:
        return frame[:60] + bytes(2) + frame[62:]
    return frame[:18] + bytes(2) + frame[20:24] + bytes(2) + frame[26:]


@pytest.fixture(scope="module")
def wired_nodes() -> Iterator[dict[TunnelWay, Node]]:
    """A node of each way, with a real tunnel device."""
    with ExitStack() as stack:
        yield {
            way: stack.enter_context(tunnel_node(Setup(tunnel_way=way)))
            for way in TunnelWay
        }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("congestion", range(4))
def test_programs_write_what_the_device_writes(
    wired_nodes: dict[TunnelWay, Node], world: World, protocol: str, congestion: int
) -> None:
    """The source port too: packets of one flow keep their order by either way."""
    packet = outbound(protocol, world.TUNNELLED_POD, world.SERVER)
    frame = marked(packet.build(), congestion)
    seen = set()
    for node in wired_nodes.values():
        node.reset()
        node.put(gateway_entries(world))
        sent = through(node, Hook.FROM_CONTAINER, frame, "uplink")
        seen.add(fixed_fields(sent, world.outer))

    assert 1 == len(seen)


def marked(frame: bytes, bits: int) -> bytes:
    """Return *frame* with the two bits that routers mark when they are congested."""
    if frame[12:14] == b"\x08\x00":
        changed = frame[:15] + bytes([bits]) + frame[16:24] + b"\0\0" + frame[26:]
        check = (outer.words(changed[14:34]) ^ 0xFFFF).to_bytes(2, "big")
        return changed[:24] + check + changed[26:]
    return frame[:15] + bytes([bits << 4]) + frame[16:]
