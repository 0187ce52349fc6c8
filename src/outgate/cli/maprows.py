"""
Rows of maps as text: for each map, what its keys and values say.

What it is: pure; bytes in, ``MapRow`` out, one small function for each layout.
What it is not: a reader of maps; ``cli.show`` reads them, and calls this.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from outgate.cli.render import PROTOCOLS, address_text, policy_text, tuple_text
from outgate.kernel.collector import COLLECTORS
from outgate.kernel.layouts import FREE_KEY, FREE_VALUE, XDP_DEVICE, XDP_DEVICE_KEY
from outgate.kernel.maps import (
    PLANNED_MAPS,
    SETS,
    SOURCES,
    MapName,
    decode_policy_value,
    decode_row,
)
from outgate.kernel.reasons import reason_name
from outgate.kernel.records import (
    CollectorRecord,
    FlowDecision,
    FlowRecord,
    FlowTuple,
    FragmentRecord,
    FragmentState,
    MetricRecord,
    NatDirection,
    NatRecord,
    PortsRecord,
    read_counts,
)
from outgate.kernel.rows import decode_set_key, decode_source
from outgate.kernel.settings import CONFIG_KEY, RuntimeConfig
from outgate.state.entries import (
    CoveredEntry,
    Excluded,
    IpcacheEntry,
    NodeEntry,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    Value,
    ViaGateway,
)
from outgate.state.snapshot import render_key, render_value, sort_key

IPCACHE_VALUE_WIDTH = 18
"""Room for a five-digit identity and a node: the column stands still as rows change."""


@dataclass(frozen=True, slots=True)
class MapRow:
    """
    One row of a map as people read it.

    *subject* is what the agent calls the entry (kind and key), None for rows that
    programs write; *wanted* is how the agent would render the row's value.
    """

    key: str
    value: str
    subject: tuple[str, str] | None = None
    wanted: str = ""


def map_rows(name: MapName, rows: Sequence[tuple[bytes, bytes]]) -> list[MapRow]:
    """Return the rows of map *name* as text, sorted by key."""
    if name in PLANNED_MAPS:
        found = [_planned_row(name, key, value) for key, value in rows]
        return [row for _, row in sorted(found, key=lambda pair: pair[0])]
    if name is MapName.FORWARDED:
        counts = read_counts((), rows)
        return sorted(map(_count_row, counts), key=lambda row: row.key)
    return sorted(
        (_written_row(name, key, value) for key, value in rows),
        key=lambda row: row.key,
    )


def _written_row(name: MapName, key: bytes, value: bytes) -> MapRow:
    try:
        return _RENDERERS[name](key, value)
    except (ValueError, struct.error):
        # Another datapath than this CLI knows wrote it.
        return MapRow(key.hex(" "), value.hex(" "))


def _planned_row(name: MapName, key: bytes, value: bytes) -> tuple[Any, MapRow]:
    entry = decode_row(name, key, value)
    if entry is None:
        return (1, key), MapRow(key.hex(" "), value.hex(" "))
    kind, subject = render_key(entry[0])
    text = _entry_text(entry[1])
    if name is MapName.IPCACHE:
        text = text.ljust(IPCACHE_VALUE_WIDTH)
    row = MapRow(subject, text, (kind, subject), render_value(entry[1]))
    return (0, sort_key(entry[0])), row


def _entry_text(value: Value | PolicyEntry) -> str:
    match value:
        case IpcacheEntry(identity, endpoint):
            # The middle number is the field's encryption key; there is none.
            return f"{identity} 0 {endpoint or '0.0.0.0'}"
        case ViaGateway(egress_ip, endpoint, policy):
            return f"{egress_ip or '-'} {endpoint} {policy_text(policy)}"
        case NoEgressIP(endpoint, policy):
            return f"no egress IP at {endpoint} {policy_text(policy)}"
        case Excluded(policy) | NoGateway(policy):
            return f"{render_value(value)} {policy_text(policy)}"
        case CoveredEntry(policy):
            return policy_text(policy)
        case NodeEntry():
            return "tunnel source"
        case _:
            return render_value(value)


def _flow_row(key: bytes, value: bytes) -> MapRow:
    flow = FlowRecord.decode(value)
    match flow.decision:
        case FlowDecision.TO_GATEWAY:
            text = f"to gateway {flow.tunnel_endpoint} as {flow.egress_ip}"
        case FlowDecision.LOCAL_GATEWAY:
            text = f"gateway here as {flow.egress_ip}"
        case FlowDecision.INBOUND:
            text = "began outside"
        case FlowDecision.FROM_TUNNEL:
            text = f"tunnelled from {flow.tunnel_endpoint}"
    return MapRow(
        tuple_text(FlowTuple.decode(key)), f"{text} {policy_text(flow.policy)}"
    )


def _snat_row(key: bytes, value: bytes) -> MapRow:
    who, nat = FlowTuple.decode(key), NatRecord.decode(value)
    becomes = "source" if who.direction is NatDirection.FORWARD else "destination"
    owner = "host socket" if nat.is_host_socket else policy_text(nat.policy)
    where = f"node {nat.tunnel_endpoint}" if int(nat.tunnel_endpoint) else "this node"
    return MapRow(
        f"{who.direction.name.lower()} {tuple_text(who)}",
        f"{becomes} {address_text(nat.address, nat.port)} pod on {where} {owner}",
    )


def _ports_row(key: bytes, value: bytes) -> MapRow:
    ports = PortsRecord.decode(key, value)
    protocol = PROTOCOLS.get(ports.protocol, str(ports.protocol))
    server = address_text(ports.server, ports.server_port)
    return MapRow(
        f"{protocol} {ports.egress_ip} -> {server}",
        f"{ports.taken} of the ports {ports.first} to {ports.last} need no try",
    )


def _fragment_row(key: bytes, value: bytes) -> MapRow:
    parts = FragmentRecord.decode(key, value)
    match parts.state:
        case FragmentState.UNKNOWN:
            text = "its first part has not come"
        case FragmentState.KNOWN:
            text = f"ports {parts.source_port} -> {parts.destination_port}"
        case FragmentState.NOT_OURS:
            text = "of this node itself"
    datagram = f"{parts.source} -> {parts.destination} id {parts.identification}"
    return MapRow(datagram, text + ", parts wait" * parts.is_awaited)


def _metric_row(key: bytes, value: bytes) -> MapRow:
    return _count_row(MetricRecord.decode(key, value))


def _count_row(metric: MetricRecord) -> MapRow:
    direction = metric.direction.name.lower()
    return MapRow(
        f"{reason_name(metric.reason)} {direction} {policy_text(metric.policy)}",
        f"{metric.packets} packets {metric.byte_count} bytes",
    )


def _free_row(key: bytes, value: bytes) -> MapRow:
    (number,), (word,) = FREE_KEY.unpack(key), FREE_VALUE.unpack(value)
    return MapRow(f"word {number:5}", f"{word:064b}")


def _config_row(key: bytes, value: bytes) -> MapRow:
    config = RuntimeConfig.decode(value)
    (index,) = CONFIG_KEY.unpack(key)
    mac = config.tunnel_mac.hex(":")
    return MapRow(
        str(index),
        f"tunnel interface {config.tunnel_ifindex} mac {mac} mtu {config.tunnel_mtu} "
        f"routes generation {config.route_generation} "
        f"policies generation {config.policy_generation}",
    )


def _source_row(key: bytes, value: bytes) -> MapRow:
    source, number = decode_source(key, value)
    return MapRow(str(source), f"set {number}")


def _set_row(key: bytes, value: bytes) -> MapRow:
    number, destination = decode_set_key(key)
    text = _entry_text(decode_policy_value(value))
    return MapRow(f"set {number} -> {destination}", text)


def _collector_row(key: bytes, value: bytes) -> MapRow:
    done = CollectorRecord.decode(value)
    return MapRow(
        "timer",
        f"{done.ticks} ticks checked {done.checked} flows released {done.released} "
        f"in {done.nanoseconds / 1e9:.3f} s",
    )


def _xdp_device_row(key: bytes, value: bytes) -> MapRow:
    (index,), (mtu, is_veth) = XDP_DEVICE_KEY.unpack(key), XDP_DEVICE.unpack(value)
    return MapRow(f"interface {index}", f"mtu {mtu}{' veth' * is_veth}")


_RENDERERS: dict[MapName, Callable[[bytes, bytes], MapRow]] = {
    MapName.CONFIG: _config_row,
    **dict.fromkeys(SOURCES.values(), _source_row),
    **dict.fromkeys(SETS.values(), _set_row),
    **dict.fromkeys((MapName.FLOW_V4, MapName.FLOW_V6), _flow_row),
    **dict.fromkeys((MapName.SNAT_V4, MapName.SNAT_V6), _snat_row),
    **dict.fromkeys((MapName.PORTS_V4, MapName.PORTS_V6), _ports_row),
    **dict.fromkeys((MapName.FRAG_V4, MapName.FRAG_V6), _fragment_row),
    **dict.fromkeys(COLLECTORS.values(), _collector_row),
    MapName.METRICS: _metric_row,
    MapName.FREE: _free_row,
    MapName.XDP_DEVICE: _xdp_device_row,
}
