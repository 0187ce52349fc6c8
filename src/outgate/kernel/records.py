"""
The rows that programs write: flows, translations and counts, decoded for people.

Pure.  Layouts come from ``bpf/include/types.h``, byte order from ``kernel.maps``'
rule: what stays ``bytes`` in a format is in network order.  Nothing is encoded
here, because nobody but the datapath may write these rows.
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from struct import Struct

from outgate.state.entries import InterfaceIndex, PolicyId

TUPLE = Struct("=4s4s2s2sBB2x")
FLOW = Struct("=BB2xI4s4sI6s6sQ")
NAT = Struct("=4s2sBB4sII4sI6s6sQ")
METRIC_KEY = Struct("=BB2xI")
METRIC_VALUE = Struct("=QQ")

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
class Tuple4:
    """Who talks to whom, as the sender writes it; *protocol* is IANA's number."""

    source: IPv4Address
    destination: IPv4Address
    source_port: int
    destination_port: int
    protocol: int
    direction: NatDirection

    @classmethod
    def decode(cls, key: bytes) -> "Tuple4":
        """Decode a key of ``outgate_flow_v4`` or ``outgate_snat_v4``."""
        source, destination, source_port, destination_port, protocol, direction = (
            TUPLE.unpack(key)
        )
        return cls(
            IPv4Address(source),
            IPv4Address(destination),
            int.from_bytes(source_port, "big"),
            int.from_bytes(destination_port, "big"),
            protocol,
            NatDirection(direction),
        )


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """What was decided for one flow; *last_seen* is in jiffies of the kernel."""

    decision: FlowDecision
    policy: PolicyId
    tunnel_endpoint: IPv4Address
    egress_ip: IPv4Address
    ifindex: InterfaceIndex
    tcp: int
    last_seen: int

    @classmethod
    def decode(cls, value: bytes) -> "FlowRecord":
        """Decode a value of ``outgate_flow_v4``; the MACs are left out."""
        decision, tcp, policy, endpoint, egress_ip, ifindex, _, _, seen = FLOW.unpack(
            value
        )
        return cls(
            FlowDecision(decision),
            PolicyId(policy),
            IPv4Address(endpoint),
            IPv4Address(egress_ip),
            InterfaceIndex(ifindex),
            tcp,
            seen,
        )


@dataclass(frozen=True, slots=True)
class NatRecord:
    """
    One half of a translation: what the tuple's address and port become.

    *tunnel_endpoint* is the pod's node, ``0.0.0.0`` for this one; *is_host_socket*
    marks a port that belongs to the node itself.
    """

    address: IPv4Address
    port: int
    tunnel_endpoint: IPv4Address
    next_hop: IPv4Address
    ifindex: InterfaceIndex
    policy: PolicyId
    tcp: int
    is_host_socket: bool
    last_seen: int

    @classmethod
    def decode(cls, value: bytes) -> "NatRecord":
        """Decode a value of ``outgate_snat_v4``; the MACs are left out."""
        address, port, tcp, flags, *route, _, _, seen = NAT.unpack(value)
        endpoint, policy, ifindex, next_hop, _generation = route
        return cls(
            IPv4Address(address),
            int.from_bytes(port, "big"),
            IPv4Address(endpoint),
            IPv4Address(next_hop),
            InterfaceIndex(ifindex),
            PolicyId(policy),
            tcp,
            bool(flags & NAT_HOST_SOCKET),
            seen,
        )


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
