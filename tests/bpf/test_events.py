"""What programs tell of: each event with all its fields, for every family."""

import math
import time
from ipaddress import ip_address

import pytest

from bpf.harness import DROP, Node, needs_root
from bpf.packets import PROTOCOLS, TCP_NAME, UDP_NAME, Packet, outbound
from bpf.world import POLICY, World
from outgate.kernel.events import Event, EventKind
from outgate.kernel.pinned import possible_cpus
from outgate.kernel.records import FlowDecision, MetricDirection
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

CPUS = possible_cpus()

OPENED, CLOSED, MADE, RELEASED, DROPPED = EventKind


def kinds(events: list[Event]) -> list[EventKind]:
    return [event.kind for event in events]


def who(event: Event) -> tuple[str, int, str, int]:
    return (
        *(str(event.source), event.source_port),
        *(str(event.destination), event.destination_port),
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_new_flow_through_this_gateway_is_told_with_its_mapping(
    node: Node, world: World, protocol: str
) -> None:
    packet = outbound(protocol, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    mapping, flow = sorted(node.events(), key=lambda e: -e.kind)

    expected = (world.LOCAL_POD, 40000, world.SERVER, packet.destination_port)
    assert (MADE, OPENED) == (mapping.kind, flow.kind)
    assert expected == who(mapping) == who(flow)
    assert ip_address(world.HERE) == mapping.translated == flow.translated
    assert 40000 == mapping.translated_port
    assert FlowDecision.LOCAL_GATEWAY is flow.decision
    assert POLICY == mapping.policy == flow.policy


def test_later_packets_are_not_told(node: Node, world: World) -> None:
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.events()
    for flags in ("S", "A", "FA"):
        node.run(Hook.FROM_CONTAINER, packet.but(flags=flags).build())

    assert [] == node.events()


def test_a_flow_that_began_outside_is_told_as_such(node: Node, world: World) -> None:
    packet = outbound(TCP_NAME, world.SERVER, world.LOCAL_POD)
    node.run(Hook.TO_CONTAINER, packet.build())
    (event,) = node.events()

    assert (OPENED, FlowDecision.INBOUND) == (event.kind, event.decision)
    assert MetricDirection.TO_POD is event.direction
    assert None is event.translated


def test_what_is_collected_is_told(node: Node, world: World) -> None:
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    node.events()
    node.age(301)
    node.collect()
    told = node.events()

    assert {CLOSED, RELEASED} == set(kinds(told))
    assert 2 == len(told)
    assert {POLICY} == {event.policy for event in told}
    (released,) = (event for event in told if event.kind is RELEASED)
    assert (ip_address(world.HERE), 40000) == (
        released.translated,
        released.translated_port,
    )


def test_another_egress_ip_is_told_as_one_released_and_one_made(
    node: Node, world: World
) -> None:
    packet = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    row = world.row(world.REMOTE_POD, world.NETWORK)
    node.put({row: world.via(world.HERE, world.OTHER_EGRESS_IP)})
    node.events()
    node.age(2)
    node.run(Hook.FROM_OVERLAY, packet.build(), tunnel=world.worker)
    told = node.events()

    assert [RELEASED, MADE] == kinds(told)
    expected = [ip_address(world.HERE), ip_address(world.OTHER_EGRESS_IP)]
    assert expected == [event.translated for event in told]


@pytest.mark.parametrize(
    ("source", "destination", "reason"),
    [
        ("UNKNOWN_POD", "SERVER", "drop_unknown_pod"),
        ("LOCAL_POD", "NO_GATEWAY_SERVER", "drop_no_gateway"),
        ("LOCAL_POD", "NO_EGRESS_IP_SERVER", "drop_no_egress_ip"),
    ],
)
def test_a_drop_is_told_with_its_reason(
    node: Node, world: World, source: str, destination: str, reason: str
) -> None:
    packet = outbound(TCP_NAME, world.address(source), world.address(destination))
    (event,) = dropped_until_told(node, packet)

    assert (DROPPED, reason) == (event.kind, event.reason)
    expected = (packet.source, 40000, packet.destination, 80)
    assert expected == who(event)
    assert MetricDirection.TO_WORLD is event.direction


def dropped_until_told(node: Node, packet: Packet) -> list[Event]:
    """Other tests of the same second may have used up what a CPU may tell."""
    deadline = time.monotonic() + 5
    while not (told := node.events()):
        assert time.monotonic() < deadline
        assert DROP == node.run(Hook.FROM_CONTAINER, packet.build()).verdict
    return told


def test_no_more_than_fifty_drops_a_second_are_told(node: Node, world: World) -> None:
    packet = outbound(TCP_NAME, world.UNKNOWN_POD, world.SERVER)
    dropped_until_told(node, packet)
    begun = time.monotonic()
    for _ in range(300):
        node.run(Hook.FROM_CONTAINER, packet.build())
    seconds = math.ceil(time.monotonic() - begun) + 1

    assert len(node.events()) <= 50 * seconds * CPUS
