"""Flows that begin outside: remembered by to-container, their replies left alone."""

import pytest

from bpf.harness import (
    MARK_SEEN,
    PASS,
    REDIRECT,
    Node,
    Outcome,
    needs_root,
)
from bpf.packets import (
    ECHO_NAME,
    PROTOCOLS,
    TCP_NAME,
    Packet,
    outbound,
)
from bpf.world import World
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]


def send(node: Node, packet: Packet) -> Outcome:
    return node.run(Hook.FROM_CONTAINER, packet.build())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_from_container_leaves_replies_of_inbound_flows_alone(
    node: Node, world: World, protocol: str
) -> None:
    request = outbound(protocol, world.SERVER, world.TUNNELLED_POD)
    received = node.run(Hook.TO_CONTAINER, request.build())
    reply = request.reply()

    assert Outcome(PASS, request.build(), 0) == received
    assert Outcome(PASS, reply.build(), MARK_SEEN) == send(node, reply)


def test_from_container_captures_a_flow_that_only_looks_inbound(
    node: Node, world: World
) -> None:
    """The same tuple began outside before; now the pod begins it: policy decides."""
    request = outbound(TCP_NAME, world.SERVER, world.TUNNELLED_POD)
    node.run(Hook.TO_CONTAINER, request.build())

    assert REDIRECT == send(node, request.reply().but(flags="S")).verdict


def test_to_container_remembers_nothing_for_uncovered_pairs(
    node: Node, world: World
) -> None:
    request = outbound(TCP_NAME, world.SERVER, world.FREE_POD)
    node.run(Hook.TO_CONTAINER, request.build())

    assert {} == node.flows()


def test_to_container_does_not_take_a_late_packet_for_a_beginning(
    node: Node, world: World
) -> None:
    request = outbound(TCP_NAME, world.SERVER, world.TUNNELLED_POD).but(flags="A")
    node.run(Hook.TO_CONTAINER, request.build())

    assert {} == node.flows()


def test_echo_ids_of_both_sides_do_not_mix(node: Node, world: World) -> None:
    """A ping from outside and one from the pod may use the same identifier."""
    ping = outbound(ECHO_NAME, world.SERVER, world.TUNNELLED_POD, port=9)
    node.run(Hook.TO_CONTAINER, ping.build())
    own = outbound(ECHO_NAME, world.TUNNELLED_POD, world.SERVER, port=9)

    assert (PASS, REDIRECT) == (
        send(node, ping.reply()).verdict,
        send(node, own).verdict,
    )
