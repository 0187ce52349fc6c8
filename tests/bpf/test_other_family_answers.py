"""
What a pod answers in the family that no policy of it covers: it is left alone.

The setting ``other-family`` is about what the pod begins; who called it gets an answer,
as in the family that a policy does cover.
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
from bpf.packets import PROTOCOLS, TCP_NAME, UDP_NAME, outbound, parts
from bpf.sctp import association
from bpf.world import World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.kernel.settings import OtherFamily
from outgate.state.entries import EndpointEntry, EndpointFlag, EndpointKey, Hook

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD
SERVERS = pytest.mark.parametrize("server", ["SERVER", "OTHER_SERVER"])


@pytest.fixture
def node(make_node: MakeNode, world: World) -> Node:
    """A gateway that drops, and whose FREE_POD has a policy in the other family."""
    node = make_node(Setup(other_family=OtherFamily.DROP))
    entry = EndpointEntry(EndpointFlag.POD, is_other_family=True)
    node.put({EndpointKey(ip_address(world.FREE_POD)): entry})
    return node


@SERVERS
@pytest.mark.parametrize("protocol", [*PROTOCOLS, "sctp"])
def test_who_called_gets_an_answer(
    node: Node, world: World, protocol: str, server: str
) -> None:
    caller = world.address(server)
    request = outbound(protocol, caller, world.FREE_POD)
    if protocol == "sctp":
        request = association(caller, world.FREE_POD)
    received = node.run(Hook.TO_CONTAINER, request.build())
    for flags in ("SA", "A", "FA"):
        reply = request.reply().but(flags=flags).build()
        sent = node.run(Hook.FROM_CONTAINER, reply)
        assert Outcome(PASS, reply, MARK_SEEN) == sent

    assert Outcome(PASS, request.build(), 0) == received
    assert {} == node.counts()


@SERVERS
def test_who_called_hears_of_errors(node: Node, world: World, server: str) -> None:
    request = outbound(UDP_NAME, world.address(server), world.FREE_POD)
    node.run(Hook.TO_CONTAINER, request.build())
    error = IcmpError(world.FREE_POD, request).build()

    assert Outcome(PASS, error, MARK_SEEN) == node.run(Hook.FROM_CONTAINER, error)


def test_who_called_gets_an_answer_in_parts(node: Node, world: World) -> None:
    request = outbound(UDP_NAME, world.OTHER_SERVER, world.FREE_POD)
    node.run(Hook.TO_CONTAINER, request.build())
    for part in parts(request.reply().but(payload=bytes(3000)).build(), 11):
        assert Outcome(PASS, part, MARK_SEEN) == node.run(Hook.FROM_CONTAINER, part)


@SERVERS
def test_a_call_does_not_open_the_way_for_the_pods_own_flows(
    node: Node, world: World, server: str
) -> None:
    """Neither on other ports nor, where the packet says so, on the same."""
    request = outbound(TCP_NAME, world.address(server), world.FREE_POD)
    node.run(Hook.TO_CONTAINER, request.build())
    reply = request.reply()
    for packet in (reply.but(source_port=81), reply.but(flags="S")):
        frame = packet.build()
        assert Outcome(DROP, frame, 0) == node.run(Hook.FROM_CONTAINER, frame)

    assert {(Reason.DROP_OTHER_FAMILY, OUT, 0): 2} == node.counts()


@pytest.mark.parametrize("caller", ["REMOTE_POD", "ELSEWHERE"])
def test_calls_from_the_cluster_need_no_entry(
    node: Node, world: World, caller: str
) -> None:
    request = outbound(TCP_NAME, world.address(caller), world.FREE_POD)
    node.run(Hook.TO_CONTAINER, request.build())
    reply = request.reply().build()

    assert {} == node.flows()
    assert Outcome(PASS, reply, MARK_SEEN) == node.run(Hook.FROM_CONTAINER, reply)


def test_without_drop_calls_need_no_entry(world: World, make_node: MakeNode) -> None:
    """Which the answers show: they are counted."""
    node = make_node(Setup())
    entry = EndpointEntry(EndpointFlag.POD, is_other_family=True)
    node.put({EndpointKey(ip_address(world.FREE_POD)): entry})
    request = outbound(TCP_NAME, world.OTHER_SERVER, world.FREE_POD)
    node.run(Hook.TO_CONTAINER, request.build())
    reply = request.reply().build()
    sent = node.run(Hook.FROM_CONTAINER, reply)

    assert (Outcome(PASS, reply, MARK_SEEN), {}) == (sent, node.flows())
    assert {(Reason.OTHER_FAMILY, OUT, 0): 1} == node.counts()
