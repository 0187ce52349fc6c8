"""forward-guard: real packets through the host's stack, with and without the hooks."""

from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw

from bpf.forwarding import ROUTER_MAC, UPLINK_MAC, Forwarder, forwarding, on_wire
from bpf.harness import MARK_OVERLAY, MARK_SEEN, MARK_TRANSLATED, Node, needs_root
from bpf.packets import HOST_MAC, POD_MAC, PROTOCOLS, TCP_NAME, UDP_NAME, outbound
from bpf.world import (
    FREE_POD,
    HERE,
    LOCAL_POD,
    OTHER_SERVER,
    POLICY,
    REMOTE_POD,
    SERVER,
    UNKNOWN_POD,
)
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD
OTHERS = 0xFFFFFF8F
"""Every bit of a mark that is not ours."""

UNSEEN = {(Reason.DROP_UNSEEN_POD, OUT, POLICY): 1}
UNTRANSLATED = {(Reason.DROP_UNTRANSLATED, OUT, 0): 1}


@pytest.fixture
def forwarder(node: Node) -> Iterator[Forwarder]:
    """A guarded node whose pod's veth has no program yet."""
    with forwarding(node) as forwarder:
        forwarder.guard()
        yield forwarder


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_the_guard_an_unhooked_pod_leaves_as_the_node(
    node: Node, protocol: str
) -> None:
    """The hole: to-netdev sees the node's own address."""
    packet = outbound(protocol, LOCAL_POD, SERVER)
    with forwarding(node) as forwarder:
        assert on_wire(packet.but(source=HERE)) == forwarder.send(packet.build())


@pytest.mark.parametrize("pod", [LOCAL_POD, FREE_POD, UNKNOWN_POD])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_forward_guard_drops_an_unhooked_pods_packet_to_a_covered_network(
    node: Node, forwarder: Forwarder, protocol: str, pod: str
) -> None:
    packet = outbound(protocol, pod, SERVER)

    assert None is forwarder.send(packet.build())
    assert UNSEEN == node.counts()


@pytest.mark.parametrize(
    "frame",
    [
        Ether(src=POD_MAC, dst=HOST_MAC) / IP(src=LOCAL_POD, dst=SERVER) / payload
        for payload in (GRE(), ICMP(type=3, code=1) / Raw(bytes(28)))
    ],
    ids=["gre", "icmp-error"],
)
def test_forward_guard_drops_protocols_that_nobody_translates(
    node: Node, forwarder: Forwarder, frame: Ether
) -> None:
    assert None is forwarder.send(bytes(frame))
    assert UNSEEN == node.counts()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_forward_guard_lets_an_unhooked_pod_reach_what_no_policy_covers(
    node: Node, forwarder: Forwarder, protocol: str
) -> None:
    packet = outbound(protocol, UNKNOWN_POD, OTHER_SERVER)

    assert on_wire(packet.but(source=HERE)) == forwarder.send(packet.build())
    assert {} == node.counts()


def test_forward_guard_lets_an_unhooked_pod_reach_the_cluster(
    node: Node, forwarder: Forwarder
) -> None:
    """10.0.0.0/8 is covered, and 10.0.1.42 is a pod of another node."""
    packet = outbound(TCP_NAME, LOCAL_POD, REMOTE_POD)

    assert on_wire(packet) == forwarder.send(packet.build())
    assert {} == node.counts()


@pytest.mark.parametrize("source", [REMOTE_POD, "192.0.2.77"])
def test_forward_guard_leaves_what_comes_from_elsewhere_to_the_host(
    node: Node, forwarder: Forwarder, source: str
) -> None:
    """A pod of another node is that node's to guard; to-netdev has its own say."""
    forwarder.send(outbound(TCP_NAME, source, SERVER).build())

    assert (Reason.DROP_UNSEEN_POD, OUT, POLICY) not in node.counts()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_forward_guard_lets_a_hooked_pod_without_a_policy_pass(
    node: Node, forwarder: Forwarder, protocol: str
) -> None:
    forwarder.hook_pod()
    packet = outbound(protocol, FREE_POD, SERVER)

    assert on_wire(packet.but(source=HERE)) == forwarder.send(packet.build())
    assert {} == node.counts()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_forward_guard_lets_a_hooked_pod_answer_who_called_it(
    node: Node, forwarder: Forwarder, protocol: str
) -> None:
    macs = {"source_mac": ROUTER_MAC, "destination_mac": UPLINK_MAC}
    request = outbound(protocol, SERVER, LOCAL_POD).but(**macs)
    forwarder.hook_pod()
    received = forwarder.receive(request.build())
    to_pod = request.but(ttl=63, source_mac=HOST_MAC, destination_mac=POD_MAC)
    reply = to_pod.reply().but(ttl=64)

    assert to_pod.build() == received
    assert on_wire(reply) == forwarder.send(reply.build())
    assert {} == node.counts()


def test_forward_guard_drops_an_answer_that_from_container_never_saw(
    node: Node, forwarder: Forwarder
) -> None:
    """Who called cannot be told without the hooks: closed by default."""
    macs = {"source_mac": ROUTER_MAC, "destination_mac": UPLINK_MAC}
    request = outbound(UDP_NAME, SERVER, LOCAL_POD).but(**macs)
    forwarder.receive(request.build())
    reply = request.reply().but(source_mac=POD_MAC, destination_mac=HOST_MAC)

    assert None is forwarder.send(reply.build())
    assert UNSEEN == node.counts()


@pytest.mark.parametrize("others", [0, OTHERS])
@pytest.mark.parametrize(
    ("mark", "counts"),
    [
        (MARK_SEEN, {}),
        (MARK_OVERLAY, UNTRANSLATED),
        (MARK_TRANSLATED, UNSEEN),
        (0, UNSEEN),
        (MARK_SEEN | MARK_TRANSLATED, UNSEEN),
    ],
    ids=["seen", "overlay", "translated", "none", "two"],
)
def test_forward_guard_believes_only_its_own_marks(
    node: Node, forwarder: Forwarder, mark: int, counts: dict[object, int], others: int
) -> None:
    """Overlay gets as far as to-netdev, which finds no flow for it."""
    packet = outbound(TCP_NAME, FREE_POD, SERVER)
    expected = on_wire(packet.but(source=HERE)) if not counts else None

    assert expected == forwarder.send(packet.build(), mark | others)
    assert counts == node.counts()
