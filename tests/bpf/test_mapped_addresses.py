"""
IPv4-mapped addresses (::ffff:a.b.c.d) in the header of a packet.

In our maps they mean an IPv4 address; on the wire they mean nothing, and Linux takes no
packet from one (draft-itojun-v6ops-v4mapped-harmful).  Nobody may use one for another.
"""

from ipaddress import ip_address, ip_network

import pytest

from bpf import outer
from bpf.harness import DROP, PASS, REDIRECT, Node, Outcome, needs_root
from bpf.packets import PROTOCOLS, UDP_NAME, outbound
from bpf.world import IPV4, IPV6, IPV6_OVER_IPV4, POLICY, World, gateway_entries
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.kernel.settings import TunnelWay
from outgate.state.entries import CoveredEntry, CoveredKey, Hook

pytestmark = [
    needs_root,
    pytest.mark.kernel,
    pytest.mark.parametrize("world", [IPV6, IPV6_OVER_IPV4], ids=lambda w: w.name),
]

OUT = MetricDirection.TO_WORLD


def mapped(address: str) -> str:
    """Return an IPv4 address in IPv6's clothes."""
    return f"::ffff:{address}"


@pytest.fixture
def both(node: Node, world: World) -> Node:
    """The gateway in a cluster of both families, all that a pod sends covered."""
    node.put(gateway_entries(IPV4))
    node.put({world.row(world.LOCAL_POD, "::/0"): world.via(world.HERE)})
    node.put({CoveredKey(ip_network("::/0")): CoveredEntry(POLICY)})
    return node


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("to", ["REMOTE_POD", "ELSEWHERE", "HERE", "SERVER"])
def test_no_covered_packet_passes_for_one_to_the_cluster(
    both: Node, world: World, to: str, protocol: str
) -> None:
    """As an IPv4 address it were a pod's or a node's, which no policy means."""
    packet = outbound(protocol, world.LOCAL_POD, mapped(IPV4.address(to)))
    frame = packet.build()

    assert Outcome(DROP, frame, 0) == both.run(Hook.FROM_CONTAINER, frame)
    assert Outcome(DROP, frame, 0) == both.run(Hook.TO_NETDEV, frame)
    assert {(Reason.DROP_INVALID, OUT, 0): 2} == both.counts()


@pytest.mark.parametrize("end", ["source", "here", ""])
def test_no_node_tunnels_from_or_to_one(
    both: Node, world: World, tunnel_way: TunnelWay, end: str
) -> None:
    """The host refuses such a packet; it must not be out of its tunnel before."""
    source, here = IPV6.worker, ip_address(IPV6.HERE)
    if end == "source":
        source = ip_address(mapped(str(IPV4.worker)))
    elif end == "here":
        here = ip_address(mapped(IPV4.HERE))
    inner = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER).build()
    frame = outer.wrap(inner, source, here=here)
    seen = both.run(Hook.FROM_NETDEV, frame)

    if not end and tunnel_way is TunnelWay.AUTO:
        assert seen.verdict == REDIRECT
    else:
        assert Outcome(PASS, frame, 0) == seen


@pytest.mark.parametrize("source", ["LOCAL_POD", "HERE", "ELSEWHERE", "SERVER"])
def test_no_pod_sends_from_one(both: Node, world: World, source: str) -> None:
    packet = outbound(UDP_NAME, mapped(IPV4.address(source)), world.SERVER)
    frame = packet.build()

    assert Outcome(DROP, frame, 0) == both.run(Hook.FROM_CONTAINER, frame)
    assert {(Reason.DROP_INVALID, OUT, 0): 1} == both.counts()


def test_the_tunnel_takes_none(both: Node, world: World) -> None:
    remote = mapped(IPV4.REMOTE_POD)
    for source, destination in (
        (remote, world.SERVER),
        (world.REMOTE_POD, mapped(IPV4.SERVER)),
        (world.SERVER, mapped(IPV4.LOCAL_POD)),
    ):
        frame = outbound(UDP_NAME, source, destination).build()
        outcome = both.run(Hook.FROM_OVERLAY, frame, tunnel=world.worker)
        assert Outcome(DROP, frame, 0) == outcome


def test_what_the_wire_brings_is_left_to_the_host(both: Node, world: World) -> None:
    frame = outbound(UDP_NAME, mapped(IPV4.SERVER), world.HERE).build()

    assert Outcome(PASS, frame, 0) == both.run(Hook.FROM_NETDEV, frame)
