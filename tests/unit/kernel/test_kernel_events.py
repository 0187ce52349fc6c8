"""Records of the ring become events; what is not understood becomes None."""

import re
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from outgate.kernel.events import Event, EventKind, decode_event
from outgate.kernel.layouts import EVENT
from outgate.kernel.records import FlowDecision, MetricDirection
from outgate.state.entries import PolicyId

TYPES = Path(__file__).parents[3] / "bpf" / "include" / "types.h"

POD, SERVER = IPv4Address("10.0.1.42"), IPv4Address("203.0.113.9")
EGRESS_IP = IPv4Address("172.18.0.5")


def record(kind: int, reason: int = 0, decision: int = 0, family: int = 1) -> bytes:
    addresses = (a.packed for a in (POD, SERVER, EGRESS_IP))
    ports = (port.to_bytes(2, "big") for port in (40000, 80, 40001))
    return EVENT.pack(9, kind, family, 1, reason, 77, *addresses, *ports, 6, decision)


def test_a_mapping_has_the_address_and_port_that_the_world_sees() -> None:
    assert decode_event(record(3)) == Event(
        nanoseconds=9,
        kind=EventKind.NAT_MADE,
        direction=MetricDirection.TO_WORLD,
        policy=PolicyId(77),
        source=POD,
        source_port=40000,
        destination=SERVER,
        destination_port=80,
        protocol=6,
        translated=EGRESS_IP,
        translated_port=40001,
    )


def test_a_drop_has_its_reason_by_name() -> None:
    event = decode_event(record(5, reason=12))

    assert event
    assert event.reason == "drop_no_route"


def test_a_flow_has_what_was_decided() -> None:
    event = decode_event(record(1, decision=2))

    assert event
    assert event.decision is FlowDecision.LOCAL_GATEWAY


def test_addresses_are_of_the_events_family() -> None:
    pod, server = IPv6Address("fd00::1"), IPv6Address("2001:db8::1")
    packed = (pod.packed, server.packed, bytes(16), bytes(2), bytes(2), bytes(2))
    event = decode_event(EVENT.pack(0, 1, 2, 1, 0, 0, *packed, 17, 1))

    assert event
    assert (event.source, event.destination) == (pod, server)
    assert event.translated is None


@pytest.mark.parametrize(
    "unknown",
    [b"", bytes(EVENT.size), record(9), record(1, family=3), record(1) + b"x"],
)
def test_an_event_of_another_version_is_none(unknown: bytes) -> None:
    assert decode_event(unknown) is None


def test_kinds_are_those_of_types_h() -> None:
    found = re.findall(r"^\tEVENT_(\w+) = (\d+),$", TYPES.read_text(), re.MULTILINE)

    assert {kind.name: str(kind.value) for kind in EventKind} == dict(found)
