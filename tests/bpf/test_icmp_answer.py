"""What a sender is told when its packet is too big for the tunnel, or out of hops."""

from time import sleep

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from bpf.harness import (
    DROP,
    MARK_TRANSLATED,
    REDIRECT,
    TUNNEL_MTU,
    Node,
    Outcome,
    needs_root,
)
from bpf.icmp_errors import pseudo, with_checksum
from bpf.offload import Offloaded, partial, send_offloaded
from bpf.packets import (
    ETHERNET,
    IP_SIZE,
    PROTOCOLS,
    SCTP_NAME,
    TCP_NAME,
    UDP_NAME,
    Packet,
    family_of_frame,
    outbound,
)
from bpf.world import IPV4, POLICY, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import Family, Hook

pytestmark = [needs_root, pytest.mark.kernel]

OUT, IN = MetricDirection.TO_WORLD, MetricDirection.TO_POD
QUOTE = {Family.V4: 68, Family.V6: 1232}
ANSWERS_AT_ONCE = 50


def answer(frame: bytes, source: str, kind: bytes, mtu: int = 0) -> bytes:
    """Return the ICMP error about *frame*, on its way back; *kind*: type and code."""
    about, family = Ether(frame), family_of_frame(frame)
    start = kind + bytes(2) + mtu.to_bytes(4, "big")
    macs = Ether(src=about.dst, dst=about.src)
    if family is Family.V6:
        told, quote = about[IPv6].src, frame[ETHERNET:][: QUOTE[Family.V6]]
        size = IP_SIZE[family] + about[IPv6].plen
        message = start + quote[:size]
        message = with_checksum(message, pseudo(source, told, len(message)))
        macs /= IPv6(src=source, dst=told, tc=0xC0, hlim=64, nh=58)
    else:
        told, quote = about[IP].src, frame[ETHERNET:][: QUOTE[Family.V4]]
        message = with_checksum(start + quote[: about[IP].len])
        macs /= IP(src=source, dst=told, tos=0xC0, id=0, flags="DF", ttl=64, proto=1)
    return bytes(macs / Raw(message))


def too_big(frame: bytes, source: str) -> bytes:
    is_ipv4 = family_of_frame(frame) is Family.V4
    return answer(frame, source, b"\x03\x04" if is_ipv4 else b"\x02\x00", TUNNEL_MTU)


def out_of_hops(frame: bytes, source: str) -> bytes:
    is_ipv4 = family_of_frame(frame) is Family.V4
    return answer(frame, source, b"\x0b\x00" if is_ipv4 else b"\x03\x00")


def headers(world: World, protocol: str) -> int:
    """Return the bytes of IP and transport headers."""
    return world.ip_size + {TCP_NAME: 20, SCTP_NAME: 12}.get(protocol, 8)


def sized(world: World, protocol: str, pod: str, size: int) -> Packet:
    """Return a packet of *size* bytes of IP that must not be fragmented."""
    payload = bytes(size - headers(world, protocol))
    packet = outbound(protocol, pod, world.SERVER)
    return packet.but(payload=payload, dont_fragment=True, flags="A")


def reply_to(node: Node, world: World, packet: Packet) -> Packet:
    """Open the flow of *packet* on its gateway; return what the server answers."""
    small = packet.but(payload=b"", dont_fragment=False)
    if packet.source == world.LOCAL_POD:
        node.run(Hook.FROM_CONTAINER, small.build())
    else:
        node.run(Hook.FROM_OVERLAY, small.build(), tunnel=world.worker)
    return packet.but(source=world.HERE).reply()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pod_is_told_that_its_packet_is_too_big(
    node: Node, world: World, protocol: str
) -> None:
    frame = sized(world, protocol, world.TUNNELLED_POD, TUNNEL_MTU + 1).build()
    told = node.run(Hook.FROM_CONTAINER, frame)

    assert Outcome(REDIRECT, too_big(frame, world.SERVER), 0) == told
    assert {(Reason.DROP_TOO_BIG, OUT, POLICY): 1} == node.counts()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_just_fits_the_tunnel_goes_through_it(
    node: Node, world: World, protocol: str
) -> None:
    frame = sized(world, protocol, world.TUNNELLED_POD, TUNNEL_MTU).build()

    assert Outcome(REDIRECT, frame, 0) == node.run(Hook.FROM_CONTAINER, frame)


@pytest.mark.parametrize("world", [IPV4], ids=["ipv4"])
def test_a_big_packet_that_may_be_fragmented_goes_through_the_tunnel(
    node: Node, world: World
) -> None:
    """IPv6 packets may never be."""
    packet = sized(world, UDP_NAME, world.TUNNELLED_POD, TUNNEL_MTU + 50).but(
        dont_fragment=False
    )
    frame = packet.build()

    assert Outcome(REDIRECT, frame, 0) == node.run(Hook.FROM_CONTAINER, frame)


def test_a_big_packet_leaves_from_a_pod_on_its_gateway(
    node: Node, world: World
) -> None:
    packet = sized(world, UDP_NAME, world.LOCAL_POD, TUNNEL_MTU + 50)
    expected = packet.but(source=world.HERE, ttl=63).build()
    sent = node.run(Hook.FROM_CONTAINER, packet.build())

    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == sent


@pytest.mark.parametrize("protocol", [TCP_NAME, UDP_NAME])
@pytest.mark.parametrize("over", [0, 1])
def test_a_super_packet_is_judged_by_its_segments(
    node: Node, world: World, protocol: str, over: int
) -> None:
    frame = sized(world, protocol, world.TUNNELLED_POD, 3000).build()
    segment = TUNNEL_MTU - headers(world, protocol) + over
    told = node.run(Hook.FROM_CONTAINER, frame, gso_size=segment)
    expected = too_big(frame, world.SERVER) if over else frame

    assert Outcome(REDIRECT, expected, 0) == told


def test_a_segments_options_count(node: Node, world: World) -> None:
    packet = sized(world, TCP_NAME, world.TUNNELLED_POD, 3000).but(
        tcp_options=b"\x01" * 12
    )
    frame = packet.build()
    segment = TUNNEL_MTU - headers(world, TCP_NAME) - 11
    told = node.run(Hook.FROM_CONTAINER, frame, gso_size=segment)

    assert too_big(frame, world.SERVER) == told.packet


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_is_told_that_its_packet_is_too_big(
    node: Node, world: World, protocol: str
) -> None:
    """From the egress IP, about the packet as it arrived."""
    frame = reply_to(
        node, world, sized(world, protocol, world.REMOTE_POD, TUNNEL_MTU + 1)
    ).build()
    told = node.run(Hook.FROM_NETDEV, frame)

    assert Outcome(REDIRECT, too_big(frame, world.HERE), MARK_TRANSLATED) == told
    assert 1 == node.counts()[(Reason.DROP_TOO_BIG, IN, POLICY)]


def test_a_big_reply_reaches_a_pod_on_its_gateway(node: Node, world: World) -> None:
    reply = reply_to(
        node, world, sized(world, UDP_NAME, world.LOCAL_POD, TUNNEL_MTU + 50)
    )
    expected = reply.but(destination=world.LOCAL_POD, ttl=63).build()
    back = node.run(Hook.FROM_NETDEV, reply.build())

    assert expected[14:] == back.packet[14:]


@pytest.mark.parametrize("gso_size", [0, TUNNEL_MTU])
def test_an_answer_is_whole_where_offloads_were_due(
    node: Node, world: World, gso_size: int
) -> None:
    """The packet was a super-packet, with a checksum yet to be completed."""
    size = 8000 if gso_size else TUNNEL_MTU + 1
    reply = reply_to(node, world, sized(world, TCP_NAME, world.REMOTE_POD, size))
    sent = send_offloaded(node, Hook.FROM_NETDEV, reply.build(), gso_size)

    arrived = partial(reply.build())

    assert Offloaded(too_big(arrived, world.HERE), False, 0) == sent


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pod_is_told_of_its_last_hop_on_its_gateway(
    node: Node, world: World, protocol: str
) -> None:
    frame = outbound(protocol, world.LOCAL_POD, world.SERVER).but(ttl=1).build()
    told = node.run(Hook.FROM_CONTAINER, frame)

    assert Outcome(REDIRECT, out_of_hops(frame, world.HERE), 0) == told
    assert {(Reason.DROP_TTL_EXCEEDED, OUT, POLICY): 1} == node.counts()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("ttl", [0, 1])
def test_a_pod_is_told_of_its_last_hop_through_the_tunnel(
    node: Node, world: World, protocol: str, ttl: int
) -> None:
    frame = outbound(protocol, world.REMOTE_POD, world.SERVER).but(ttl=ttl).build()
    told = node.run(Hook.FROM_OVERLAY, frame, tunnel=world.worker)

    assert Outcome(REDIRECT, out_of_hops(frame, world.HERE), 0) == told
    assert {(Reason.DROP_TTL_EXCEEDED, OUT, POLICY): 1} == node.counts()


@pytest.mark.parametrize("pod", ["LOCAL_POD", "REMOTE_POD"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_is_told_of_its_last_hop(
    node: Node, world: World, protocol: str, pod: str
) -> None:
    packet = sized(world, protocol, world.address(pod), 90)
    frame = reply_to(node, world, packet).but(ttl=1).build()
    told = node.run(Hook.FROM_NETDEV, frame)

    assert Outcome(REDIRECT, out_of_hops(frame, world.HERE), MARK_TRANSLATED) == told
    assert 1 == node.counts()[(Reason.DROP_TTL_EXCEEDED, IN, POLICY)]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 39, 40, 41, 62])
def test_a_quote_is_what_there_was_and_no_padding(
    node: Node, world: World, size: int
) -> None:
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER)
    padded = packet.but(ttl=1, payload=b"x" * size).build() + b"p" * 18
    told = node.run(Hook.FROM_CONTAINER, padded)

    assert out_of_hops(padded, world.HERE) == told.packet


@pytest.mark.parametrize("size", [8, 40])
def test_a_quote_holds_the_options(node: Node, world: World, size: int) -> None:
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER).stretched(size)
    frame = packet.but(ttl=1).build()

    assert out_of_hops(frame, world.HERE) == node.run(Hook.FROM_CONTAINER, frame).packet


@pytest.mark.parametrize(
    "destination_mac", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"], ids=["all", "some"]
)
def test_a_broadcast_is_never_answered(
    node: Node, world: World, destination_mac: str
) -> None:
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER).but(ttl=1)
    frame = packet.but(destination_mac=destination_mac).build()

    assert Outcome(DROP, frame, 0) == node.run(Hook.FROM_CONTAINER, frame)


def test_answers_are_limited(node: Node, world: World) -> None:
    """A thousand a second; the clock may tick while this loop runs."""
    sleep(0.1)  # the tests before may have had some
    frame = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER).but(ttl=1).build()
    seen = [node.run(Hook.FROM_CONTAINER, frame) for _ in range(500)]
    answered = [told.verdict for told in seen].count(REDIRECT)

    assert [REDIRECT] * ANSWERS_AT_ONCE == [t.verdict for t in seen[:ANSWERS_AT_ONCE]]
    assert Outcome(DROP, frame, 0) in seen
    assert answered < len(seen)
    assert {(Reason.DROP_TTL_EXCEEDED, OUT, POLICY): len(seen)} == node.counts()
