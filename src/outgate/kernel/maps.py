"""
The maps: their names, the layout of their rows, and rows as entries.

With ``kernel.records`` (rows that only programs write) the one place that knows byte
order.  ``bpf/include/types.h`` is the other half; a test reads it and compares every
offset.  In the formats below ``=`` means
host order without padding of its own, and ``4s`` or ``2s`` is a field that stays in
network order (``__be32``, ``__be16``), because addresses and ports are made from
bytes.

Pure: no file descriptor, no system call.  ``kernel.pinned`` moves the bytes,
``kernel.linux`` joins the two, ``outgate map get`` prints what is decoded here.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from struct import Struct

from outgate.state.entries import (
    AttachmentKey,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
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
)

FAMILY_IPV4 = 1
ROLE_EGRESS_IP = 1

KIND_GATEWAY = 1
KIND_EXCLUDED = 2
KIND_NO_GATEWAY = 3
KIND_NO_EGRESS_IP = 4

EGRESS_KEY = Struct("=I4s4s")
EGRESS_VALUE = Struct("=4s4sIB3x")
NETWORK_KEY = Struct("=I4s")
COVERED_VALUE = Struct("=I")
ENDPOINT_KEY = Struct("=4s12xB3x")
ENDPOINT = Struct("=I4xII32x")
IPCACHE_KEY = Struct("=I3xB4s12x")
IPCACHE_VALUE = Struct("=I4s4x")
NODE_KEY = Struct("=4s")
NODE_VALUE = Struct("=I")

UNSPECIFIED = IPv4Address(0)
"""An address field that does not apply, as bytes; an entry says None instead."""


class MapName(StrEnum):
    """Every pinned map; users see these names in the pin directory."""

    EGRESS = "cilium_egress_v4"
    ENDPOINT = "cilium_lxc"
    IPCACHE = "cilium_ipcache"
    COVERED = "outgate_covered_v4"
    NODE = "outgate_node_v4"
    CONFIG = "outgate_config"
    FLOW = "outgate_flow_v4"
    SNAT = "outgate_snat_v4"
    METRICS = "outgate_metrics"


def _network(prefix_len: int, address: bytes) -> IPv4Network:
    return IPv4Network((address, prefix_len))


def encode_policy_key(key: PolicyKey) -> bytes:
    """
    Encode one key of ``cilium_egress_v4``: a source talking to a destination.

    Shape: ``struct egress_key``: prefix length in host order, two addresses.

    Units: the prefix length is in bits and counts the 32 of the source, because
    the kernel matches one run of bits from the start of the key: a /16 is 48.

    Source: Linux ``Documentation/bpf/map_lpm_trie.rst``.
    """
    destination = key.destination
    return EGRESS_KEY.pack(
        32 + destination.prefixlen,
        key.source.packed,
        destination.network_address.packed,
    )


def encode_policy_value(value: PolicyEntry) -> bytes:
    """Encode one value of ``cilium_egress_v4``: egress IP, endpoint, policy, kind."""
    nothing = UNSPECIFIED.packed
    match value:
        case ViaGateway(egress_ip, endpoint, policy):
            fields = egress_ip.packed, endpoint.packed, policy, KIND_GATEWAY
        case Excluded(policy):
            fields = nothing, nothing, policy, KIND_EXCLUDED
        case NoGateway(policy):
            fields = nothing, nothing, policy, KIND_NO_GATEWAY
        case NoEgressIP(endpoint, policy):
            fields = nothing, endpoint.packed, policy, KIND_NO_EGRESS_IP
    return EGRESS_VALUE.pack(*fields)


def _decode_policy(key: bytes, value: bytes) -> tuple[Key, Value]:
    prefix_len, source, destination = EGRESS_KEY.unpack(key)
    egress_ip, endpoint, number, kind = EGRESS_VALUE.unpack(value)
    policy = PolicyId(number)
    entry: PolicyEntry
    match kind:
        case 1:
            entry = ViaGateway(IPv4Address(egress_ip), IPv4Address(endpoint), policy)
        case 2:
            entry = Excluded(policy)
        case 3:
            entry = NoGateway(policy)
        case 4:
            entry = NoEgressIP(IPv4Address(endpoint), policy)
        case _:
            raise ValueError(f"kind {kind}")
    network = _network(prefix_len - 32, destination)
    return PolicyKey(IPv4Address(source), network), entry


def _decode_covered(key: bytes, value: bytes) -> tuple[Key, Value]:
    prefix_len, address = NETWORK_KEY.unpack(key)
    (policy,) = COVERED_VALUE.unpack(value)
    return CoveredKey(_network(prefix_len, address)), CoveredEntry(PolicyId(policy))


def _decode_ipcache(key: bytes, value: bytes) -> tuple[Key, Value]:
    prefix_len, family, address = IPCACHE_KEY.unpack(key)
    identity, packed = IPCACHE_VALUE.unpack(value)
    if family != FAMILY_IPV4:
        raise ValueError(f"family {family}")
    endpoint = IPv4Address(packed)
    return IpcacheKey(_network(prefix_len - 32, address)), IpcacheEntry(
        Identity(identity), None if endpoint == UNSPECIFIED else endpoint
    )


def _decode_endpoint(key: bytes, value: bytes) -> tuple[Key, Value]:
    address, family = ENDPOINT_KEY.unpack(key)
    _, flags, roles = ENDPOINT.unpack(value)
    if family != FAMILY_IPV4:
        raise ValueError(f"family {family}")
    return EndpointKey(IPv4Address(address)), EndpointEntry(
        EndpointFlag(flags), bool(roles & ROLE_EGRESS_IP)
    )


def _decode_node(key: bytes, value: bytes) -> tuple[Key, Value]:
    return NodeKey(IPv4Address(NODE_KEY.unpack(key)[0])), NodeEntry()


DECODERS: dict[MapName, Callable[[bytes, bytes], tuple[Key, Value]]] = {
    MapName.NODE: _decode_node,
    MapName.IPCACHE: _decode_ipcache,
    MapName.COVERED: _decode_covered,
    MapName.EGRESS: _decode_policy,
    MapName.ENDPOINT: _decode_endpoint,
}
"""The maps that a plan writes; programs write the others."""


def decode_entry(name: MapName, key: bytes, value: bytes) -> tuple[Key, Value] | None:
    """
    Return the entry in a row of map *name*, or None when it is not one of ours.

    A foreign row has a kind, a family, a prefix or a size that this module never
    writes.  It is left alone, and overwritten when its key is wanted.
    """
    try:
        return DECODERS[name](key, value)
    except (ValueError, struct.error):
        return None


def encode_key(key: Key) -> tuple[MapName, bytes]:
    """Return the map that holds *key*, and the key's bytes; ValueError for no map."""
    match key:
        case NodeKey(address):
            return MapName.NODE, NODE_KEY.pack(address.packed)
        case IpcacheKey(network):
            packed = network.network_address.packed
            length = 32 + network.prefixlen
            return MapName.IPCACHE, IPCACHE_KEY.pack(length, FAMILY_IPV4, packed)
        case CoveredKey(network):
            packed = network.network_address.packed
            return MapName.COVERED, NETWORK_KEY.pack(network.prefixlen, packed)
        case PolicyKey():
            return MapName.EGRESS, encode_policy_key(key)
        case EndpointKey(address):
            return MapName.ENDPOINT, ENDPOINT_KEY.pack(address.packed, FAMILY_IPV4)
        case TunnelKey() | AttachmentKey():
            raise ValueError(f"{key} lives in no map")


def encode_value(value: Value) -> bytes:
    """Return the bytes of *value* in its key's map; ValueError for no map."""
    match value:
        case NodeEntry():
            return NODE_VALUE.pack(0)
        case IpcacheEntry(identity, endpoint):
            return IPCACHE_VALUE.pack(identity, (endpoint or UNSPECIFIED).packed)
        case CoveredEntry(policy):
            return COVERED_VALUE.pack(policy)
        case ViaGateway() | Excluded() | NoGateway() | NoEgressIP():
            return encode_policy_value(value)
        case EndpointEntry(flags, is_egress_ip):
            return ENDPOINT.pack(0, flags, ROLE_EGRESS_IP if is_egress_ip else 0)
        case _:
            raise ValueError(f"{value} lives in no map")


SETTINGS = Struct("=IIIIIIHHB3x")


class GatewayPath(StrEnum):
    """How a gateway sends tunnelled packets on; see DESIGN section 3.1."""

    DIRECT = "direct"
    STACK = "stack"


@dataclass(frozen=True, slots=True)
class DatapathSettings:
    """
    What programs hold as constants from their load on (``struct settings``).

    Units: ports are in host order and inclusive; *jiffies_per_second* is the
    running kernel's.
    """

    tunnel_vni: int
    mark_mask: int
    mark_translated: int
    mark_overlay: int
    mark_seen: int
    jiffies_per_second: int
    port_first: int
    port_last: int
    gateway_path: GatewayPath

    def encode(self) -> bytes:
        """Return the bytes of section ``.rodata.settings``."""
        return SETTINGS.pack(
            self.tunnel_vni,
            self.mark_mask,
            self.mark_translated,
            self.mark_overlay,
            self.mark_seen,
            self.jiffies_per_second,
            self.port_first,
            self.port_last,
            list(GatewayPath).index(self.gateway_path),
        )


CONFIG_KEY = Struct("=I")
CONFIG = Struct("=II6sH")


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """
    What programs read anew with each packet (``struct runtime_config``).

    Shape: *tunnel_mac* is six bytes; *route_generation* counts up, modulo 2**32,
    whenever a stored next hop may be out of date.

    Units: *tunnel_mtu* is in bytes, the largest IP packet that fits the tunnel; 0 is
    not known, and then nothing is held to it.
    """

    tunnel_ifindex: int = 0
    route_generation: int = 0
    tunnel_mac: bytes = bytes(6)
    tunnel_mtu: int = 0

    def encode(self) -> bytes:
        """Return the value of ``outgate_config``."""
        return CONFIG.pack(
            *(self.tunnel_ifindex, self.route_generation),
            *(self.tunnel_mac, self.tunnel_mtu),
        )

    @classmethod
    def decode(cls, value: bytes) -> "RuntimeConfig":
        """Return the config in a value of ``outgate_config``."""
        return cls(*CONFIG.unpack(value))
