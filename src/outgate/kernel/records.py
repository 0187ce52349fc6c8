"""
The rows that programs write: flows, translations and counts, decoded for people.

Pure.  A row is of the family whose size it has (``kernel.layouts``).  Nothing is
encoded here, because nobody but the datapath may write these rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from outgate.kernel.layouts import (
    COLLECTOR,
    FLOW,
    FORWARDED_VALUE,
    FRAGMENT_KEY,
    FRAGMENT_VALUE,
    METRIC_KEY,
    METRIC_VALUE,
    NAT,
    PORTS_KEY,
    PORTS_VALUE,
    TUPLE,
    address,
    pick,
    unpack_endpoint,
)
from outgate.kernel.reasons import Reason
from outgate.state.entries import Address, Family, InterfaceIndex, PolicyId, family_of

NAT_HOST_SOCKET = 1


class FlowDecision(IntEnum):
    """``enum flow_decision``."""

    TO_GATEWAY = 1
    LOCAL_GATEWAY = 2
    INBOUND = 3
    FROM_TUNNEL = 4


class NatDirection(IntEnum):
    """``enum nat_direction``; NONE in tuples of flows."""

    NONE = 0
    FORWARD = 1
    REVERSE = 2


class MetricDirection(IntEnum):
    """``enum metric_direction``; UNKNOWN where the datapath cannot tell."""

    UNKNOWN = 0
    TO_WORLD = 1
    TO_POD = 2


@dataclass(frozen=True, slots=True)
class FlowTuple:
    """Who talks to whom, as the sender writes it; *protocol* is IANA's number."""

    source: Address
    destination: Address
    source_port: int
    destination_port: int
    protocol: int
    direction: NatDirection

    @classmethod
    def decode(cls, key: bytes) -> "FlowTuple":
        """Decode a key of ``outgate_flow_v4``, ``outgate_snat_v4`` or their twins."""
        source, destination, source_port, destination_port, protocol, direction = pick(
            TUPLE, key
        ).unpack(key)
        return cls(
            address(source),
            address(destination),
            int.from_bytes(source_port, "big"),
            int.from_bytes(destination_port, "big"),
            protocol,
            NatDirection(direction),
        )


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """
    What was decided for one flow; *last_seen* is in jiffies of the kernel.

    *tunnel_endpoint* and *egress_ip* are all zero where they do not apply;
    *generation* is that of the policy rows at the decision.
    """

    decision: FlowDecision
    policy: PolicyId
    tunnel_endpoint: Address
    egress_ip: Address
    ifindex: InterfaceIndex
    tcp: int
    last_seen: int
    generation: int = 0

    @classmethod
    def decode(cls, value: bytes) -> "FlowRecord":
        """Decode a value of ``outgate_flow_v4`` or ``_v6``; the MACs are left out."""
        decision, tcp, generation, policy, *rest = pick(FLOW, value).unpack(value)
        endpoint, egress_ip, ifindex, _, _, seen = rest
        return cls(
            FlowDecision(decision),
            PolicyId(policy),
            unpack_endpoint(endpoint),
            address(egress_ip),
            InterfaceIndex(ifindex),
            tcp,
            seen,
            generation,
        )


@dataclass(frozen=True, slots=True)
class NatRecord:
    """
    One half of a translation: what the tuple's address and port become.

    *tunnel_endpoint* is the pod's node, all zero for this one; *is_host_socket*
    marks a port that belongs to the node itself.
    """

    address: Address
    port: int
    tunnel_endpoint: Address
    next_hop: Address
    ifindex: InterfaceIndex
    policy: PolicyId
    tcp: int
    is_host_socket: bool
    last_seen: int

    @classmethod
    def decode(cls, value: bytes) -> "NatRecord":
        """Decode a value of ``outgate_snat_v4`` or ``_v6``, without MACs and seal."""
        becomes, port, tcp, flags, *rest, seen = pick(NAT, value).unpack(value)
        endpoint, policy, ifindex, next_hop, *_ = rest
        return cls(
            address(becomes),
            int.from_bytes(port, "big"),
            unpack_endpoint(endpoint),
            address(next_hop),
            InterfaceIndex(ifindex),
            PolicyId(policy),
            tcp,
            bool(flags & NAT_HOST_SOCKET),
            seen,
        )


class FragmentState(IntEnum):
    """``enum fragment_state``."""

    UNKNOWN = 0
    KNOWN = 1
    NOT_OURS = 2


@dataclass(frozen=True, slots=True)
class FragmentRecord:
    """
    A datagram that came in parts, and the ports that its first part has.

    *identification* is the IP header's (IPv4: 16 bits, IPv6: 32); *is_awaited* while
    parts of it are held until the first one comes.
    """

    source: Address
    destination: Address
    identification: int
    protocol: int
    source_port: int
    destination_port: int
    state: FragmentState
    is_awaited: bool
    last_seen: int

    @classmethod
    def decode(cls, key: bytes, value: bytes) -> "FragmentRecord":
        """Decode a row of ``outgate_frag_v4`` or ``_v6``."""
        source, destination, number, _ = pick(FRAGMENT_KEY, key).unpack(key)
        ports = FRAGMENT_VALUE.unpack(value)
        source_port, destination_port, protocol, state, is_awaited, seen = ports
        size = 2 if family_of(address(source)) is Family.V4 else 4
        return cls(
            address(source),
            address(destination),
            int.from_bytes(number[:size], "big"),
            protocol,
            int.from_bytes(source_port, "big"),
            int.from_bytes(destination_port, "big"),
            FragmentState(state),
            bool(is_awaited),
            seen,
        )


@dataclass(frozen=True, slots=True)
class PortsRecord:
    """
    What is remembered of ports towards one server, where they are scarce.

    *taken* ports from *first* to *last* are believed to have an owner.
    """

    server: Address
    egress_ip: Address
    server_port: int
    protocol: int
    first: int
    last: int
    taken: int

    @classmethod
    def decode(cls, key: bytes, value: bytes) -> "PortsRecord":
        """Decode a row of ``outgate_ports_v4`` or ``_v6``."""
        server, egress_ip, port, first, last, protocol = pick(PORTS_KEY, key).unpack(
            key
        )
        words, _, _ = PORTS_VALUE.unpack(value)
        return cls(
            address(server),
            address(egress_ip),
            int.from_bytes(port, "big"),
            protocol,
            first,
            last,
            int.from_bytes(words, "big").bit_count(),
        )


@dataclass(frozen=True, slots=True)
class CollectorRecord:
    """
    What the collector of one family has done since its timer was started.

    *checked* and *released* count flows, *nanoseconds* what all *ticks* took.
    """

    ticks: int
    checked: int
    released: int
    nanoseconds: int

    @classmethod
    def decode(cls, value: bytes) -> "CollectorRecord":
        """Decode the value of ``outgate_collector_v4`` or ``_v6``."""
        return cls(*COLLECTOR.unpack(value))


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """One counter; *reason* is a number of ``kernel.reasons``."""

    reason: int
    direction: MetricDirection
    policy: PolicyId
    packets: int
    byte_count: int

    @classmethod
    def decode(cls, key: bytes, values: bytes) -> "MetricRecord":
        """Decode a row of ``outgate_metrics``; *values* is one per CPU, in a row."""
        reason, direction, policy = METRIC_KEY.unpack(key)
        counts = list(METRIC_VALUE.iter_unpack(values))
        return cls(
            reason,
            MetricDirection(direction),
            PolicyId(policy),
            sum(packets for packets, _ in counts),
            sum(size for _, size in counts),
        )

    @classmethod
    def decode_forwarded(cls, values: bytes) -> "tuple[MetricRecord, ...]":
        """
        Decode a slot of ``outgate_forwarded``, by CPU; *values* is one of each.

        Each CPU may have it for another policy.
        """
        if not any(values):
            return ()
        out, back = MetricDirection.TO_WORLD, MetricDirection.TO_POD
        found = [
            cls(Reason.FORWARDED, direction, PolicyId(policy), packets, size)
            for policy, *counts in FORWARDED_VALUE.iter_unpack(values)
            for direction, packets, size in ((out, *counts[:2]), (back, *counts[2:]))
        ]
        return tuple(record for record in found if record.packets)


def read_counts(
    rows: Iterable[tuple[bytes, bytes]], slots: Iterable[tuple[bytes, bytes]]
) -> tuple[MetricRecord, ...]:
    """
    Return all counters, from the *rows* of ``outgate_metrics`` and the *slots* of
    ``outgate_forwarded``; what both count is added up.
    """
    records = [MetricRecord.decode(key, values) for key, values in rows]
    for _, values in slots:
        records += MetricRecord.decode_forwarded(values)
    totals: dict[tuple[int, MetricDirection, PolicyId], list[int]] = {}
    for one in records:
        total = totals.setdefault((one.reason, one.direction, one.policy), [0, 0])
        total[0] += one.packets
        total[1] += one.byte_count
    return tuple(MetricRecord(*key, *total) for key, total in totals.items())
