"""
The maps: their names, and their rows as entries.

With ``kernel.records`` (rows that only programs write) this is what gives the bytes
of ``kernel.layouts`` a meaning.  Maps whose name ends in the family hold rows of that
family; ``cilium_lxc`` and ``cilium_ipcache`` hold both.

Pure: no file descriptor, no system call.  ``kernel.pinned`` moves the bytes,
``kernel.linux`` joins the two, ``outgate map get`` prints what is decoded here.
"""

import struct
from collections.abc import Callable, Mapping
from enum import StrEnum

from outgate.kernel.layouts import (
    COVERED_VALUE,
    EGRESS_KEY,
    EGRESS_VALUE,
    ENDPOINT,
    ENDPOINT_INTERFACE,
    ENDPOINT_KEY,
    FAMILY_NUMBERS,
    IPCACHE_KEY,
    IPCACHE_VALUE,
    NETWORK_KEY,
    NODE_KEY,
    NODE_VALUE,
    address,
    network_of,
    pack_endpoint,
    pick,
    unpack_endpoint,
    unpack_padded,
)
from outgate.state.entries import (
    AttachmentKey,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
    Family,
    Identity,
    IpcacheEntry,
    IpcacheKey,
    Key,
    Network,
    NodeEntry,
    NodeKey,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    PolicyId,
    PolicyKey,
    RowsKey,
    TunnelKey,
    Value,
    ViaGateway,
    family_of,
)
from outgate.state.snapshot import key_family

ROLE_EGRESS_IP = 1
ROLE_OTHER_FAMILY = 2
ROLE_SELECTED = 4

KIND_GATEWAY = 1
KIND_EXCLUDED = 2
KIND_NO_GATEWAY = 3
KIND_NO_EGRESS_IP = 4

IPCACHE_ENDPOINT_IS_IPV6 = 4


class MapName(StrEnum):
    """Every pinned map; users see these names in the pin directory."""

    EGRESS_V4 = "cilium_egress_v4"
    EGRESS_V6 = "cilium_egress_v6"
    SOURCE_V4 = "outgate_source_v4"
    SOURCE_V6 = "outgate_source_v6"
    SET_V4 = "outgate_set_v4"
    SET_V6 = "outgate_set_v6"
    ENDPOINT = "cilium_lxc"
    IPCACHE = "cilium_ipcache"
    COVERED_V4 = "outgate_covered_v4"
    COVERED_V6 = "outgate_covered_v6"
    NODE_V4 = "outgate_node_v4"
    NODE_V6 = "outgate_node_v6"
    CONFIG = "outgate_config"
    FLOW_V4 = "outgate_flow_v4"
    FLOW_V6 = "outgate_flow_v6"
    SNAT_V4 = "outgate_snat_v4"
    SNAT_V6 = "outgate_snat_v6"
    PORTS_V4 = "outgate_ports_v4"
    PORTS_V6 = "outgate_ports_v6"
    FRAG_V4 = "outgate_frag_v4"
    FRAG_V6 = "outgate_frag_v6"
    GARBAGE_V4 = "outgate_garbage_v4"
    GARBAGE_V6 = "outgate_garbage_v6"
    COLLECTOR_V4 = "outgate_collector_v4"
    COLLECTOR_V6 = "outgate_collector_v6"
    EVENTS = "outgate_events"
    METRICS = "outgate_metrics"
    FORWARDED = "outgate_forwarded"
    FREE = "outgate_free"
    XDP = "outgate_xdp"
    XDP_DEVICE = "outgate_xdp_device"


EGRESS = {Family.V4: MapName.EGRESS_V4, Family.V6: MapName.EGRESS_V6}
FLOWS = {Family.V4: MapName.FLOW_V4, Family.V6: MapName.FLOW_V6}
COUNTERS = MapName.METRICS, MapName.FORWARDED
_COVERED = {Family.V4: MapName.COVERED_V4, Family.V6: MapName.COVERED_V6}
_NODE = {Family.V4: MapName.NODE_V4, Family.V6: MapName.NODE_V6}
SOURCES = {Family.V4: MapName.SOURCE_V4, Family.V6: MapName.SOURCE_V6}
SETS = {Family.V4: MapName.SET_V4, Family.V6: MapName.SET_V6}


def encode_policy_key(key: PolicyKey) -> bytes:
    """
    Encode one key of ``cilium_egress_v4`` or ``_v6``: a source and a destination.

    Shape: ``struct egress_key``: prefix length in host order, two addresses.

    Units: the prefix length is in bits and counts those of the source, because the
    kernel matches one run of bits from the start of the key: an IPv4 /16 is 48
    (Linux, ``Documentation/bpf/map_lpm_trie.rst``).
    """
    return _encode_policy_key(key.source.packed, key.destination)


def encode_destination(destination: Network) -> bytes:
    """Encode a key whose source is still to be filled in, and zero."""
    return _encode_policy_key(bytes(destination.max_prefixlen // 8), destination)


def _encode_policy_key(packed_source: bytes, destination: Network) -> bytes:
    return EGRESS_KEY[family_of(destination)].pack(
        destination.max_prefixlen + destination.prefixlen,
        packed_source,
        destination.network_address.packed,
    )


def encode_policy_value(value: PolicyEntry, family: Family) -> bytes:
    """Encode the value of a row of *family*: egress IP, endpoint, policy, kind."""
    nothing = pack_endpoint(None, family)
    match value:
        case ViaGateway(egress_ip, endpoint, policy):
            packed_ip = egress_ip.packed if egress_ip else nothing
            packed = pack_endpoint(endpoint, family)
            fields = packed_ip, packed, policy, KIND_GATEWAY
        case Excluded(policy):
            fields = nothing, nothing, policy, KIND_EXCLUDED
        case NoGateway(policy):
            fields = nothing, nothing, policy, KIND_NO_GATEWAY
        case NoEgressIP(endpoint, policy):
            packed = pack_endpoint(endpoint, family)
            fields = nothing, packed, policy, KIND_NO_EGRESS_IP
    return EGRESS_VALUE[family].pack(*fields)


def decode_destination(key: bytes) -> Network:
    """Return the destination of a key; ValueError for one that is not ours."""
    prefix_len, packed_source, packed = pick(EGRESS_KEY, key).unpack(key)
    return network_of(prefix_len - 8 * len(packed_source), address(packed))


def decode_policy_value(value: bytes) -> PolicyEntry:
    """Return what a row says; ValueError for a kind that is never written here."""
    egress_ip, packed, number, kind = pick(EGRESS_VALUE, value).unpack(value)
    endpoint, policy = unpack_endpoint(packed), PolicyId(number)
    match kind:
        case 1:
            known = address(egress_ip) if any(egress_ip) else None
            return ViaGateway(known, endpoint, policy)
        case 2:
            return Excluded(policy)
        case 3:
            return NoGateway(policy)
        case 4:
            return NoEgressIP(endpoint, policy)
        case _:
            raise ValueError(f"kind {kind}")


def _decode_policy(key: bytes, value: bytes) -> tuple[PolicyKey, PolicyEntry]:
    _, packed_source, _ = pick(EGRESS_KEY, key).unpack(key)
    source = address(packed_source)
    return PolicyKey(source, decode_destination(key)), decode_policy_value(value)


def _decode_covered(key: bytes, value: bytes) -> tuple[Key, Value]:
    prefix_len, packed = pick(NETWORK_KEY, key).unpack(key)
    (policy,) = COVERED_VALUE.unpack(value)
    network = network_of(prefix_len, address(packed))
    return CoveredKey(network), CoveredEntry(PolicyId(policy))


def _decode_ipcache(key: bytes, value: bytes) -> tuple[Key, Value]:
    prefix_len, number, packed = IPCACHE_KEY.unpack(key)
    identity, packed_endpoint, _, flags = IPCACHE_VALUE.unpack(value)
    is_ipv6 = bool(flags & IPCACHE_ENDPOINT_IS_IPV6)
    family = Family.V6 if is_ipv6 else Family.V4
    endpoint = unpack_padded(packed_endpoint, FAMILY_NUMBERS[family])
    network = network_of(prefix_len - 32, unpack_padded(packed, number))
    return IpcacheKey(network), IpcacheEntry(
        Identity(identity), endpoint if int(endpoint) else None
    )


def _decode_endpoint(key: bytes, value: bytes) -> tuple[Key, Value]:
    packed, number = ENDPOINT_KEY.unpack(key)
    _, owner, flags, roles = ENDPOINT.unpack(value)
    return EndpointKey(unpack_padded(packed, number)), EndpointEntry(
        EndpointFlag(flags),
        is_egress_ip=bool(roles & ROLE_EGRESS_IP),
        is_other_family=bool(roles & ROLE_OTHER_FAMILY),
        is_selected=bool(roles & ROLE_SELECTED),
        owner=owner,
    )


def _decode_node(key: bytes, value: bytes) -> tuple[Key, Value]:
    return NodeKey(address(*pick(NODE_KEY, key).unpack(key))), NodeEntry()


_DECODERS: Mapping[MapName, Callable[[bytes, bytes], tuple[Key, Value]]] = {
    **dict.fromkeys(_NODE.values(), _decode_node),
    MapName.IPCACHE: _decode_ipcache,
    **dict.fromkeys(_COVERED.values(), _decode_covered),
    MapName.ENDPOINT: _decode_endpoint,
}

ENTRY_MAPS = frozenset(_DECODERS)
"""The maps that a plan writes, and whose rows are entries by themselves."""

PLANNED_MAPS = ENTRY_MAPS | frozenset(EGRESS.values())
"""All maps that a plan writes; programs write the others."""

_HOMES: Mapping[type[Key], Mapping[Family, MapName]] = {
    NodeKey: _NODE,
    IpcacheKey: dict.fromkeys(Family, MapName.IPCACHE),
    CoveredKey: _COVERED,
    EndpointKey: dict.fromkeys(Family, MapName.ENDPOINT),
}


def entry_map(key: Key) -> MapName | None:
    """Return the map that has the row of *key*, None for rows of pods and links."""
    homes, family = _HOMES.get(type(key)), key_family(key)
    return homes[family] if homes and family else None


def decode_entry(name: MapName, key: bytes, value: bytes) -> tuple[Key, Value] | None:
    """
    Return the entry in a row of map *name*, or None when it is not one of ours.

    A foreign row has a kind, a family, a prefix or a size that is never written here.
    It is left alone, and overwritten when its key is wanted.
    """
    try:
        return _DECODERS[name](key, value)
    except (ValueError, struct.error):
        return None


Row = tuple[Key | PolicyKey, Value | PolicyEntry]


def decode_row(name: MapName, key: bytes, value: bytes) -> Row | None:
    """Return the same of any map of ``PLANNED_MAPS``: of policy maps a single row."""
    if name in ENTRY_MAPS:
        return decode_entry(name, key, value)
    try:
        return _decode_policy(key, value)
    except (ValueError, struct.error):
        return None


def encode_key(key: Key | PolicyKey) -> tuple[MapName, bytes]:
    """Return the map that holds *key*, and its bytes; ValueError for no single row."""
    match key:
        case NodeKey(of):
            family = family_of(of)
            return _NODE[family], NODE_KEY[family].pack(of.packed)
        case IpcacheKey(network):
            packed = network.network_address.packed
            length, number = 32 + network.prefixlen, FAMILY_NUMBERS[family_of(network)]
            return MapName.IPCACHE, IPCACHE_KEY.pack(length, number, packed)
        case CoveredKey(network):
            packed, family = network.network_address.packed, family_of(network)
            row = NETWORK_KEY[family].pack(network.prefixlen, packed)
            return _COVERED[family], row
        case PolicyKey():
            return EGRESS[family_of(key.source)], encode_policy_key(key)
        case EndpointKey(of):
            number = FAMILY_NUMBERS[family_of(of)]
            return MapName.ENDPOINT, ENDPOINT_KEY.pack(of.packed, number)
        case TunnelKey() | AttachmentKey():
            raise ValueError(f"{key} lives in no map")
        case RowsKey():
            raise ValueError(f"{key} is many rows")


def encode_value(key: Key | PolicyKey, value: Value | PolicyEntry) -> bytes:
    """Return the bytes of *value* in the map of *key*; ValueError for no map."""
    match value:
        case NodeEntry():
            return NODE_VALUE.pack(0)
        case IpcacheEntry(identity, endpoint):
            packed = endpoint.packed if endpoint else b""
            is_ipv6 = endpoint is not None and family_of(endpoint) is Family.V6
            flags = IPCACHE_ENDPOINT_IS_IPV6 if is_ipv6 else 0
            return IPCACHE_VALUE.pack(identity, packed, 0, flags)
        case CoveredEntry(policy):
            return COVERED_VALUE.pack(policy)
        case ViaGateway() | Excluded() | NoGateway() | NoEgressIP():
            if not isinstance(key, PolicyKey):
                raise ValueError(f"{value} is no value of {key}")
            return encode_policy_value(value, family_of(key.source))
        case EndpointEntry(flags, is_egress_ip, is_other_family, is_selected, owner):
            roles = ROLE_EGRESS_IP * is_egress_ip | ROLE_OTHER_FAMILY * is_other_family
            roles |= ROLE_SELECTED * is_selected
            return ENDPOINT.pack(0, owner, flags, roles)
        case _:
            raise ValueError(f"{value} lives in no map")


def keep_interface(value: bytes, former: bytes) -> bytes:
    """Return an endpoint's *value* with the interface that a program wrote there."""
    size = ENDPOINT_INTERFACE.size
    return former[:size] + value[size:]
