"""Pods that no policy selects are let pass at once, and covered the moment one does."""

import asyncio
import random
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from bpf.harness import (
    DROP,
    MARK_SEEN,
    PASS,
    REDIRECT,
    MakeNode,
    Node,
    Outcome,
    Setup,
    needs_root,
)
from bpf.packets import PROTOCOLS, TCP_NAME, UDP_NAME, Packet, outbound
from bpf.world import World
from outgate.kernel.free import FreeAddresses
from outgate.kernel.maps import FLOWS, MapName
from outgate.kernel.reasons import Reason
from outgate.kernel.settings import OtherFamily
from outgate.state.entries import (
    Address,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Family,
    Hook,
)

pytestmark = [needs_root, pytest.mark.kernel]

PODS = 20
OTHER_INTERFACE = 1
KNOWN = EndpointEntry(EndpointFlag.POD)
"""A pod that has no rows, as the control plane knows."""


def some_pods(world: World) -> list[Address]:
    """Return addresses of which no two differ in one place alone."""
    chance = random.Random(5)
    if world.family is Family.V4:
        return [IPv4Address(chance.getrandbits(32)) for _ in range(PODS)]
    return [IPv6Address(chance.getrandbits(128)) for _ in range(PODS)]


def send(node: Node, packet: Packet, ifindex: int = 0) -> Outcome:
    return node.run(Hook.FROM_CONTAINER, packet.build(), ifindex=ifindex)


def begin_anew(node: Node) -> None:
    """Say once more who is free, as an agent that finds no rows."""
    with ExitStack() as stack:
        names = (MapName.FREE, *FLOWS.values())
        maps = {name: stack.enter_context(node.table(name)) for name in names}
        with node.table(MapName.FREE) as table:
            table.put_many({key: bytes(8) for key, _ in table.rows()})
        asyncio.run(FreeAddresses(maps).begin(()))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pod_that_no_policy_selects_is_left_alone(
    world: World, node: Node, protocol: str
) -> None:
    packet = outbound(protocol, world.FREE_POD, world.SERVER)

    assert send(node, packet) == Outcome(PASS, packet.build(), MARK_SEEN)
    assert not node.flows()


def test_a_row_counts_from_the_moment_it_is_there(world: World, node: Node) -> None:
    """Whatever else is known of the pod: programs and agents agree on its bit."""
    for pod in some_pods(world):
        packet = outbound(UDP_NAME, str(pod), world.SERVER)
        node.put({EndpointKey(pod): KNOWN})
        before = send(node, packet)
        node.put({world.row(str(pod), world.NETWORK): world.via(world.ELSEWHERE)})

        assert before == Outcome(PASS, packet.build(), MARK_SEEN)
        assert send(node, packet) == Outcome(REDIRECT, packet.build(), 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_flow_outlives_its_row_and_the_agent(
    world: World, node: Node, protocol: str
) -> None:
    pod = world.FREE_POD
    row = world.row(pod, world.NETWORK)
    node.put({row: world.via(world.ELSEWHERE)})
    packet = outbound(protocol, pod, world.SERVER)
    send(node, packet)
    node.run(Hook.FROM_OVERLAY, packet.reply().build(), tunnel=world.worker)
    node.remove(row)
    begin_anew(node)
    later, new = packet.but(flags="A"), outbound(protocol, pod, world.OTHER_SERVER)

    assert send(node, later) == Outcome(REDIRECT, later.build(), 0)
    assert send(node, new) == Outcome(PASS, new.build(), MARK_SEEN)


def test_a_free_address_behind_another_interface_is_looked_at(
    world: World, node: Node
) -> None:
    packet = outbound(TCP_NAME, world.FREE_POD, world.SERVER)
    send(node, packet)

    assert send(node, packet, OTHER_INTERFACE).verdict == DROP
    assert [reason for reason, _, _ in node.counts()] == [Reason.DROP_OTHER_INTERFACE]


def test_an_address_that_is_no_known_pods_is_not_free(world: World, node: Node) -> None:
    node.remove(EndpointKey(ip_address(world.FREE_POD)))
    packet = outbound(TCP_NAME, world.FREE_POD, world.SERVER)

    assert send(node, packet).verdict == DROP
    assert [reason for reason, _, _ in node.counts()] == [Reason.DROP_UNKNOWN_POD]


def test_a_free_pod_may_not_send_into_the_tunnel(world: World, node: Node) -> None:
    packet = outbound(UDP_NAME, world.FREE_POD, world.HERE).but(destination_port=8472)

    assert send(node, packet).verdict == DROP
    assert [reason for reason, _, _ in node.counts()] == [Reason.DROP_FORGED_TUNNEL]


def test_a_pod_that_is_selected_in_the_other_family_is_not_free(
    world: World, make_node: MakeNode
) -> None:
    node = make_node(Setup(other_family=OtherFamily.DROP))
    pod = ip_address(world.FREE_POD)
    node.put({EndpointKey(pod): EndpointEntry(EndpointFlag.POD, is_other_family=True)})
    there = outbound(TCP_NAME, world.FREE_POD, world.OTHER_SERVER)
    call = there.but(source_port=40001).reply().but(flags="S")
    node.run(Hook.TO_CONTAINER, call.build())
    answer = call.reply()

    assert send(node, there).verdict == DROP
    assert send(node, answer) == Outcome(PASS, answer.build(), MARK_SEEN)
