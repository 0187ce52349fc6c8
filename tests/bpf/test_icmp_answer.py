"""What a sender is told when its packet is too big for the tunnel, or out of hops."""

from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import ICMP, IP
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
from bpf.offload import Offloaded, partial, send_offloaded
from bpf.packets import ECHO_NAME, PROTOCOLS, TCP_NAME, UDP_NAME, Packet, outbound
from bpf.world import (
    ELSEWHERE,
    HERE,
    LOCAL_POD,
    POLICY,
    REMOTE_POD,
    SERVER,
    TUNNELLED_POD,
)
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

WORKER = IPv4Address(ELSEWHERE)
OUT, IN = MetricDirection.TO_WORLD, MetricDirection.TO_POD
HEADERS = {TCP_NAME: 40, UDP_NAME: 28, ECHO_NAME: 28}
QUOTE = 68
ANSWERS_AT_ONCE = 50


def answer(frame: bytes, source: str, icmp: ICMP) -> bytes:
    """Return the ICMP error about *frame*, on its way back."""
    about = Ether(frame)
    header = IP(
        src=source, dst=about[IP].src, tos=0xC0, id=0, flags="DF", ttl=64, proto=1
    )
    quote = Raw(frame[14 : 14 + min(QUOTE, about[IP].len or QUOTE)])
    return bytes(Ether(src=about.dst, dst=about.src) / header / icmp / quote)


def too_big(frame: bytes, source: str) -> bytes:
    return answer(frame, source, ICMP(type=3, code=4, nexthopmtu=TUNNEL_MTU))


def out_of_hops(frame: bytes, source: str) -> bytes:
    return answer(frame, source, ICMP(type=11, code=0))


def sized(protocol: str, pod: str, size: int) -> Packet:
    """Return a packet of *size* bytes of IP that must not be fragmented."""
    payload = bytes(size - HEADERS[protocol])
    packet = outbound(protocol, pod, SERVER)
    return packet.but(payload=payload, dont_fragment=True, flags="A")


def reply_to(node: Node, packet: Packet) -> Packet:
    """Open the flow of *packet* on its gateway; return what the server answers."""
    small = packet.but(payload=b"", dont_fragment=False)
    if packet.source == LOCAL_POD:
        node.run(Hook.FROM_CONTAINER, small.build())
    else:
        node.run(Hook.FROM_OVERLAY, small.build(), tunnel=WORKER)
    return packet.but(source=HERE).reply()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pod_is_told_that_its_packet_is_too_big(node: Node, protocol: str) -> None:
    frame = sized(protocol, TUNNELLED_POD, TUNNEL_MTU + 1).build()
    told = node.run(Hook.FROM_CONTAINER, frame)

    assert Outcome(REDIRECT, too_big(frame, SERVER), 0) == told
    assert {(Reason.DROP_TOO_BIG, OUT, POLICY): 1} == node.counts()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_just_fits_the_tunnel_goes_through_it(node: Node, protocol: str) -> None:
    frame = sized(protocol, TUNNELLED_POD, TUNNEL_MTU).build()

    assert Outcome(REDIRECT, frame, 0) == node.run(Hook.FROM_CONTAINER, frame)


def test_a_big_packet_that_may_be_fragmented_goes_through_the_tunnel(
    node: Node,
) -> None:
    packet = sized(UDP_NAME, TUNNELLED_POD, TUNNEL_MTU + 50).but(dont_fragment=False)
    frame = packet.build()

    assert Outcome(REDIRECT, frame, 0) == node.run(Hook.FROM_CONTAINER, frame)


def test_a_big_packet_leaves_from_a_pod_on_its_gateway(node: Node) -> None:
    packet = sized(UDP_NAME, LOCAL_POD, TUNNEL_MTU + 50)
    expected = packet.but(source=HERE, ttl=63).build()
    sent = node.run(Hook.FROM_CONTAINER, packet.build())

    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == sent


@pytest.mark.parametrize("protocol", [TCP_NAME, UDP_NAME])
@pytest.mark.parametrize("over", [0, 1])
def test_a_super_packet_is_judged_by_its_segments(
    node: Node, protocol: str, over: int
) -> None:
    frame = sized(protocol, TUNNELLED_POD, 3000).build()
    segment = TUNNEL_MTU - HEADERS[protocol] + over
    told = node.run(Hook.FROM_CONTAINER, frame, gso_size=segment)
    expected = too_big(frame, SERVER) if over else frame

    assert Outcome(REDIRECT, expected, 0) == told


def test_a_segments_options_count(node: Node) -> None:
    packet = sized(TCP_NAME, TUNNELLED_POD, 3000).but(tcp_options=b"\x01" * 12)
    frame = packet.build()
    told = node.run(Hook.FROM_CONTAINER, frame, gso_size=TUNNEL_MTU - 40 - 11)

    assert too_big(frame, SERVER) == told.packet


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_is_told_that_its_packet_is_too_big(node: Node, protocol: str) -> None:
    """From the egress IP, about the packet as it arrived."""
    frame = reply_to(node, sized(protocol, REMOTE_POD, TUNNEL_MTU + 1)).build()
    told = node.run(Hook.FROM_NETDEV, frame)

    assert Outcome(REDIRECT, too_big(frame, HERE), MARK_TRANSLATED) == told
    assert 1 == node.counts()[(Reason.DROP_TOO_BIG, IN, POLICY)]


def test_a_big_reply_reaches_a_pod_on_its_gateway(node: Node) -> None:
    reply = reply_to(node, sized(UDP_NAME, LOCAL_POD, TUNNEL_MTU + 50))
    expected = reply.but(destination=LOCAL_POD, ttl=63).build()
    back = node.run(Hook.FROM_NETDEV, reply.build())

    assert expected[14:] == back.packet[14:]


@pytest.mark.parametrize("gso_size", [0, TUNNEL_MTU])
def test_an_answer_is_whole_where_offloads_were_due(node: Node, gso_size: int) -> None:
    """The packet was a super-packet, with a checksum yet to be completed."""
    size = 8000 if gso_size else TUNNEL_MTU + 1
    reply = reply_to(node, sized(TCP_NAME, REMOTE_POD, size))
    sent = send_offloaded(node, Hook.FROM_NETDEV, reply.build(), gso_size)

    arrived = partial(reply.build())

    assert Offloaded(too_big(arrived, HERE), False, 0) == sent


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pod_is_told_of_its_last_hop_on_its_gateway(
    node: Node, protocol: str
) -> None:
    frame = outbound(protocol, LOCAL_POD, SERVER).but(ttl=1).build()
    told = node.run(Hook.FROM_CONTAINER, frame)

    assert Outcome(REDIRECT, out_of_hops(frame, HERE), 0) == told
    assert {(Reason.DROP_TTL_EXCEEDED, OUT, POLICY): 1} == node.counts()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("ttl", [0, 1])
def test_a_pod_is_told_of_its_last_hop_through_the_tunnel(
    node: Node, protocol: str, ttl: int
) -> None:
    frame = outbound(protocol, REMOTE_POD, SERVER).but(ttl=ttl).build()
    told = node.run(Hook.FROM_OVERLAY, frame, tunnel=WORKER)

    assert Outcome(REDIRECT, out_of_hops(frame, HERE), 0) == told
    assert {(Reason.DROP_TTL_EXCEEDED, OUT, POLICY): 1} == node.counts()


@pytest.mark.parametrize("pod", [LOCAL_POD, REMOTE_POD])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_is_told_of_its_last_hop(node: Node, protocol: str, pod: str) -> None:
    frame = reply_to(node, sized(protocol, pod, 60)).but(ttl=1).build()
    told = node.run(Hook.FROM_NETDEV, frame)

    assert Outcome(REDIRECT, out_of_hops(frame, HERE), MARK_TRANSLATED) == told
    assert 1 == node.counts()[(Reason.DROP_TTL_EXCEEDED, IN, POLICY)]


@pytest.mark.parametrize("size", [28, 29, 30, 31, 67, 68, 69, 90])
def test_a_quote_is_what_there_was_and_no_padding(node: Node, size: int) -> None:
    frame = sized(UDP_NAME, LOCAL_POD, size).but(ttl=1, payload=b"x" * (size - 28))
    padded = frame.build().ljust(60, b"p")

    assert out_of_hops(padded, HERE) == node.run(Hook.FROM_CONTAINER, padded).packet


@pytest.mark.parametrize("words", [1, 10])
def test_a_quote_holds_the_options(node: Node, words: int) -> None:
    packet = outbound(TCP_NAME, LOCAL_POD, SERVER).but(options=b"\x01" * 4 * words)
    frame = packet.but(ttl=1).build()

    assert out_of_hops(frame, HERE) == node.run(Hook.FROM_CONTAINER, frame).packet


@pytest.mark.parametrize(
    "destination_mac", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"], ids=["all", "some"]
)
def test_a_broadcast_is_never_answered(node: Node, destination_mac: str) -> None:
    packet = outbound(UDP_NAME, LOCAL_POD, SERVER).but(ttl=1)
    frame = packet.but(destination_mac=destination_mac).build()

    assert Outcome(DROP, frame, 0) == node.run(Hook.FROM_CONTAINER, frame)


def test_answers_are_limited(node: Node) -> None:
    """A thousand a second; the clock may tick while this loop runs."""
    frame = outbound(UDP_NAME, LOCAL_POD, SERVER).but(ttl=1).build()
    seen = [node.run(Hook.FROM_CONTAINER, frame) for _ in range(500)]
    answered = [told.verdict for told in seen].count(REDIRECT)

    assert [REDIRECT] * ANSWERS_AT_ONCE == [t.verdict for t in seen[:ANSWERS_AT_ONCE]]
    assert Outcome(DROP, frame, 0) in seen
    assert answered < len(seen)
    assert {(Reason.DROP_TTL_EXCEEDED, OUT, POLICY): len(seen)} == node.counts()
