"""
What IPv6 says to its link, neighbour discovery and multicast listening: left alone.

Also where a policy covers all there is, and also from a pod that is not known yet: a
pod that cannot find its router has no network at all.
"""

from ipaddress import ip_address
from itertools import product

import pytest

from bpf.harness import DROP, MARK_SEEN, PASS, Node, Outcome, needs_root
from bpf.icmp_errors import pseudo, with_checksum
from bpf.packets import HOP_BY_HOP, Extension, extended, over_ip
from bpf.world import IPV6, IPV6_OVER_IPV4, POLICY, Rows, World
from outgate.kernel.reasons import Reason
from outgate.state.entries import CoveredEntry, CoveredKey, Hook

pytestmark = [
    needs_root,
    pytest.mark.kernel,
    pytest.mark.parametrize("world", [IPV6, IPV6_OVER_IPV4], ids=lambda w: w.name),
]

ROUTER_ALERT = Extension(HOP_BY_HOP, b"\x00\x05\x02\x00\x00\x01\x00")

LINK_LOCAL, LINK_ROUTER = "fe80::ff:fe00:12a", "fe80::1"
NOBODY = "::"

DISCOVERY = {
    "router-solicitation": (133, "ff02::2"),
    "router-advertisement": (134, "ff02::1"),
    "solicitation": (135, "ff02::1:ff00:1"),
    "solicitation-of-the-router": (135, "fe80::1"),
    "advertisement": (136, "fe80::1"),
    "advertisement-to-all": (136, "ff02::1"),
    "redirect": (137, "fe80::1"),
}
LISTENING = {
    "query": (130, "ff02::1"),
    "report": (131, "ff02::1:ff00:1"),
    "done": (132, "ff02::2"),
    "report-2": (143, "ff02::16"),
}
HOOKS = {Hook.FROM_CONTAINER: MARK_SEEN, Hook.TO_CONTAINER: 0}
HOOKS |= {Hook.FROM_NETDEV: 0, Hook.TO_NETDEV: 0}
SENDERS = [
    *product(HOOKS, (LINK_LOCAL, NOBODY)),
    (Hook.FROM_CONTAINER, "TUNNELLED_POD"),
    *product((Hook.TO_CONTAINER, Hook.FROM_NETDEV, Hook.TO_NETDEV), ("HERE",)),
]


def message(source: str, destination: str, kind: int) -> bytes:
    """Return an ICMPv6 message of the link, with its checksum; its body is zeros."""
    zero = bytes([kind, 0]) + bytes(22)
    content = with_checksum(zero, pseudo(source, destination, len(zero)))
    frame = bytearray(over_ip(source, destination, 58, content))
    frame[21] = 255 if kind in range(133, 138) else 1
    return bytes(frame)


@pytest.fixture
def covering_all(node: Node, world: World) -> Node:
    """A node whose pods' policy covers every network."""
    entries: Rows = {
        world.row(pod, world.EVERYTHING): world.via(world.ELSEWHERE)
        for pod in (world.LOCAL_POD, world.TUNNELLED_POD, LINK_LOCAL)
    }
    everything = CoveredKey(world.row(world.LOCAL_POD, world.EVERYTHING).destination)
    node.put(entries)
    node.put({everything: CoveredEntry(POLICY)})
    return node


@pytest.mark.parametrize(("hook", "source"), SENDERS)
@pytest.mark.parametrize("what", DISCOVERY)
def test_discovery_is_left_alone(
    covering_all: Node, world: World, what: str, hook: Hook, source: str
) -> None:
    kind, destination = DISCOVERY[what]
    sender = world.address(source) if source.isupper() else source
    frame = message(sender, destination, kind)

    assert Outcome(PASS, frame, HOOKS[hook]) == covering_all.run(hook, frame)
    assert ({}, {}) == (covering_all.flows(), covering_all.counts())


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("source", [LINK_LOCAL, NOBODY])
@pytest.mark.parametrize("what", LISTENING)
def test_listening_is_left_alone(
    covering_all: Node, what: str, source: str, hook: Hook
) -> None:
    kind, destination = LISTENING[what]
    frame = extended(message(source, destination, kind), (ROUTER_ALERT,))

    assert Outcome(PASS, frame, HOOKS[hook]) == covering_all.run(hook, frame)
    assert ({}, {}) == (covering_all.flows(), covering_all.counts())


@pytest.mark.parametrize("kind", [135, 136])
@pytest.mark.parametrize("pod", ["TUNNELLED_POD", "UNKNOWN_POD"])
def test_a_pod_may_probe_its_router_by_its_global_address(
    covering_all: Node, world: World, pod: str, kind: int
) -> None:
    frame = message(world.address(pod), world.POD_ROUTER, kind)
    sent = covering_all.run(Hook.FROM_CONTAINER, frame)

    mark = MARK_SEEN if pod == "UNKNOWN_POD" else 0
    assert Outcome(PASS, frame, mark) == sent


@pytest.mark.parametrize("kind", [135, 136])
@pytest.mark.parametrize("hook", [Hook.TO_NETDEV, Hook.FROM_NETDEV])
def test_a_node_may_probe_a_covered_server_on_its_own_link(
    covering_all: Node, world: World, hook: Hook, kind: int
) -> None:
    ends = (world.HERE, world.SERVER)
    source, destination = ends if hook is Hook.TO_NETDEV else reversed(ends)
    frame = message(source, destination, kind)

    assert Outcome(PASS, frame, 0) == covering_all.run(hook, frame)
    assert {} == covering_all.counts()


@pytest.mark.parametrize("source", [LINK_LOCAL, "fe80::dead", NOBODY])
def test_what_a_pod_sends_from_its_link_local_address_is_left_alone(
    covering_all: Node, world: World, source: str
) -> None:
    """No router forwards it, whatever it is sent to."""
    frame = over_ip(source, world.SERVER, 58, bytes([128, 0]) + bytes(6))
    assert ip_address(source).is_link_local or source == NOBODY

    sent = covering_all.run(Hook.FROM_CONTAINER, frame)
    assert Outcome(PASS, frame, MARK_SEEN) == sent


@pytest.mark.parametrize("what", DISCOVERY)
def test_a_pod_may_not_say_it_as_its_node(
    covering_all: Node, world: World, what: str
) -> None:
    kind, destination = DISCOVERY[what]
    frame = message(world.HERE, destination, kind)

    assert Outcome(DROP, frame, 0) == covering_all.run(Hook.FROM_CONTAINER, frame)
    assert [Reason.DROP_FORGED_TUNNEL] == [r for r, _, _ in covering_all.counts()]
