"""Events as lines and as JSON, and which of them are wanted."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from outgate.cli.monitor import Filter, event_fields, event_line
from outgate.kernel.events import Event, EventKind
from outgate.kernel.records import FlowDecision, MetricDirection
from outgate.state.entries import PolicyId

NAMES = {77: "CiliumEgressNATPolicy egress-all"}

POD, SERVER = IPv4Address("10.0.1.42"), IPv4Address("203.0.113.9")

MADE = Event(
    nanoseconds=1_500_000_000,
    kind=EventKind.NAT_MADE,
    direction=MetricDirection.TO_WORLD,
    policy=PolicyId(77),
    source=POD,
    source_port=40000,
    destination=SERVER,
    destination_port=80,
    protocol=6,
    translated=IPv4Address("172.18.0.5"),
    translated_port=40001,
)
OPENED = Event(
    nanoseconds=0,
    kind=EventKind.FLOW_OPENED,
    direction=MetricDirection.TO_POD,
    policy=PolicyId(0),
    source=IPv6Address("fd00::1"),
    source_port=80,
    destination=IPv6Address("2001:db8::1"),
    destination_port=40000,
    protocol=17,
    decision=FlowDecision.INBOUND,
)
DROPPED = Event(
    nanoseconds=0,
    kind=EventKind.DROP,
    direction=MetricDirection.TO_WORLD,
    policy=PolicyId(5),
    source=POD,
    source_port=0,
    destination=SERVER,
    destination_port=0,
    protocol=1,
    reason="drop_no_gateway",
)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            MADE,
            "00:00:11.500 nat-made     tcp 10.0.1.42:40000 -> 203.0.113.9:80"
            " as 172.18.0.5:40001 CiliumEgressNATPolicy egress-all",
        ),
        (
            OPENED,
            "00:00:10.000 flow-opened  udp [fd00::1]:80 -> [2001:db8::1]:40000"
            " began outside",
        ),
        (
            DROPPED,
            "00:00:10.000 drop         icmp 10.0.1.42:0 -> 203.0.113.9:0"
            " drop_no_gateway to_world policy 0x00000005",
        ),
    ],
    ids=lambda value: value.kind.name if isinstance(value, Event) else "",
)
def test_an_event_is_one_line(event: Event, line: str) -> None:
    assert line == event_line(event, NAMES, started=10.0)


def test_json_has_the_same_fields_for_every_event() -> None:
    fields = [set(event_fields(e, NAMES, 0.0)) for e in (MADE, OPENED, DROPPED)]

    assert fields[0] == fields[1] == fields[2]


def test_json_has_the_policy_by_name_and_number() -> None:
    fields = event_fields(MADE, NAMES, 10.0)

    assert (fields["policyId"], fields["policy"]) == (77, NAMES[77])
    assert fields["time"] == "1970-01-01T00:00:11.500000+00:00"


@pytest.mark.parametrize(
    ("wanted", "events"),
    [
        (Filter(), [MADE, OPENED, DROPPED]),
        (Filter(kinds=frozenset({"drop"})), [DROPPED]),
        (Filter(kinds=frozenset({"drop", "nat-made"})), [MADE, DROPPED]),
        (Filter(pod=POD), [MADE, DROPPED]),
        (Filter(pod=IPv6Address("2001:db8::1")), [OPENED]),
        (Filter(policy="egress-all"), [MADE]),
        (Filter(policy="CiliumEgressNATPolicy egress-all"), [MADE]),
        (Filter(policy="0x00000005"), [DROPPED]),
        (Filter(kinds=frozenset({"drop"}), policy="egress-all"), []),
    ],
)
def test_only_what_is_wanted_is_printed(wanted: Filter, events: list[Event]) -> None:
    accepted = [e for e in (MADE, OPENED, DROPPED) if wanted.accepts(e, NAMES)]

    assert events == accepted
