"""Parts of datagrams that nobody waits for, or that belong to the node itself."""

from ipaddress import ip_address

import pytest

from bpf.harness import DROP, PASS, REDIRECT, Node, needs_root
from bpf.model.answers import time_exceeded
from bpf.model.frames import Shape, around, build
from bpf.model.headers import FRAGMENT, UDP
from bpf.model.packet import read
from bpf.model.unpinned import HELD_PARTS, UnpinnedMap, unpinned
from bpf.world import World
from outgate.state.entries import Family, Hook

pytestmark = [needs_root, pytest.mark.kernel]

ESP = 50
FIRST, LATER = 1, 5 << 3
"""More parts follow; 40 bytes came before (RFC 8200, 4.5)."""


def shape(place: int, ttl: int = 64) -> Shape:
    extension = bytes(2) + place.to_bytes(2, "big") + (4711).to_bytes(4, "big")
    return Shape(ttl=ttl, payload=bytes(32), extensions=((FRAGMENT, extension),))


def part(frame: bytes, world: World, place: int) -> bytes:
    """Return *frame* as a part of a datagram; in IPv6 it is one already."""
    if world.family is Family.V6:
        return frame
    flags = place >> 3 | (place & 1) << 13
    return frame[:20] + flags.to_bytes(2, "big") + frame[22:]


def udp(world: World, place: int, ttl: int) -> bytes:
    pair = ip_address(world.LOCAL_POD).packed, ip_address(world.SERVER).packed
    return part(build(UDP, pair, (40000, 80), shape(place, ttl)), world, place)


def forget_held(node: Node, hook: Hook, family: Family) -> None:
    """Push out what *hook* holds, as many other parts would."""
    for fd in unpinned([node.program(hook, family)], HELD_PARTS):
        held = UnpinnedMap(fd)
        assert not held.remove_many([key for key, _ in held.rows()])
        held.close()


def test_a_first_part_whose_followers_are_lost_is_dropped_like_any(
    node: Node, world: World
) -> None:
    first = udp(world, FIRST, ttl=1)
    early = node.run(Hook.FROM_CONTAINER, udp(world, LATER, ttl=64))
    assert DROP == early.verdict
    forget_held(node, Hook.FROM_CONTAINER, world.family)

    outcome = node.run(Hook.FROM_CONTAINER, first)

    expected = time_exceeded(first, read(first), ip_address(world.HERE).packed)
    assert (REDIRECT, expected) == (outcome.verdict, outcome.packet)


def test_parts_of_what_is_never_translated_go_to_the_host_at_once(
    node: Node, world: World
) -> None:
    pair = ip_address(world.SERVER).packed, ip_address(world.HERE).packed

    for place in (FIRST, LATER):
        frame = part(around(ESP, pair, bytes(40), shape(place)), world, place)
        assert PASS == node.run(Hook.FROM_NETDEV, frame).verdict
