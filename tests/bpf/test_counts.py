"""What was sent on is counted by policy, exactly, whichever map has room for it."""

from dataclasses import replace

import pytest

from bpf.harness import Node, needs_root
from bpf.packets import TCP_NAME, Packet, outbound
from bpf.world import POLICY, World
from outgate.kernel.maps import MapName
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import Hook, PolicyId

pytestmark = [needs_root, pytest.mark.kernel]

SLOTS = 1024
OUT, BACK = MetricDirection.TO_WORLD, MetricDirection.TO_POD


def send(node: Node, world: World, policy: int, port: int) -> Packet:
    """Let a pod that *policy* covers send a packet of a new flow."""
    row = replace(world.via(world.ELSEWHERE), policy=PolicyId(policy))
    node.put({world.row(world.TUNNELLED_POD, world.NETWORK): row})
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER, port)
    node.run(Hook.FROM_CONTAINER, packet.build())
    return packet


def hash_rows(node: Node) -> int:
    with node.table(MapName.METRICS) as table:
        return sum(1 for _ in table.rows())


def test_both_directions_of_a_policy_are_counted(world: World, node: Node) -> None:
    packet = send(node, world, POLICY, 40000)
    node.run(Hook.FROM_OVERLAY, packet.reply().build(), tunnel=world.worker)
    send(node, world, POLICY, 40001)
    forwarded = Reason.FORWARDED

    assert node.counts() == {(forwarded, OUT, POLICY): 2, (forwarded, BACK, POLICY): 1}
    assert not hash_rows(node)


def test_policies_that_share_a_slot_are_counted_each(world: World, node: Node) -> None:
    """The first has the slot, the others count in the hash, in any order."""
    policies = POLICY, POLICY + SLOTS, POLICY + 7 * SLOTS
    for port, policy in enumerate(policies * 3, 40000):
        send(node, world, policy, port)

    assert node.counts() == {(Reason.FORWARDED, OUT, p): 3 for p in policies}
    assert hash_rows(node) == len(policies) - 1


def test_drops_are_counted_apart_from_what_is_sent_on(world: World, node: Node) -> None:
    send(node, world, POLICY, 40000)
    refused = outbound(TCP_NAME, world.TUNNELLED_POD, world.NO_GATEWAY_SERVER)
    node.run(Hook.FROM_CONTAINER, refused.build())

    assert node.counts() == {
        (Reason.FORWARDED, OUT, POLICY): 1,
        (Reason.DROP_NO_GATEWAY, OUT, POLICY): 1,
    }


def test_bytes_are_counted_with_packets(world: World, node: Node) -> None:
    size = len(send(node, world, POLICY, 40000).build())
    (first,) = node.count_records()
    send(node, world, POLICY, 40001)
    (both,) = node.count_records()

    assert (first.packets, both.packets) == (1, 2)
    assert both.byte_count == 2 * first.byte_count >= 2 * size
