import re
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from struct import Struct, calcsize

import pytest

from outgate.kernel import maps, records
from outgate.kernel.maps import (
    DatapathSettings,
    GatewayPath,
    MapName,
    RuntimeConfig,
    decode_entry,
    encode_key,
    encode_value,
)
from outgate.state.entries import (
    WORLD,
    AttachmentKey,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
    Hook,
    IpcacheEntry,
    IpcacheKey,
    Key,
    NodeEntry,
    NodeKey,
    NoEgressIP,
    NoGateway,
    PolicyId,
    PolicyKey,
    TunnelKey,
    Value,
    ViaGateway,
)

BPF = Path(__file__).parents[3] / "bpf" / "include"
C_SIZES = {"__u8": 1, "__be16": 2, "__u16": 2, "__be32": 4, "__u32": 4, "__u64": 8}
C_ARRAYS = {"ETH_ADDRESS_SIZE": 6}

GATEWAY = IPv4Address("172.18.0.5")
ECHO = IPv4Network("172.18.0.0/16")

LAYOUTS = {
    "egress_key": maps.EGRESS_KEY,
    "egress_value": maps.EGRESS_VALUE,
    "network_key": maps.NETWORK_KEY,
    "covered_value": maps.COVERED_VALUE,
    "endpoint_key": maps.ENDPOINT_KEY,
    "endpoint": maps.ENDPOINT,
    "ipcache_key": maps.IPCACHE_KEY,
    "ipcache_value": maps.IPCACHE_VALUE,
    "node_value": maps.NODE_VALUE,
    "runtime_config": maps.CONFIG,
    "settings": maps.SETTINGS,
    "tuple4": records.TUPLE,
    "flow_entry": records.FLOW,
    "nat_entry": records.NAT,
    "metric_key": records.METRIC_KEY,
    "metric_value": records.METRIC_VALUE,
}


def c_fields(name: str) -> tuple[list[tuple[int, int, bool]], int]:
    """Return (offset, size, is in network order) of all but padding, and the size."""
    text = (BPF / "types.h").read_text()
    body = re.search(rf"struct {name} {{(.*?)}};", text, re.DOTALL)
    assert body
    fields, offset = [], 0
    for kind, field, count in re.findall(
        r"^\s*(__\w+) (\w+)(?:\[(\w+)\])?;", body[1], re.MULTILINE
    ):
        size = C_SIZES[kind]
        offset += -offset % size
        length = size * (C_ARRAYS.get(count) or int(count or 1))
        if not field.startswith("pad"):
            fields.append((offset, length, kind.startswith("__be")))
        offset += length
    return fields, offset


def python_fields(layout: Struct) -> tuple[list[tuple[int, int, bool]], int]:
    """Return the same of a format; MACs are bytes, and told apart by their size."""
    fields, offset = [], 0
    for count, code in re.findall(r"(\d*)([a-zA-Z])", layout.format):
        if code in "xs":
            size = int(count or 1)
            if code == "s":
                fields.append((offset, size, size in (2, 4)))
            offset += size
            continue
        for _ in range(int(count or 1)):
            size = calcsize(f"={code}")
            fields.append((offset, size, False))
            offset += size
    return fields, offset


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_that_of_types_h(name: str) -> None:
    assert c_fields(name) == python_fields(LAYOUTS[name])


def test_constants_are_those_of_types_h() -> None:
    text = (BPF / "types.h").read_text()
    found = {
        name: int(number)
        for name, number in re.findall(
            r"^\s*(?:#define )?(\w+)(?: =)? (\d+)\b", text, re.M
        )
    }

    assert (
        maps.KIND_GATEWAY,
        maps.KIND_EXCLUDED,
        maps.KIND_NO_GATEWAY,
        maps.KIND_NO_EGRESS_IP,
    ) == tuple(
        found[f"POLICY_{kind}"]
        for kind in ("GATEWAY", "EXCLUDED", "NO_GATEWAY", "NO_EGRESS_IP")
    )
    assert maps.FAMILY_IPV4 == found["FAMILY_IPV4"]
    assert maps.ROLE_EGRESS_IP == found["ROLE_EGRESS_IP"]
    assert {flag.name: flag.value for flag in EndpointFlag} == {
        "HOST": found["ENDPOINT_HOST"],
        "POD": found["ENDPOINT_POD"],
    }
    assert {f"FLOW_{d.name}": d.value for d in records.FlowDecision} == {
        name: number for name, number in found.items() if name.startswith("FLOW_")
    }
    assert list(GatewayPath).index(GatewayPath.STACK) == found["GATEWAY_STACK"]


def test_map_names_and_sizes_are_those_of_maps_h() -> None:
    text = (BPF / "maps.h").read_text()

    assert set(re.findall(r"^} (\w+) SEC", text, re.MULTILINE)) == set(MapName)


def test_policy_row_of_the_guide_has_the_guides_bytes() -> None:
    key = PolicyKey(IPv4Address("10.0.0.174"), ECHO)
    name, encoded = encode_key(key)
    value = encode_value(ViaGateway(GATEWAY, GATEWAY, PolicyId(1)))

    assert name == "cilium_egress_v4"
    assert encoded.hex(" ") == "30 00 00 00 0a 00 00 ae ac 12 00 00"
    assert value.hex(" ").startswith("ac 12 00 05 ac 12 00 05")


ENTRIES: list[tuple[Key, Value]] = [
    (NodeKey(GATEWAY), NodeEntry()),
    (IpcacheKey(IPv4Network("0.0.0.0/0")), IpcacheEntry(WORLD, None)),
    (IpcacheKey(ECHO), IpcacheEntry(WORLD, GATEWAY)),
    (CoveredKey(ECHO), CoveredEntry(PolicyId(2**32 - 1))),
    (PolicyKey(GATEWAY, ECHO), ViaGateway(GATEWAY, GATEWAY, PolicyId(1))),
    (PolicyKey(GATEWAY, ECHO), Excluded(PolicyId(1))),
    (PolicyKey(GATEWAY, ECHO), NoGateway(PolicyId(1))),
    (PolicyKey(GATEWAY, IPv4Network("0.0.0.0/0")), NoEgressIP(GATEWAY, PolicyId(1))),
    (EndpointKey(GATEWAY), EndpointEntry(EndpointFlag.HOST, is_egress_ip=True)),
    (EndpointKey(GATEWAY), EndpointEntry(EndpointFlag.POD)),
]


@pytest.mark.parametrize(("key", "value"), ENTRIES, ids=str)
def test_an_entry_survives_its_bytes(key: Key, value: Value) -> None:
    name, encoded = encode_key(key)

    assert decode_entry(name, encoded, encode_value(value)) == (key, value)


def test_a_row_of_an_unknown_kind_is_not_ours() -> None:
    name, key = encode_key(PolicyKey(GATEWAY, ECHO))

    assert decode_entry(name, key, bytes(12) + b"\x09" + bytes(3)) is None


def test_a_row_with_a_prefix_inside_the_source_is_not_ours() -> None:
    key = maps.EGRESS_KEY.pack(8, bytes(4), bytes(4))
    value = maps.encode_policy_value(NoGateway(PolicyId(1)))

    assert decode_entry(MapName.EGRESS, key, value) is None


@pytest.mark.parametrize("key", [TunnelKey(), AttachmentKey("eth0", Hook.TO_NETDEV)])
def test_what_lives_in_no_map_is_refused(key: Key) -> None:
    with pytest.raises(ValueError, match="lives in no map"):
        encode_key(key)


def test_settings_take_32_bytes() -> None:
    settings = DatapathSettings(1, 2, 3, 4, 5, 250, 1024, 65535, GatewayPath.STACK)

    assert settings.encode().hex(" ") == (
        "01 00 00 00 02 00 00 00 03 00 00 00 04 00 00 00 05 00 00 00 "
        "fa 00 00 00 00 04 ff ff 01 00 00 00"
    )


def test_runtime_config_survives_its_bytes() -> None:
    config = RuntimeConfig(7, 2**32 - 1, bytes.fromhex("0a0000000001"), 1450)

    assert RuntimeConfig.decode(config.encode()) == config


def test_decode_entry_leaves_a_row_of_other_sizes_alone() -> None:
    """Another product may have pinned a map under one of our names."""
    assert decode_entry(MapName.IPCACHE, bytes(20), bytes(20)) is None
