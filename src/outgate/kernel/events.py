"""
What programs tell of: ``struct event`` of ``bpf/include/types.h``, decoded for people.

Flows opened and closed, mappings made and released, drops (at most 50 a second of each
program on each CPU).  Pure: ``kernel.ring`` reads the bytes, ``outgate monitor`` prints
what is decoded here.
"""

from dataclasses import dataclass
from enum import IntEnum

from outgate.kernel.layouts import EVENT, unpack_padded
from outgate.kernel.reasons import reason_name
from outgate.kernel.records import FlowDecision, MetricDirection
from outgate.state.entries import Address, PolicyId


class EventKind(IntEnum):
    """``enum event_kind``."""

    FLOW_OPENED = 1
    FLOW_CLOSED = 2
    NAT_MADE = 3
    NAT_RELEASED = 4
    DROP = 5


@dataclass(frozen=True, slots=True)
class Event:
    """
    One thing that happened to a flow or a packet.

    Shape: source and destination are as the pod writes them; of a drop, as the packet
    had them.  *translated* is the egress IP, None where none applies; *decision* is of
    flows, *reason* (a name) of drops.

    Units: *nanoseconds* are of CLOCK_MONOTONIC; *protocol* is IANA's number.
    """

    nanoseconds: int
    kind: EventKind
    direction: MetricDirection
    policy: PolicyId
    source: Address
    source_port: int
    destination: Address
    destination_port: int
    protocol: int
    translated: Address | None = None
    translated_port: int = 0
    decision: FlowDecision | None = None
    reason: str = ""


def decode_event(record: bytes) -> Event | None:
    """Return the event in a record of the ring; None for one of another version."""
    if len(record) != EVENT.size:
        return None
    time, kind, family, direction, reason, policy, *addresses, protocol, decision = (
        EVENT.unpack(record)
    )
    source, destination, translated, *ports = addresses
    try:
        event_kind = EventKind(kind)
        becomes = unpack_padded(translated, family)
        return Event(
            time,
            event_kind,
            MetricDirection(direction),
            PolicyId(policy),
            unpack_padded(source, family),
            _port(ports[0]),
            unpack_padded(destination, family),
            _port(ports[1]),
            protocol,
            becomes if int(becomes) else None,
            _port(ports[2]),
            FlowDecision(decision) if decision else None,
            reason_name(reason) if event_kind is EventKind.DROP else "",
        )
    except ValueError:
        return None


def _port(packed: bytes) -> int:
    return int.from_bytes(packed, "big")
