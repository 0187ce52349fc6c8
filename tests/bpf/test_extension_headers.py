"""IPv6's extension headers: walked as far as the bound says, and never a way past."""

import pytest

from bpf.harness import (
    DROP,
    MARK_SEEN,
    MARK_TRANSLATED,
    PASS,
    REDIRECT,
    Node,
    Outcome,
    needs_root,
)
from bpf.icmp_errors import KINDS, IcmpError
from bpf.packets import (
    DESTINATION_OPTIONS,
    HOP_BY_HOP,
    PROTOCOLS,
    TCP_NAME,
    UDP_NAME,
    Extension,
    options_header,
    outbound,
    over_ip,
    routing_header,
)
from bpf.world import IPV6, IPV6_OVER_IPV4, POLICY, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import Hook

pytestmark = [
    needs_root,
    pytest.mark.kernel,
    pytest.mark.parametrize("world", [IPV6, IPV6_OVER_IPV4], ids=lambda w: w.name),
]

OUT = MetricDirection.TO_WORLD
MOST_HEADERS, MOST_BYTES = 6, 256
"""What bpf/include/ip.h walks."""

HOP, OPTIONS = options_header(HOP_BY_HOP), options_header(DESTINATION_OPTIONS)
VISITED = routing_header(segments_left=0)

WALKED = {
    "hop-by-hop": (HOP,),
    "destination-options": (OPTIONS,),
    "routing": (VISITED,),
    "several": (HOP, OPTIONS, VISITED, OPTIONS),
    "long": (options_header(DESTINATION_OPTIONS, 40),),
    "as-many-as-are-walked": (HOP, *[OPTIONS] * (MOST_HEADERS - 1)),
    "as-long-as-is-walked": (options_header(DESTINATION_OPTIONS, MOST_BYTES),),
    "router-alert": (Extension(HOP_BY_HOP, b"\x00\x05\x02\x00\x00\x01\x00"),),
}

NOT_WALKED = {
    "more-nodes-to-visit": (routing_header(segments_left=1),),
    "segment-routing": (HOP, routing_header(segments_left=1, kind=4)),
    "too-many": (HOP, *[OPTIONS] * MOST_HEADERS),
    "too-long": (options_header(DESTINATION_OPTIONS, MOST_BYTES + 8),),
    "authentication": (Extension(51, bytes([4]) + bytes(22)),),
    "mobility": (Extension(135, bytes(7)),),
    "host-identity": (Extension(139, bytes(7)),),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("headers", WALKED.values(), ids=WALKED)
def test_a_flow_is_found_behind_extension_headers(
    node: Node, world: World, protocol: str, headers: tuple[Extension, ...]
) -> None:
    """From a pod to its gateway, and from there to the world."""
    plain = outbound(protocol, world.TUNNELLED_POD, world.SERVER)
    sent = plain.but(extensions=headers).build()
    remote = outbound(protocol, world.REMOTE_POD, world.SERVER).but(extensions=headers)
    expected = remote.but(source=world.HERE, ttl=63).build()
    received = node.run(Hook.FROM_OVERLAY, remote.build(), tunnel=world.worker)

    assert Outcome(REDIRECT, sent, 0) == node.run(Hook.FROM_CONTAINER, sent)
    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == received


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("headers", WALKED.values(), ids=WALKED)
def test_a_reply_is_found_behind_extension_headers(
    node: Node, world: World, protocol: str, headers: tuple[Extension, ...]
) -> None:
    request = outbound(protocol, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, request.build(), tunnel=world.worker)
    reply = request.but(source=world.HERE, extensions=headers).reply()
    expected = reply.but(destination=world.REMOTE_POD, ttl=63).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, reply.build())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("headers", NOT_WALKED.values(), ids=NOT_WALKED)
@pytest.mark.parametrize("pod", ["TUNNELLED_POD", "LOCAL_POD"])
def test_what_is_not_walked_is_a_counted_drop(
    node: Node,
    world: World,
    pod: str,
    protocol: str,
    headers: tuple[Extension, ...],
) -> None:
    packet = outbound(protocol, world.address(pod), world.SERVER)
    frame = packet.but(extensions=headers).build()

    assert Outcome(DROP, frame, 0) == node.run(Hook.FROM_CONTAINER, frame)
    assert {(Reason.DROP_UNSUPPORTED_PROTOCOL, OUT, POLICY): 1} == node.counts()
    assert ({}, {}) == (node.flows(), node.nats())


@pytest.mark.parametrize("headers", NOT_WALKED.values(), ids=NOT_WALKED)
def test_what_is_not_walked_does_not_pass_the_other_hooks(
    node: Node, world: World, headers: tuple[Extension, ...]
) -> None:
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    frame = packet.but(extensions=headers).build()
    tunnelled = node.run(Hook.FROM_OVERLAY, frame, tunnel=world.worker)

    assert Outcome(DROP, frame, 0) == tunnelled
    assert Outcome(DROP, frame, 0) == node.run(Hook.TO_NETDEV, frame)
    assert {Reason.DROP_UNSUPPORTED_PROTOCOL, Reason.DROP_UNTRANSLATED} == {
        reason for reason, _, _ in node.counts()
    }


@pytest.mark.parametrize("headers", NOT_WALKED.values(), ids=NOT_WALKED)
def test_what_is_not_walked_and_not_covered_is_left_alone(
    node: Node, world: World, headers: tuple[Extension, ...]
) -> None:
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.OTHER_SERVER)
    frame = packet.but(extensions=headers).build()

    assert Outcome(PASS, frame, MARK_SEEN) == node.run(Hook.FROM_CONTAINER, frame)


@pytest.mark.parametrize("number", [50, 59, 47, 108, 255])
def test_other_protocols_are_a_counted_drop(
    node: Node, world: World, number: int
) -> None:
    """ESP, nothing, GRE, IP compression, reserved."""
    frame = over_ip(world.TUNNELLED_POD, world.SERVER, number, bytes(24), HOP)

    assert Outcome(DROP, frame, 0) == node.run(Hook.FROM_CONTAINER, frame)
    assert {(Reason.DROP_UNSUPPORTED_PROTOCOL, OUT, POLICY): 1} == node.counts()


@pytest.mark.parametrize("pod", ["TUNNELLED_POD", "LOCAL_POD"])
def test_headers_cut_anywhere_never_leave_untranslated(
    node: Node, world: World, pod: str
) -> None:
    packet = outbound(TCP_NAME, world.address(pod), world.SERVER)
    frame = packet.but(extensions=(HOP, VISITED, OPTIONS)).build()
    for size in range(54, len(frame)):
        cut = node.run(Hook.FROM_CONTAINER, frame[:size])
        behind_ports = size >= 54 + 8 + 24 + 8 + 20
        assert (REDIRECT if behind_ports else DROP) == cut.verdict


def test_a_header_longer_than_its_packet_is_dropped(node: Node, world: World) -> None:
    """The payload length ends within the options."""
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    frame = bytearray(packet.but(extensions=(OPTIONS,)).build())
    frame[18:20] = (4).to_bytes(2, "big")

    assert DROP == node.run(Hook.FROM_CONTAINER, bytes(frame)).verdict
    assert {(Reason.DROP_INVALID, OUT, 0): 1} == node.counts()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("headers", WALKED.values(), ids=WALKED)
def test_an_error_that_quotes_extension_headers_reaches_its_pod(
    node: Node, world: World, headers: tuple[Extension, ...], kind: str
) -> None:
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER).but(extensions=headers)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    error = IcmpError(world.HOP, packet.but(source=world.HERE), kind)
    expected = error.about(packet).but(ttl=63).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, error.build())
