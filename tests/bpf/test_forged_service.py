"""
A pod reaches for a node's tunnel port by the name of a service.

from-container sees the service's address; the stack replaces it by the node's, and then
the pod's own by that of its node, which the other node believes.
"""

import subprocess
from collections.abc import Iterator

import pytest

from bpf.forwarding import ROUTER_MAC, Forwarder, forwarding
from bpf.harness import TUNNEL_PORT, needs_root
from bpf.packets import (
    DESTINATION_OPTIONS,
    HOP_BY_HOP,
    UDP_NAME,
    Extension,
    options_header,
    outbound,
    source_of,
)
from bpf.world import World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import Family

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD
SERVICE = {Family.V4: "198.19.0.9", Family.V6: "2001:db8:96::9"}
TO_TUNNEL, TO_OTHER = 80, 81
"""The service's ports."""

HEADERS: dict[str, tuple[Extension, ...]] = {
    "plain": (),
    "options": (options_header(HOP_BY_HOP), options_header(DESTINATION_OPTIONS, 16)),
    "many-options": (options_header(DESTINATION_OPTIONS),) * 8,
}


def rules(world: World) -> str:
    """Return what a service proxy would write."""
    ip = "ip" if world.family is Family.V4 else "ip6"
    node = world.ELSEWHERE if world.family is Family.V4 else f"[{world.ELSEWHERE}]"
    service = f"{ip} daddr {SERVICE[world.family]} udp dport"
    return f"""
table {ip} proxy {{
    chain prerouting {{
        type nat hook prerouting priority -100;
        {service} {TO_TUNNEL} dnat to {node}:{TUNNEL_PORT}
        {service} {TO_OTHER} dnat to {node}:{TUNNEL_PORT + 1}
    }}
}}
"""


@pytest.fixture(scope="module")
def one_forwarder() -> Iterator[Forwarder]:
    """A node for all tests here."""
    with forwarding() as forwarder:
        yield forwarder


@pytest.fixture
def forwarder(one_forwarder: Forwarder, world: World) -> Iterator[Forwarder]:
    """A node with all its hooks, and a service that stands for another node."""
    one_forwarder.start(world)
    one_forwarder.guard()
    one_forwarder.hook_pod()
    neighbour = (world.ELSEWHERE, "lladdr", ROUTER_MAC, "dev", "uplink")
    one_forwarder.node.ip("neighbour", "replace", *neighbour)
    ip = "ip" if world.family is Family.V4 else "ip6"
    _nft(one_forwarder, rules(world))
    yield one_forwarder
    _nft(one_forwarder, f"delete table {ip} proxy\n")


def _nft(forwarder: Forwarder, text: str) -> None:
    forwarder.node.inside(
        lambda: subprocess.run(("nft", "-f", "-"), input=text, text=True, check=True)
    )


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("pod", ["LOCAL_POD", "FREE_POD", "UNKNOWN_POD"])
def test_no_service_leads_a_pod_to_the_tunnel_port(
    forwarder: Forwarder, world: World, pod: str, headers: tuple[Extension, ...]
) -> None:
    if headers and world.family is Family.V4:
        pytest.skip("IPv4 has no extension headers")
    service = SERVICE[world.family]
    packet = outbound(UDP_NAME, world.address(pod), service).but(extensions=headers)

    assert None is forwarder.send(packet.but(destination_port=TO_TUNNEL).build())
    assert {(Reason.DROP_FORGED_TUNNEL, OUT, 0): 1} == forwarder.node.counts()


def test_a_service_leads_to_other_ports_of_nodes(
    forwarder: Forwarder, world: World
) -> None:
    packet = outbound(UDP_NAME, world.FREE_POD, SERVICE[world.family])
    seen = forwarder.send(packet.but(destination_port=TO_OTHER).build())

    assert world.HERE == source_of(seen or b"")
    assert {} == forwarder.node.counts()
