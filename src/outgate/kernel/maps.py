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
    NodeEntry,
    NodeKey,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    PolicyId,
    PolicyKey,
    TunnelKey,
    Value,
    ViaGateway,
    family_of,
    key_family,
)

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
    FRAG_V4 = "outgate_frag_v4"
    FRAG_V6 = "outgate_frag_v6"
    GARBAGE_V4 = "outgate_garbage_v4"
    GARBAGE_V6 = "outgate_garbage_v6"
    COLLECTOR_V4 = "outgate_collector_v4"
    COLLECTOR_V6 = "outgate_collector_v6"
    EVENTS = "outgate_events"
    METRICS = "outgate_metrics"


_EGRESS = {Family.V4: MapName.EGRESS_V4, Family.V6: MapName.EGRESS_V6}
_COVERED = {Family.V4: MapName.COVERED_V4, Family.V6: MapName.COVERED_V6}
_NODE = {Family.V4: MapName.NODE_V4, Family.V6: MapName.NODE_V6}


def encode_policy_key(key: PolicyKey) -> bytes:
    """
    Encode one key of ``cilium_egress_v4`` or ``_v6``: a source and a destination.

    Shape: ``struct egress_key``: prefix length in host order, two addresses.

    Units: the prefix length is in bits and counts those of the source, because the
    kernel matches one run of bits from the start of the key: an IPv4 /16 is 48
    (Linux, ``Documentation/bpf/map_lpm_trie.rst``).
    """
    destination = key.destination
    return EGRESS_KEY[family_of(key.source)].pack(
        key.source.max_prefixlen + destination.prefixlen,
        key.source.packed,
        destination.network_address.packed,
    )


def encode_policy_value(value: PolicyEntry, family: Family) -> bytes:
    """Encode the value of a row of *family*: egress IP, endpoint, policy, kind."""
    nothing = pack_endpoint(None, family)
    match value:
        case ViaGateway(egress_ip, endpoint, policy):
            packed = pack_endpoint(endpoint, family)
            fields = egress_ip.packed, packed, policy, KIND_GATEWAY
        case Excluded(policy):
            fields = nothing, nothing, policy, KIND_EXCLUDED
        case NoGateway(policy):
            fields = nothing, nothing, policy, KIND_NO_GATEWAY
        case NoEgressIP(endpoint, policy):
            packed = pack_endpoint(endpoint, family)
            fields = nothing, packed, policy, KIND_NO_EGRESS_IP
    return EGRESS_VALUE[family].pack(*fields)


def _decode_policy(key: bytes, value: bytes) -> tuple[Key, Value]:
    prefix_len, packed_source, packed = pick(EGRESS_KEY, key).unpack(key)
    source, destination = address(packed_source), address(packed)
    egress_ip, endpoint, number, kind = EGRESS_VALUE[family_of(source)].unpack(value)
    policy = PolicyId(number)
    entry: PolicyEntry
    match kind:
        case 1:
            entry = ViaGateway(address(egress_ip), unpack_endpoint(endpoint), policy)
        case 2:
            entry = Excluded(policy)
        case 3:
            entry = NoGateway(policy)
        case 4:
            entry = NoEgressIP(unpack_endpoint(endpoint), policy)
        case _:
            raise ValueError(f"kind {kind}")
    network = network_of(prefix_len - source.max_prefixlen, destination)
    return PolicyKey(source, network), entry


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


DECODERS: Mapping[MapName, Callable[[bytes, bytes], tuple[Key, Value]]] = {
    **dict.fromkeys(_NODE.values(), _decode_node),
    MapName.IPCACHE: _decode_ipcache,
    **dict.fromkeys(_COVERED.values(), _decode_covered),
    **dict.fromkeys(_EGRESS.values(), _decode_policy),
    MapName.ENDPOINT: _decode_endpoint,
}
"""The maps that a plan writes; programs write the others."""


def decode_entry(name: MapName, key: bytes, value: bytes) -> tuple[Key, Value] | None:
    """
    Return the entry in a row of map *name*, or None when it is not one of ours.

    A foreign row has a kind, a family, a prefix or a size that is never written here.
    It is left alone, and overwritten when its key is wanted.
    """
    try:
        return DECODERS[name](key, value)
    except (ValueError, struct.error):
        return None


def encode_key(key: Key) -> tuple[MapName, bytes]:
    """Return the map that holds *key*, and the key's bytes; ValueError for no map."""
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
            return _EGRESS[family_of(key.source)], encode_policy_key(key)
        case EndpointKey(of):
            number = FAMILY_NUMBERS[family_of(of)]
            return MapName.ENDPOINT, ENDPOINT_KEY.pack(of.packed, number)
        case TunnelKey() | AttachmentKey():
            raise ValueError(f"{key} lives in no map")


def encode_value(key: Key, value: Value) -> bytes:
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
            return encode_policy_value(value, key_family(key) or Family.V4)
        case EndpointEntry(flags, is_egress_ip, is_other_family, is_selected, owner):
            roles = ROLE_EGRESS_IP * is_egress_ip | ROLE_OTHER_FAMILY * is_other_family
            roles |= ROLE_SELECTED * is_selected
            return ENDPOINT.pack(0, owner, flags, roles)
        case _:
            raise ValueError(f"{value} lives in no map")
