"""
From-netdev takes packets out of the tunnel by itself, or leaves them to the device.

That what becomes of them is the same, the other tests here say: they run both ways.
"""

import os
import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from time import sleep

import pytest

from bpf import outer
from bpf.harness import PASS, REDIRECT, VNI, Node, needs_root
from bpf.packets import ETHERNET, IP_SIZE, UDP_NAME, outbound, parts
from bpf.world import World
from outgate.kernel.maps import encode_key
from outgate.kernel.settings import TunnelWay
from outgate.state.entries import EndpointKey, Hook, NodeKey

pytestmark = [needs_root, pytest.mark.kernel]


@pytest.fixture
def request_frame(world: World) -> bytes:
    """What a pod of the other node sends through this gateway."""
    return outbound(UDP_NAME, world.REMOTE_POD, world.SERVER).build()


def test_a_tunnelled_packet_never_reaches_the_device(
    node: Node, world: World, tunnel_way: TunnelWay, request_frame: bytes
) -> None:
    seen = node.run(Hook.FROM_NETDEV, outer.wrap(request_frame, world.worker))

    assert seen.verdict == (REDIRECT if tunnel_way is TunnelWay.AUTO else PASS)


def flipped(offset: int, bits: int = 1) -> Callable[[World, bytes], bytes]:
    """Change a byte at *offset* of the outer UDP header, or of what follows."""

    def change(world: World, frame: bytes) -> bytes:
        at = ETHERNET + IP_SIZE[world.outer] + offset
        return frame[:at] + bytes([frame[at] ^ bits]) + frame[at + 1 :]

    return change


def without_sum(world: World, frame: bytes) -> bytes:
    """Write no checksum where IPv6 demands one, and one where IPv4 has none."""
    at = ETHERNET + IP_SIZE[world.outer] + 6
    check = int.from_bytes(frame[at : at + 2], "big")
    return frame[:at] + (b"\0\0" if check else b"\1\1") + frame[at + 2 :]


ODD: dict[str, Callable[[World, bytes], bytes]] = {
    "another port": flipped(3),
    "another length": flipped(5),
    "a wrong kind of checksum": without_sum,
    "no VNI": flipped(8, 8),
    "unknown flags": flipped(8, 128),
    "reserved bits": flipped(15),
    "an ARP packet inside": flipped(29, 6),
    "something behind it": lambda _, frame: frame + b"\0",
    "a packet cut short": lambda _, frame: frame[:-1],
    "nothing inside": lambda world, frame: frame[
        : ETHERNET + IP_SIZE[world.outer] + 16
    ],
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_tunnel_packet_is_left_to_the_device(
    node: Node, world: World, request_frame: bytes, what: str
) -> None:
    odd = ODD[what](world, outer.wrap(request_frame, world.worker))
    seen = node.run(Hook.FROM_NETDEV, odd)

    assert (seen.verdict, seen.packet) == (PASS, odd)


def v4_changed(offset: int, value: int) -> Callable[[bytes], bytes]:
    """Write a byte of the outer IPv4 header, its checksum with it."""

    def change(frame: bytes) -> bytes:
        start = ETHERNET + offset
        changed = frame[:start] + bytes([value]) + frame[start + 1 :]
        ip = changed[ETHERNET : ETHERNET + 10] + b"\0\0" + changed[ETHERNET + 12 : 34]
        check = (outer.words(ip) ^ 0xFFFF).to_bytes(2, "big")
        return changed[: ETHERNET + 10] + check + changed[ETHERNET + 12 :]

    return change


ODD_V4: dict[str, Callable[[bytes], bytes]] = {
    "a first part": v4_changed(6, 0x20),
    "another protocol": v4_changed(9, 6),
    "an address that is not ours": v4_changed(19, 99),
    "a wrong checksum": lambda frame: frame[:24] + b"\0\0" + frame[26:],
}


@pytest.mark.parametrize("what", ODD_V4)
def test_an_odd_ipv4_header_is_left_to_the_device(
    node: Node, world: World, request_frame: bytes, what: str
) -> None:
    worker = ip_address("172.18.0.4")
    odd = ODD_V4[what](outer.wrap(request_frame, worker))
    seen = node.run(Hook.FROM_NETDEV, odd)

    assert (seen.verdict, seen.packet) == (PASS, odd)


@pytest.mark.parametrize("tos", range(4))
def test_only_a_router_in_trouble_makes_it_the_devices(
    node: Node, world: World, tunnel_way: TunnelWay, request_frame: bytes, tos: int
) -> None:
    """The device hands the mark on to the packet inside."""
    frame = outer.wrap(request_frame, world.worker, tos=tos)
    is_taken = tos != outer.CE and tunnel_way is TunnelWay.AUTO

    assert node.run(Hook.FROM_NETDEV, frame).verdict == (REDIRECT if is_taken else PASS)


@pytest.mark.parametrize(
    ("source", "vni"), [("NO_NODE", VNI), ("ELSEWHERE", VNI + 1)], ids=str
)
def test_what_no_node_of_ours_tunnelled_is_left_to_the_device(
    node: Node, world: World, request_frame: bytes, source: str, vni: int
) -> None:
    """There it is dropped and counted, or taken by another network."""
    sender = world.tunnel_address(world.address(source))
    frame = outer.wrap(request_frame, sender, vni)
    seen = node.run(Hook.FROM_NETDEV, frame)

    assert (seen.verdict, seen.packet) == (PASS, frame)


def test_a_super_packet_is_left_to_the_device(
    node: Node, world: World, request_frame: bytes
) -> None:
    frame = outer.wrap(request_frame, world.worker)
    seen = node.run(Hook.FROM_NETDEV, frame, gso_size=10)

    assert (seen.verdict, seen.packet) == (PASS, frame)


@pytest.mark.parametrize(("hops", "is_taken"), [(0, False), (1, False), (2, True)])
def test_a_packet_with_its_last_hop_is_left_to_the_device(
    node: Node, world: World, tunnel_way: TunnelWay, hops: int, is_taken: bool
) -> None:
    """It is to be answered, behind the device."""
    inner = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER).but(ttl=hops)
    frame = outer.wrap(inner.build(), world.worker)
    seen = node.run(Hook.FROM_NETDEV, frame)

    if is_taken and tunnel_way is TunnelWay.AUTO:
        assert seen.verdict == REDIRECT
    else:
        assert (seen.verdict, seen.packet) == (PASS, frame)


@pytest.fixture
def on_one_cpu(node: Node) -> Iterator[None]:
    """Let the node stay where it is: each CPU has flows of its own."""
    before = node.inside(lambda: os.sched_getaffinity(0))
    node.inside(lambda: os.sched_setaffinity(0, {min(before)}))
    yield
    node.inside(lambda: os.sched_setaffinity(0, before))


def believe(node: Node, frame: bytes, tunnel_way: TunnelWay) -> None:
    """Let *frame* be taken out of the tunnel, twice: its flow is new, then known."""
    expected = REDIRECT if tunnel_way is TunnelWay.AUTO else PASS
    for _ in range(2):
        assert node.run(Hook.FROM_NETDEV, frame).verdict == expected


def worker_is_gone(node: Node, world: World) -> None:
    node.remove(NodeKey(world.worker))


def address_is_gone(node: Node, world: World) -> None:
    node.remove(EndpointKey(world.tunnel_address(world.HERE)))
    node.configure()


def worker_is_gone_and_nobody_says_so(node: Node, world: World) -> None:
    name, key = encode_key(NodeKey(world.worker))
    with node.table(name) as table:
        assert not table.remove_many([key])
    sleep(1.1)


GONE = [worker_is_gone, address_is_gone, worker_is_gone_and_nobody_says_so]


@pytest.mark.usefixtures("on_one_cpu")
@pytest.mark.parametrize("change", GONE)
def test_who_was_believed_is_looked_at_again(
    node: Node,
    world: World,
    tunnel_way: TunnelWay,
    request_frame: bytes,
    change: Callable[[Node, World], None],
) -> None:
    """Each CPU remembers for itself."""
    frame = outer.wrap(request_frame, world.worker)
    believe(node, frame, tunnel_way)
    change(node, world)
    for _ in range(2):
        seen = node.run(Hook.FROM_NETDEV, frame)

        assert (seen.verdict, seen.packet) == (PASS, frame)


def slots() -> int:
    """Return how far apart the addresses of nodes are that share a place."""
    header = Path(__file__).parents[2] / "bpf" / "include" / "outer_match.h"
    (found,) = re.findall(r"#define BELIEVED_SLOTS (\d+)", header.read_text())
    return int(found)


@pytest.mark.usefixtures("on_one_cpu")
def test_nobody_is_believed_for_another_ones_sake(
    node: Node, world: World, tunnel_way: TunnelWay, request_frame: bytes
) -> None:
    here = world.tunnel_address(world.HERE)
    believe(node, outer.wrap(request_frame, world.worker), tunnel_way)
    for source, to in (
        (world.worker + slots(), here),
        (world.worker, here + slots()),
    ):
        frame = outer.wrap(request_frame, source, here=to)
        seen = node.run(Hook.FROM_NETDEV, frame)

        assert (seen.verdict, seen.packet) == (PASS, frame)


TRIES = 100


@pytest.mark.usefixtures("on_one_cpu")
def test_a_packet_does_not_overtake_a_super_packet_of_its_flow(
    node: Node, world: World, tunnel_way: TunnelWay, request_frame: bytes
) -> None:
    """The device hands super-packets on later; another flow need not wait for them."""
    frame = outer.wrap(request_frame, world.worker)
    other = flipped(1)(world, frame)
    taken = REDIRECT if tunnel_way is TunnelWay.AUTO else PASS
    for _ in range(TRIES):
        # A loaded machine may take longer between the two than the program waits.
        node.run(Hook.FROM_NETDEV, frame, gso_size=10)
        behind = node.run(Hook.FROM_NETDEV, frame)
        if behind.verdict == PASS:
            break
    beside = node.run(Hook.FROM_NETDEV, other)

    assert (behind.verdict, behind.packet) == (PASS, frame)
    assert beside.verdict == taken

    while node.run(Hook.FROM_NETDEV, frame).verdict != taken:
        """Later it goes its own way again."""


@pytest.mark.parametrize("part", ["first", "last"])
def test_a_part_of_a_datagram_is_left_to_the_device(
    node: Node, world: World, part: str
) -> None:
    """It may not overtake a part whose outer header is in parts as well."""
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    first, *_, last = parts(packet.but(payload=bytes(3000)).build(), 9)
    inner = first if part == "first" else last
    frame = outer.wrap(inner, world.worker)
    seen = node.run(Hook.FROM_NETDEV, frame)

    assert (seen.verdict, seen.packet) == (PASS, frame)
