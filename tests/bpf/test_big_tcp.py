"""
Super-packets of more than 64 KiB, which IPv6's length field cannot say (BIG TCP).

With the jumbo option before TCP or without it, as kernels differ (RFC 2675; Linux
``Documentation/networking`` has no page on it, ``ipv6_gso_segment()`` is the source).
"""

from collections.abc import Iterator

import pytest

from bpf.harness import Node, needs_root
from bpf.offload import Offloaded, partial, send_offloaded
from bpf.packets import (
    HOP_BY_HOP,
    TCP_NAME,
    Extension,
    Packet,
    outbound,
    without_length,
)
from bpf.uplink import UPLINK
from bpf.world import IPV6, IPV6_OVER_IPV4, World, gateway_entries
from outgate.state.entries import Family, Hook

pytestmark = [
    needs_root,
    pytest.mark.kernel,
    pytest.mark.parametrize("world", [IPV6, IPV6_OVER_IPV4], ids=lambda w: w.name),
]

SIZE, SEGMENT = 100_000, 1300
LENGTH = (20 + SIZE + 8).to_bytes(4, "big")
JUMBO = Extension(HOP_BY_HOP, b"\x00\xc2\x04" + LENGTH)
UPLINK_MAC, ROUTER_MAC = "02:00:ac:12:00:05", "02:00:ac:12:00:01"


@pytest.fixture(scope="module")
def one_node() -> Iterator[Node]:
    """A node whose wire lets such packets through whole."""
    with Node() as node:
        for end in ("uplink", "wire"):
            node.ip("link", "set", end, "gso_max_size", "200000")
        node.ip("link", "set", "uplink", "address", UPLINK_MAC)
        router = UPLINK[Family.V6].router
        node.ip("neighbour", "add", router, "lladdr", ROUTER_MAC, "dev", "uplink")
        yield node


@pytest.fixture
def node(one_node: Node, world: World) -> Node:
    """The gateway."""
    one_node.reset()
    one_node.put(gateway_entries(world))
    return one_node


@pytest.fixture(params=[(), (JUMBO,)], ids=["plain", "jumbo-option"])
def headers(request: pytest.FixtureRequest) -> tuple[Extension, ...]:
    """What stands before TCP."""
    headers: tuple[Extension, ...] = request.param
    return headers


def big(packet: Packet) -> bytes:
    """Return *packet* with so much payload."""
    return without_length(packet.but(payload=b"").build()) + bytes(SIZE)


def passed_on(packet: Packet) -> Offloaded:
    """Return that *packet* left, yet to be cut; the veth took the jumbo option off."""
    return Offloaded(partial(big(packet.but(extensions=()))), True, SEGMENT)


def test_a_tunnelled_pods_super_packet_goes_to_the_tunnel(
    node: Node, world: World, headers: tuple[Extension, ...]
) -> None:
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    packet = packet.but(flags="A", extensions=headers)
    sent = send_offloaded(node, Hook.FROM_CONTAINER, big(packet), SEGMENT)

    assert passed_on(packet) == sent


def test_a_local_pods_super_packet_is_translated(
    node: Node, world: World, headers: tuple[Extension, ...]
) -> None:
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
    packet = packet.but(flags="A", extensions=headers)
    macs = {"source_mac": UPLINK_MAC, "destination_mac": ROUTER_MAC}
    sent = send_offloaded(node, Hook.FROM_CONTAINER, big(packet), SEGMENT)

    assert passed_on(packet.but(source=world.HERE, ttl=63, **macs)) == sent


def test_a_replys_super_packet_is_translated_back(
    node: Node, world: World, headers: tuple[Extension, ...]
) -> None:
    request = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, request.build(), tunnel=world.worker)
    reply = request.but(source=world.HERE, extensions=headers).reply()
    reply = reply.but(flags="A")
    sent = send_offloaded(node, Hook.FROM_NETDEV, big(reply), SEGMENT)

    assert passed_on(reply.but(destination=world.REMOTE_POD, ttl=63)) == sent
