"""
Checksums that come out as zero: UDP says 0xffff then, since zero is "there is none".

RFC 768; in IPv6 a receiver drops a UDP packet that says zero (RFC 8200, 8.1).
"""

import pytest

from bpf.harness import MARK_TRANSLATED, REDIRECT, Node, Outcome, needs_root
from bpf.icmp_errors import IcmpError
from bpf.packets import ETHERNET, MOVABLE, TCP_NAME, UDP_NAME, Packet, outbound
from bpf.world import World
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

FIELD = {TCP_NAME: 16, UDP_NAME: 6}


def summed_to_nothing(packet: Packet) -> Packet:
    """Return *packet* with a payload that makes the sum of all 0xffff."""
    at = FIELD.get(packet.protocol, 2)
    start = ETHERNET + (20 if packet.family == 4 else 40) + at
    blank = packet.but(payload=bytes(2)).build()
    return packet.but(payload=blank[start : start + 2])


@pytest.mark.parametrize("protocol", MOVABLE)
def test_a_translated_packets_sum_may_come_out_as_zero(
    node: Node, world: World, protocol: str
) -> None:
    packet = outbound(protocol, world.LOCAL_POD, world.SERVER)
    expected = summed_to_nothing(packet.but(source=world.HERE, ttl=63))
    sent = packet.but(payload=expected.payload).build()

    assert Outcome(REDIRECT, expected.build(), MARK_TRANSLATED) == node.run(
        Hook.FROM_CONTAINER, sent
    )


@pytest.mark.parametrize("protocol", MOVABLE)
def test_a_translated_replys_sum_may_come_out_as_zero(
    node: Node, world: World, protocol: str
) -> None:
    request = outbound(protocol, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, request.build(), tunnel=world.worker)
    reply = request.reply().but(ttl=63)
    expected = summed_to_nothing(reply)
    seen = expected.but(destination=world.HERE, ttl=64).build()

    assert Outcome(REDIRECT, expected.build(), 0) == node.run(Hook.FROM_NETDEV, seen)


@pytest.mark.parametrize("protocol", MOVABLE)
@pytest.mark.parametrize("which", ["as the pod sent it", "as the world saw it"])
def test_a_quoted_sum_may_be_zero(
    node: Node, world: World, protocol: str, which: str
) -> None:
    packet = outbound(protocol, world.REMOTE_POD, world.SERVER)
    seen = packet.but(source=world.HERE)
    payload = summed_to_nothing(seen if "world" in which else packet).payload
    packet, seen = packet.but(payload=payload), seen.but(payload=payload)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    error = IcmpError(world.HOP, seen, quoted_l4=None)
    expected = error.about(packet).but(ttl=63).build()

    assert Outcome(REDIRECT, expected, 0) == node.run(Hook.FROM_NETDEV, error.build())
