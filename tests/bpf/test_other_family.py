"""
Pods that policies select in the other IP family alone: counted in this one, or dropped.

Whoever writes a policy for IPv4 may not know that the pod speaks IPv6 as well.
"""

from ipaddress import ip_address

import pytest

from bpf.harness import (
    DROP,
    MARK_SEEN,
    PASS,
    MakeNode,
    Node,
    Outcome,
    Setup,
    needs_root,
)
from bpf.icmp_errors import IcmpError
from bpf.packets import PROTOCOLS, TCP_NAME, UDP_NAME, fragment, outbound, over_ip
from bpf.world import World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.kernel.settings import OtherFamily
from outgate.state.entries import (
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Hook,
)

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD
COUNTED = {(Reason.OTHER_FAMILY, OUT, 0): 1}
DROPPED = {(Reason.DROP_OTHER_FAMILY, OUT, 0): 1}


@pytest.fixture(params=list(OtherFamily))
def setting(request: pytest.FixtureRequest) -> OtherFamily:
    """The setting ``other-family``."""
    setting: OtherFamily = request.param
    return setting


@pytest.fixture
def node(make_node: MakeNode, world: World, setting: OtherFamily) -> Node:
    """The gateway, whose FREE_POD has a policy in the other family."""
    node = make_node(Setup(other_family=setting))
    entry = EndpointEntry(EndpointFlag.POD, is_other_family=True)
    node.put({EndpointKey(ip_address(world.FREE_POD)): entry})
    return node


def assert_treated(node: Node, frame: bytes, setting: OtherFamily) -> None:
    """Assert that *frame* is left alone and counted, or dropped."""
    sent = node.run(Hook.FROM_CONTAINER, frame)
    if setting is OtherFamily.DROP:
        assert (Outcome(DROP, frame, 0), DROPPED) == (sent, node.counts())
    else:
        assert (Outcome(PASS, frame, MARK_SEEN), COUNTED) == (sent, node.counts())
    assert ({}, {}) == (node.flows(), node.nats())


@pytest.mark.parametrize("server", ["SERVER", "OTHER_SERVER"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_goes_to_the_world_is_counted_or_dropped(
    node: Node, world: World, protocol: str, server: str, setting: OtherFamily
) -> None:
    packet = outbound(protocol, world.FREE_POD, world.address(server))

    assert_treated(node, packet.build(), setting)


def test_other_protocols_are_no_way_out(
    node: Node, world: World, setting: OtherFamily
) -> None:
    frame = over_ip(world.FREE_POD, world.SERVER, 47, bytes(8))

    assert_treated(node, frame, setting)


@pytest.mark.parametrize(("offset", "more"), [(0, True), (100, False)])
def test_fragments_are_no_way_out(
    node: Node, world: World, setting: OtherFamily, offset: int, more: bool
) -> None:
    packet = outbound(UDP_NAME, world.FREE_POD, world.SERVER)

    assert_treated(node, fragment(packet.build(), offset, more), setting)


def test_errors_are_no_way_out(node: Node, world: World, setting: OtherFamily) -> None:
    quoted = outbound(UDP_NAME, world.SERVER, world.FREE_POD)

    assert_treated(node, IcmpError(world.FREE_POD, quoted).build(), setting)


@pytest.mark.parametrize(
    "destination", ["REMOTE_POD", "LOCAL_POD", "ELSEWHERE", "HERE", "POD_ROUTER"]
)
def test_what_stays_in_the_cluster_is_left_alone(
    node: Node, world: World, destination: str
) -> None:
    packet = outbound(TCP_NAME, world.FREE_POD, world.address(destination)).build()
    sent = node.run(Hook.FROM_CONTAINER, packet)

    assert Outcome(PASS, packet, MARK_SEEN) == sent
    assert {} == node.counts()


def test_a_pod_with_rows_in_this_family_is_not_meant(node: Node, world: World) -> None:
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.OTHER_SERVER).build()
    sent = node.run(Hook.FROM_CONTAINER, packet)

    assert Outcome(PASS, packet, MARK_SEEN) == sent
    assert {} == node.counts()
