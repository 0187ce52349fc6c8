"""The MSS option of what goes through the tunnel, in both directions."""

import pytest

from bpf.harness import TUNNEL_MTU, Node, needs_root
from bpf.offload import partial, send_offloaded
from bpf.packets import TCP_NAME, Packet, outbound
from bpf.world import World
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

NOP, END = b"\x01", b"\x00"
SACK, STAMP = b"\x04\x02", bytes([8, 10]) + bytes(range(8))

PLACES = {
    "first": (b"", SACK + NOP + NOP),
    "last": (SACK + STAMP, b""),
    "behind-one-nop": (NOP, b"\x03\x03\x07"),
    "behind-odd-bytes": (b"\x03\x03\x07", NOP),
    "at-the-end-of-all": (b"\x03\x03\x07" + STAMP + STAMP + STAMP + NOP * 3, b""),
    "before-the-end-of-options": (b"", END + b"\x02\x04\xff\xff" + END * 3),
}

NOT_TO_TOUCH = {
    "absent": SACK + NOP + NOP,
    "behind-the-end": END + b"\x02\x04\xff\xff" + END * 3,
    "of-another-size": b"\x02\x03\xff" + NOP,
    "cut-short": NOP + b"\x02\x04\xff",
    "behind-a-size-of-zero": b"\x08\x00\x02\x04\xff\xff" + NOP * 2,
    "behind-a-size-of-one": b"\x08\x01\x02\x04\xff\xff" + NOP * 2,
    "inside-another": b"\x1e\x08\x02\x04\xff\xff\x00\x00",
    "behind-a-size-too-large": b"\x08\xff\x02\x04\xff\xff" + NOP * 2,
}


def mss(value: int) -> bytes:
    return b"\x02\x04" + value.to_bytes(2, "big")


def fits(world: World) -> int:
    """Return the largest MSS that fits the tunnel."""
    return TUNNEL_MTU - world.ip_size - 20


def syn(world: World, tcp_options: bytes, pod: str = "TUNNELLED_POD") -> Packet:
    packet = outbound(TCP_NAME, world.address(pod), world.SERVER)
    return packet.but(tcp_options=tcp_options)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [1460, 65535, None])
def test_from_container_lowers_the_mss(
    node: Node, world: World, place: str, value: int | None
) -> None:
    """None: one more than fits."""
    before, after = PLACES[place]
    packet = syn(world, before + mss(value or fits(world) + 1) + after)
    expected = packet.but(tcp_options=before + mss(fits(world)) + after)

    assert expected.build() == node.run(Hook.FROM_CONTAINER, packet.build()).packet


@pytest.mark.parametrize("options", NOT_TO_TOUCH.values(), ids=NOT_TO_TOUCH)
def test_from_container_leaves_other_options_alone(
    node: Node, world: World, options: bytes
) -> None:
    packet = syn(world, options).build()

    assert packet == node.run(Hook.FROM_CONTAINER, packet).packet


@pytest.mark.parametrize("under", [0, 1])
def test_from_container_raises_no_mss(node: Node, world: World, under: int) -> None:
    packet = syn(world, mss(fits(world) - under)).build()

    assert packet == node.run(Hook.FROM_CONTAINER, packet).packet


@pytest.mark.parametrize("flags", ["A", "F", "R"])
def test_from_container_looks_at_syns_alone(
    node: Node, world: World, flags: str
) -> None:
    packet = syn(world, mss(1460)).but(flags=flags).build()

    assert packet == node.run(Hook.FROM_CONTAINER, packet).packet


def test_a_pod_on_its_gateway_keeps_its_mss(node: Node, world: World) -> None:
    packet = syn(world, mss(1460), "LOCAL_POD")
    expected = packet.but(source=world.HERE, ttl=63).build()

    assert expected == node.run(Hook.FROM_CONTAINER, packet.build()).packet


@pytest.mark.parametrize("place", PLACES)
def test_from_netdev_lowers_the_mss_of_an_accept(
    node: Node, world: World, place: str
) -> None:
    before, after = PLACES[place]
    packet = syn(world, before + mss(1460) + after, "REMOTE_POD")
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    reply = packet.but(source=world.HERE).reply()
    lowered = before + mss(fits(world)) + after
    expected = reply.but(destination=world.REMOTE_POD, ttl=63, tcp_options=lowered)

    assert expected.build() == node.run(Hook.FROM_NETDEV, reply.build()).packet


def test_from_overlay_leaves_the_mss_to_from_container(
    node: Node, world: World
) -> None:
    packet = syn(world, mss(1460), "REMOTE_POD")
    expected = packet.but(source=world.HERE, ttl=63).build()
    sent = node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)

    assert expected == sent.packet


@pytest.mark.parametrize("before", [b"", NOP], ids=["even", "odd"])
def test_a_checksum_yet_to_be_completed_stays_so(
    node: Node, world: World, before: bytes
) -> None:
    after = NOP * (-len(before) % 4)
    packet = syn(world, before + mss(1460) + after)
    expected = packet.but(tcp_options=before + mss(fits(world)) + after).build()
    sent = send_offloaded(node, Hook.FROM_CONTAINER, packet.build())

    assert (partial(expected), True) == (sent.frame, sent.needs_checksum)
