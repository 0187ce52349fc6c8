"""The outer header on the wire, of IPv4 or IPv6 as the nodes' addresses are."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv6Address

import pytest

from bpf.harness import Node, needs_root
from bpf.icmp_errors import IcmpError
from bpf.packets import PROTOCOLS, TCP_NAME, UDP_NAME, outbound
from bpf.tunnel import (
    ROUTER_MAC,
    UPLINK_MAC,
    Tunnelled,
    into_tunnel,
    through,
    tunnel_node,
    tunnelled,
)
from bpf.world import IPV6, World, gateway_entries
from outgate.state.entries import Family, Hook

pytestmark = [needs_root, pytest.mark.kernel]

OTHER_ADDRESS = "fc00:f853:ccd:e793::99"


@pytest.fixture(scope="module")
def one_node() -> Iterator[Node]:
    """A node for all tests here."""
    with tunnel_node() as node:
        yield node


@pytest.fixture
def node(one_node: Node, world: World) -> Node:
    """The gateway, with a real tunnel."""
    one_node.reset()
    one_node.put(gateway_entries(world))
    return one_node


def to_worker(world: World, frame: bytes) -> Tunnelled:
    """Return *frame* on its way to the other node; only IPv4 goes without a sum."""
    here = world.tunnel_address(world.HERE)
    return Tunnelled(here, world.worker, world.outer is Family.V6, frame)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pods_packet_goes_to_its_gateways_address(
    node: Node, world: World, protocol: str
) -> None:
    packet = outbound(protocol, world.TUNNELLED_POD, world.SERVER).build()
    sent = through(node, Hook.FROM_CONTAINER, packet, "uplink")

    assert to_worker(world, packet) == tunnelled(sent)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_reply_goes_to_the_address_that_tunnelled_its_request(
    node: Node, world: World, protocol: str
) -> None:
    request = outbound(protocol, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, request.build(), tunnel=world.worker)
    reply = request.but(source=world.HERE).reply()
    expected = reply.but(destination=world.REMOTE_POD, ttl=63).build()
    sent = through(node, Hook.FROM_NETDEV, reply.build(), "uplink")

    assert to_worker(world, expected) == tunnelled(sent)


def test_an_error_goes_to_the_address_that_tunnelled_what_it_quotes(
    node: Node, world: World
) -> None:
    request = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, request.build(), tunnel=world.worker)
    error = IcmpError(world.HOP, request.but(source=world.HERE), "too-big")
    expected = error.about(request).but(ttl=63).build()
    sent = through(node, Hook.FROM_NETDEV, error.build(), "uplink")

    assert to_worker(world, expected) == tunnelled(sent)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_a_node_tunnels_is_translated_and_leaves(
    node: Node, world: World, protocol: str
) -> None:
    packet = outbound(protocol, world.REMOTE_POD, world.SERVER)
    expected = packet.but(source=world.HERE, ttl=63).but(
        source_mac=UPLINK_MAC, destination_mac=ROUTER_MAC
    )
    frame = into_tunnel(packet.build(), world.worker)

    assert expected.build() == through(node, Hook.FROM_OVERLAY, frame, "tunnel")


def test_a_pod_out_of_hops_is_told_through_the_tunnel(node: Node, world: World) -> None:
    packet = outbound(TCP_NAME, world.REMOTE_POD, world.SERVER).but(ttl=1)
    frame = into_tunnel(packet.build(), world.worker)
    told = tunnelled(through(node, Hook.FROM_OVERLAY, frame, "tunnel"))

    assert told
    assert (world.tunnel_address(world.HERE), world.worker) == (
        told.source,
        told.destination,
    )


@contextmanager
def other_address(node: Node, address: str) -> Iterator[None]:
    """Give the uplink one more address, as an egress IP would be."""
    node.ip("address", "add", f"{address}/64", "dev", "uplink", "nodad")
    try:
        yield
    finally:
        node.ip("address", "del", f"{address}/64", "dev", "uplink")


def test_an_ipv6_tunnel_leaves_from_the_address_that_peers_believe(
    one_node: Node,
) -> None:
    """Of several the kernel takes the newest, which may be an egress IP alone."""
    node, here = one_node, IPV6.tunnel_address(IPV6.HERE)
    node.reset()
    node.put(gateway_entries(IPV6))
    packet = outbound(UDP_NAME, IPV6.TUNNELLED_POD, IPV6.SERVER).build()
    to_wire = partial(through, node, Hook.FROM_CONTAINER, packet, "uplink")
    with other_address(node, OTHER_ADDRESS):
        chosen = tunnelled(to_wire())
        given = tunnelled(to_wire(IPv6Address(here)))

    assert chosen
    assert OTHER_ADDRESS == str(chosen.source)
    assert to_worker(IPV6, packet) == given
