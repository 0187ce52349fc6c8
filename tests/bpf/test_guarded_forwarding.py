"""forward-guard as the second line: frames that from-container missed, or misread."""

from collections.abc import Iterator

import pytest

from bpf.forwarding import Forwarder, forwarding, on_wire
from bpf.harness import Node, needs_root
from bpf.packets import PROTOCOLS, TCP_NAME, UDP_NAME, outbound
from bpf.test_closed_by_default import ANYTHING
from bpf.world import POLICY, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection

pytestmark = [needs_root, pytest.mark.kernel]

UNSEEN = {(Reason.DROP_UNSEEN_POD, MetricDirection.TO_WORLD, POLICY): 1}

PRIORITY_TAG = b"\x81\x00\x00\x00"
"""An 802.1Q tag of VLAN 0, which a kernel takes off without any VLAN device."""


@pytest.fixture(scope="module")
def one_forwarder() -> Iterator[Forwarder]:
    """A node for all tests here."""
    with forwarding() as forwarder:
        yield forwarder


@pytest.fixture
def forwarder(one_forwarder: Forwarder, world: World) -> Forwarder:
    """The node with its guard; the pod's veth has no program yet."""
    one_forwarder.start(world)
    one_forwarder.guard()
    return one_forwarder


@pytest.fixture
def node(one_forwarder: Forwarder) -> Node:
    """The datapath of the same node."""
    return one_forwarder.node


def tagged(frame: bytes, tags: int) -> bytes:
    return frame[:12] + PRIORITY_TAG * tags + frame[12:]


@pytest.mark.parametrize("what", ANYTHING)
@pytest.mark.parametrize("pod", ["LOCAL_POD", "UNKNOWN_POD"])
def test_nothing_of_an_unhooked_pod_reaches_a_covered_network(
    node: Node, world: World, forwarder: Forwarder, pod: str, what: str
) -> None:
    frame = ANYTHING[what](world, world.address(pod))

    assert None is forwarder.send(frame)
    assert UNSEEN == node.counts()


@pytest.mark.parametrize("tags", [2, 3])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tags_that_the_kernel_takes_off_do_not_uncover_a_pod(
    node: Node, world: World, forwarder: Forwarder, protocol: str, tags: int
) -> None:
    """A hook sees the first tag taken off, and the next one in place of IP."""
    forwarder.hook_pod()
    packet = outbound(protocol, world.LOCAL_POD, world.SERVER)

    assert None is forwarder.send(tagged(packet.build(), tags))
    assert UNSEEN == node.counts()


def test_tags_do_not_keep_a_pod_from_what_no_policy_covers(
    node: Node, world: World, forwarder: Forwarder
) -> None:
    forwarder.hook_pod()
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.OTHER_SERVER)
    sent = forwarder.send(tagged(packet.build(), 2))

    assert on_wire(packet.but(source=world.HERE)) == sent
    assert {} == node.counts()


def test_one_tag_hides_nothing(node: Node, world: World, forwarder: Forwarder) -> None:
    """From-container looks behind it: the guard would have another reason."""
    forwarder.hook_pod()
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.NO_GATEWAY_SERVER)

    assert None is forwarder.send(tagged(packet.build(), 1))
    assert {(Reason.DROP_NO_GATEWAY, MetricDirection.TO_WORLD, POLICY): 1} == (
        node.counts()
    )
