import re
import runpy
import subprocess
from dataclasses import replace
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from struct import Struct, calcsize

import pytest

from outgate.kernel import layouts, maps, records, settings
from outgate.kernel.maps import (
    MapName,
    decode_entry,
    decode_row,
    encode_key,
    encode_value,
    entry_map,
)
from outgate.kernel.settings import (
    DatapathSettings,
    ExistingFlows,
    GatewayPath,
    OtherFamily,
    RuntimeConfig,
    TunnelWay,
)
from outgate.state.entries import (
    CLUSTER,
    WORLD,
    Address,
    AttachmentKey,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
    Family,
    Hook,
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
    RowsKey,
    TunnelKey,
    Value,
    ViaGateway,
)

BPF = Path(__file__).parents[3] / "bpf"
C_SIZES = {"__u8": 1, "__be16": 2, "__u16": 2, "__be32": 4, "__u32": 4, "__u64": 8}

GATEWAY = IPv4Address("172.18.0.5")
ECHO = IPv4Network("172.18.0.0/16")
GATEWAY_6 = IPv6Address("fc00:f853:ccd:e793::5")
ECHO_6 = IPv6Network("fc00:f853:ccd:e793::/64")

LAYOUTS: dict[str, Struct | layouts.Layout] = {
    "egress_key": layouts.EGRESS_KEY,
    "egress_value": layouts.EGRESS_VALUE,
    "source_value": layouts.SOURCE_VALUE,
    "set_key": layouts.SET_KEY,
    "network_key": layouts.NETWORK_KEY,
    "covered_value": layouts.COVERED_VALUE,
    "endpoint_key": layouts.ENDPOINT_KEY,
    "endpoint": layouts.ENDPOINT,
    "ipcache_key": layouts.IPCACHE_KEY,
    "ipcache_value": layouts.IPCACHE_VALUE,
    "node_value": layouts.NODE_VALUE,
    "runtime_config": settings.CONFIG,
    "settings": settings.SETTINGS,
    "tuple": layouts.TUPLE,
    "flow_entry": layouts.FLOW,
    "nat_entry": layouts.NAT,
    "ports_key": layouts.PORTS_KEY,
    "ports_value": layouts.PORTS_VALUE,
    "fragment_value": layouts.FRAGMENT_VALUE,
    "event": layouts.EVENT,
    "metric_key": layouts.METRIC_KEY,
    "metric_value": layouts.METRIC_VALUE,
    "forwarded_value": layouts.FORWARDED_VALUE,
    "free_value": layouts.FREE_VALUE,
    "xdp_device": layouts.XDP_DEVICE,
}

Fields = tuple[list[tuple[int, int, bool]], int]


@cache
def dumped_layouts(family: Family) -> str:
    """Return every structure of types.h as the compiler lays it out."""
    compiler = runpy.run_path(str(BPF / "compile.py"))["compiler"]()
    flags = ("-fsyntax-only", "-Xclang", "-fdump-record-layouts-complete", "-x", "c")
    header = str(BPF / "include" / "types.h")
    command = [*compiler, *flags, f"-DOUTGATE_FAMILY={family.value}", header]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


def c_fields(name: str, family: Family) -> Fields:
    """Return (offset, size, is in network order) of all but padding, and the size."""
    sizes = {
        **C_SIZES,
        "struct ip_address": layouts.ADDRESS_SIZES[family],
        "struct any_address": 16,
    }
    text = dumped_layouts(family)
    body = re.search(rf"\| struct {name}\n(.*?)\[sizeof=(\d+)", text, re.DOTALL)
    assert body
    fields = [
        (
            int(offset),
            sizes[kind] * int(count or 1),
            kind.startswith("__be") or kind.endswith("_address"),
        )
        for offset, kind, count, field in re.findall(
            r"^ +(\d+) \|   (\w+(?: \w+)?)(?:\[(\d+)\])? (\w+)$", body[1], re.MULTILINE
        )
        if not field.startswith("pad")
    ]
    return fields, int(body[2])


def python_fields(layout: Struct) -> Fields:
    """Return the same of a format; MACs are bytes, and told apart by their size."""
    fields, offset = [], 0
    for count, code in re.findall(r"(\d*)([a-zA-Z])", layout.format):
        if code in "xs":
            size = int(count or 1)
            if code == "s":
                fields.append((offset, size, size in (2, 4, 16)))
            offset += size
            continue
        for _ in range(int(count or 1)):
            size = calcsize(f"={code}")
            fields.append((offset, size, False))
            offset += size
    return fields, offset


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_that_of_types_h(name: str, family: Family) -> None:
    layout = LAYOUTS[name]
    form = layout if isinstance(layout, Struct) else layout[family]

    assert c_fields(name, family) == python_fields(form)


def test_constants_are_those_of_types_h() -> None:
    text = (BPF / "include" / "types.h").read_text()
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
    assert layouts.FAMILY_NUMBERS == {
        Family.V4: found["FAMILY_IPV4"],
        Family.V6: found["FAMILY_IPV6"],
    }
    assert maps.ROLE_EGRESS_IP == found["ROLE_EGRESS_IP"]
    assert maps.ROLE_OTHER_FAMILY == found["ROLE_OTHER_FAMILY"]
    assert maps.IPCACHE_ENDPOINT_IS_IPV6 == found["IPCACHE_ENDPOINT_IPV6"]
    assert {flag.name: flag.value for flag in EndpointFlag} == {
        "HOST": found["ENDPOINT_HOST"],
        "POD": found["ENDPOINT_POD"],
    }
    for prefix, members in (
        ("FLOW", records.FlowDecision),
        ("FRAGMENT", records.FragmentState),
    ):
        assert {f"{prefix}_{m.name}": m.value for m in members} == {
            name: number
            for name, number in found.items()
            if name.startswith(f"{prefix}_")
        }
    for prefix, choices in (
        ("GATEWAY", GatewayPath),
        ("FLOWS", ExistingFlows),
        ("OTHER_FAMILY", OtherFamily),
        ("TUNNEL", TunnelWay),
    ):
        for number, choice in enumerate(choices):
            assert found[f"{prefix}_{choice.name}"] == number


def test_map_names_and_sizes_are_those_of_maps_h() -> None:
    sources = (BPF / "include" / "maps.h", BPF / "collect.bpf.c")
    text = "".join(path.read_text() for path in sources)

    found = re.findall(r"^} (?:FAMILY\((\w+)\)|(\w+)) SEC", text, re.MULTILINE)
    names = {plain for _, plain in found if plain}
    names |= {f"{stem}_{version}" for stem, _ in found for version in ("v4", "v6")}

    assert names - {"_v4", "_v6"} == set(MapName)


def test_policy_row_of_the_guide_has_the_guides_bytes() -> None:
    key = PolicyKey(IPv4Address("10.0.0.174"), ECHO)
    name, encoded = encode_key(key)
    value = encode_value(key, ViaGateway(GATEWAY, GATEWAY, PolicyId(1)))

    assert name == "cilium_egress_v4"
    assert encoded.hex(" ") == "30 00 00 00 0a 00 00 ae ac 12 00 00"
    assert value.hex(" ").startswith("ac 12 00 05 ac 12 00 05")


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (GATEWAY, "00" * 10 + "ffff" + "ac120005"),
        (GATEWAY_6, "fc00f8530ccde7930000000000000005"),
    ],
)
def test_ipv6_row_holds_an_endpoint_of_either_family(
    endpoint: Address, expected: str
) -> None:
    """The outer header is of the family of the nodes' addresses, not of the pods'."""
    key = PolicyKey(IPv6Address("fd00:10::42"), ECHO_6)
    name, encoded = encode_key(key)
    value = encode_value(key, ViaGateway(GATEWAY_6, endpoint, PolicyId(1)))

    assert name == "cilium_egress_v6"
    assert encoded == bytes.fromhex(
        "c0000000 fd000010000000000000000000000042 fc00f8530ccde7930000000000000000"
    )
    assert value == GATEWAY_6.packed + bytes.fromhex(expected + "01000000 01 000000")


def test_ipv4_row_has_no_room_for_an_ipv6_endpoint() -> None:
    key = PolicyKey(GATEWAY, ECHO)

    with pytest.raises(ValueError, match="cannot hold the tunnel endpoint fc00"):
        encode_value(key, ViaGateway(GATEWAY, GATEWAY_6, PolicyId(1)))


def test_ipcache_row_says_of_which_family_its_endpoint_is() -> None:
    key = IpcacheKey(IPv6Network("fd00:10:1::/64"))
    name, encoded = encode_key(key)

    assert name == "cilium_ipcache"
    assert encoded == bytes.fromhex(
        "60000000 000000 02 fd000010000100000000000000000000"
    )
    assert encode_value(key, IpcacheEntry(CLUSTER, GATEWAY)) == bytes.fromhex(
        "03000000 ac120005 000000000000000000000000 0000 00 00"
    )
    assert encode_value(key, IpcacheEntry(CLUSTER, GATEWAY_6)) == bytes.fromhex(
        "03000000 fc00f8530ccde7930000000000000005 0000 00 04"
    )


ENTRIES: list[tuple[Key, Value]] = [
    (NodeKey(GATEWAY), NodeEntry()),
    (IpcacheKey(IPv4Network("0.0.0.0/0")), IpcacheEntry(WORLD, None)),
    (IpcacheKey(ECHO), IpcacheEntry(WORLD, GATEWAY)),
    (CoveredKey(ECHO), CoveredEntry(PolicyId(2**32 - 1))),
    (EndpointKey(GATEWAY), EndpointEntry(EndpointFlag.HOST, is_egress_ip=True)),
    (EndpointKey(GATEWAY), EndpointEntry(EndpointFlag.POD)),
    (NodeKey(GATEWAY_6), NodeEntry()),
    (IpcacheKey(IPv6Network("::/0")), IpcacheEntry(WORLD, None)),
    (IpcacheKey(ECHO_6), IpcacheEntry(CLUSTER, GATEWAY)),
    (IpcacheKey(ECHO), IpcacheEntry(CLUSTER, GATEWAY_6)),
    (CoveredKey(ECHO_6), CoveredEntry(PolicyId(2**32 - 1))),
    (EndpointKey(GATEWAY_6), EndpointEntry(EndpointFlag.HOST, is_egress_ip=True)),
    (EndpointKey(GATEWAY_6), EndpointEntry(EndpointFlag.POD, is_other_family=True)),
]

ROWS: list[tuple[PolicyKey, PolicyEntry]] = [
    (PolicyKey(GATEWAY, ECHO), ViaGateway(GATEWAY, GATEWAY, PolicyId(1))),
    (PolicyKey(GATEWAY, ECHO), Excluded(PolicyId(1))),
    (PolicyKey(GATEWAY, ECHO), NoGateway(PolicyId(1))),
    (PolicyKey(GATEWAY, IPv4Network("0.0.0.0/0")), NoEgressIP(GATEWAY, PolicyId(1))),
    (PolicyKey(GATEWAY_6, ECHO_6), ViaGateway(GATEWAY_6, GATEWAY_6, PolicyId(1))),
    (PolicyKey(GATEWAY_6, ECHO_6), ViaGateway(GATEWAY_6, GATEWAY, PolicyId(1))),
    (PolicyKey(GATEWAY_6, ECHO_6), Excluded(PolicyId(1))),
    (PolicyKey(GATEWAY_6, ECHO_6), NoGateway(PolicyId(1))),
    (PolicyKey(GATEWAY_6, IPv6Network("::/0")), NoEgressIP(GATEWAY, PolicyId(1))),
    (PolicyKey(GATEWAY, ECHO), ViaGateway(None, GATEWAY, PolicyId(1))),
    (PolicyKey(GATEWAY_6, ECHO_6), ViaGateway(None, GATEWAY, PolicyId(1))),
]


@pytest.mark.parametrize(("key", "value"), ENTRIES, ids=str)
def test_an_entry_survives_its_bytes(key: Key, value: Value) -> None:
    name, encoded = encode_key(key)

    assert decode_entry(name, encoded, encode_value(key, value)) == (key, value)
    assert entry_map(key) is name


@pytest.mark.parametrize(("key", "value"), ROWS, ids=str)
def test_a_row_of_a_pod_survives_its_bytes(key: PolicyKey, value: PolicyEntry) -> None:
    name, encoded = encode_key(key)

    assert decode_row(name, encoded, encode_value(key, value)) == (key, value)


def test_a_row_of_an_unknown_kind_is_not_ours() -> None:
    name, key = encode_key(PolicyKey(GATEWAY, ECHO))

    assert decode_row(name, key, bytes(12) + b"\x09" + bytes(3)) is None


def test_a_row_with_a_prefix_inside_the_source_is_not_ours() -> None:
    key = layouts.EGRESS_KEY[Family.V4].pack(8, bytes(4), bytes(4))
    value = maps.encode_policy_value(NoGateway(PolicyId(1)), Family.V4)

    assert decode_row(MapName.EGRESS_V4, key, value) is None


def test_a_row_with_bytes_behind_its_ipv4_address_is_not_ours() -> None:
    key = GATEWAY.packed + bytes(11) + b"\x01" + b"\x01\0\0\0"

    assert decode_entry(MapName.ENDPOINT, key, bytes(48)) is None


@pytest.mark.parametrize("key", [TunnelKey(), AttachmentKey("eth0", Hook.TO_NETDEV)])
def test_what_lives_in_no_map_is_refused(key: Key) -> None:
    with pytest.raises(ValueError, match="lives in no map"):
        encode_key(key)


def test_the_rows_of_a_pod_are_no_single_row() -> None:
    with pytest.raises(ValueError, match="many rows"):
        encode_key(RowsKey(GATEWAY))


def test_settings_take_36_bytes() -> None:
    settings = DatapathSettings(1, 2, 3, 4, 5, 250, 1024, 65535, GatewayPath.STACK)

    assert settings.encode().hex(" ") == (
        "01 00 00 00 02 00 00 00 03 00 00 00 04 00 00 00 05 00 00 00 "
        "fa 00 00 00 00 04 ff ff 01 00 00 00 00 00 51 13"
    )


def test_settings_end_with_the_choices() -> None:
    settings = DatapathSettings(
        *(1, 2, 3, 4, 5, 250, 1024, 65535),
        gateway_path=GatewayPath.DIRECT,
        existing_flows=ExistingFlows.REDECIDE,
        other_family=OtherFamily.DROP,
        tunnel_port=8472,
        tunnel_way=TunnelWay.DEVICE,
    )

    assert settings.encode()[-8:-2] == b"\0\x01\x01\x01\x18\x21"


@pytest.mark.parametrize("ports", [(1024, 65535), (0, 65535), (7, 7), (20000, 20255)])
def test_settings_know_where_a_search_comes_to_a_port(ports: tuple[int, int]) -> None:
    """``place_of_port()`` undoes ``port_at_place()`` in each range."""
    header = (BPF / "include" / "port_hints.h").read_text()
    stride = re.search(r"#define PORT_STRIDE (\d+)U", header)
    settings = DatapathSettings(1, 2, 3, 4, 5, 250, *ports, GatewayPath.DIRECT)
    (inverse,) = Struct("=H").unpack(settings.encode()[-2:])
    span = ports[1] - ports[0] + 1

    assert stride
    places = [offset * inverse % span for offset in range(span)]
    assert list(range(span)) == [place * int(stride[1]) % span for place in places]


def test_runtime_config_survives_its_bytes() -> None:
    config = RuntimeConfig(7, 2**16 - 1, bytes.fromhex("0a0000000001"), 1450, 9)
    source = IPv6Address("fd00::3")

    for expected in (config, replace(config, tunnel_source=source)):
        assert RuntimeConfig.decode(expected.encode()) == expected
    assert config.encode() == bytes.fromhex(
        "07000000 ffff 0900 0a0000000001 aa05" + 16 * "00"
    )


def test_decode_entry_leaves_a_row_of_other_sizes_alone() -> None:
    """Another product may have pinned a map under one of our names."""
    assert decode_entry(MapName.IPCACHE, bytes(20), bytes(20)) is None
