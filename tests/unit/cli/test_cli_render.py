from ipaddress import IPv4Address, IPv4Network, IPv6Address
from struct import pack
from typing import Any

import pytest

from outgate.cli.maprows import MapRow, map_rows
from outgate.cli.render import status_text, table
from outgate.kernel.layouts import FORWARDED_VALUE, FREE_KEY, FREE_VALUE
from outgate.kernel.maps import MapName, encode_key, encode_value
from outgate.kernel.settings import RuntimeConfig
from outgate.state.entries import (
    WORLD,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Identity,
    IpcacheEntry,
    IpcacheKey,
    Key,
    NoGateway,
    PolicyEntry,
    PolicyId,
    PolicyKey,
    Value,
    ViaGateway,
)

GATEWAY = IPv4Address("172.18.0.5")
ECHO = IPv4Network("172.18.0.0/16")


def counted(reason: str, policy: str, packets: int, size: int) -> dict[str, Any]:
    return {
        "reason": reason,
        "direction": "to_world",
        "policy": policy,
        "packets": packets,
        "byte_count": size,
    }


def raw(
    *entries: tuple[Key | PolicyKey, Value | PolicyEntry],
) -> list[tuple[bytes, bytes]]:
    return [(encode_key(key)[1], encode_value(key, value)) for key, value in entries]


def test_ipcache_prints_as_users_of_the_field_know_it() -> None:
    entries = raw(
        (IpcacheKey(IPv4Network("172.18.0.5/32")), IpcacheEntry(Identity(1), None)),
        (IpcacheKey(IPv4Network("0.0.0.0/0")), IpcacheEntry(WORLD, None)),
    )
    rows = [(r.key, r.value, "sync", "") for r in map_rows(MapName.IPCACHE, entries)]

    assert table(("Key", "Value", "State", "Error"), rows).splitlines() == [
        "Key             Value                State   Error",
        "0.0.0.0/0       2 0 0.0.0.0          sync",
        "172.18.0.5/32   1 0 0.0.0.0          sync",
    ]


def test_policy_rows_are_sorted_by_pod() -> None:
    later, earlier = IPv4Address("10.0.1.42"), IPv4Address("10.0.0.174")
    entries = raw(
        (PolicyKey(later, ECHO), NoGateway(PolicyId(7))),
        (PolicyKey(earlier, ECHO), ViaGateway(GATEWAY, GATEWAY, PolicyId(7))),
    )

    assert [(row.key, row.value) for row in map_rows(MapName.EGRESS_V4, entries)] == [
        ("10.0.0.174 -> 172.18.0.0/16", "172.18.0.5 172.18.0.5 policy 0x00000007"),
        ("10.0.1.42 -> 172.18.0.0/16", "no gateway policy 0x00000007"),
    ]


def test_a_row_knows_its_entry_by_the_agents_name() -> None:
    entries = raw((EndpointKey(GATEWAY), EndpointEntry(EndpointFlag.HOST)))

    assert map_rows(MapName.ENDPOINT, entries) == [
        MapRow("172.18.0.5", "host", ("endpoint", "172.18.0.5"), "host")
    ]


def test_a_foreign_row_is_shown_as_bytes() -> None:
    key = encode_key(PolicyKey(GATEWAY, ECHO))[1]

    assert map_rows(MapName.EGRESS_V4, [(key, bytes(16))])[0].value.startswith("00 00")


def test_flow_row_says_where_the_flow_goes() -> None:
    key = bytes.fromhex("0a00012a ac120064 9c40 0050 06 00 0000")
    value = bytes.fromhex(
        "01 03 0000 07000000 ac120005 ac120005 09000000"
        "000000000000 000000000000 0000000000000000"
    )

    assert map_rows(MapName.FLOW_V4, [(key, value)]) == [
        MapRow(
            "tcp 10.0.1.42:40000 -> 172.18.0.100:80",
            "to gateway 172.18.0.5 as 172.18.0.5 policy 0x00000007",
        )
    ]


def test_a_flow_of_a_newer_datapath_is_shown_as_bytes() -> None:
    key = bytes.fromhex("0a00012a ac120064 9c40 0050 06 00 0000")

    assert map_rows(MapName.FLOW_V4, [(key, b"\x63" + bytes(39))])[0].key == (
        "0a 00 01 2a ac 12 00 64 9c 40 00 50 06 00 00 00"
    )


def test_a_source_is_shown_with_its_set() -> None:
    pod = "0a00012a"

    assert map_rows(
        MapName.SOURCE_V4,
        [(bytes.fromhex(pod), bytes.fromhex(f"{pod} 05000000"))],
    ) == [MapRow("10.0.1.42", "set 5")]


def test_a_row_of_a_set_is_shown_as_the_row_of_a_pod() -> None:
    key = bytes.fromhex("38000000 05000000 cb007100")
    value = bytes.fromhex("ac120005 ac120004 07000000 01 000000")

    assert map_rows(MapName.SET_V4, [(key, value)]) == [
        MapRow("set 5 -> 203.0.113.0/24", "172.18.0.5 172.18.0.4 policy 0x00000007")
    ]


def test_snat_row_says_what_becomes_of_the_source() -> None:
    key = bytes.fromhex("0a00012a ac120064 9c40 0050 06 01 0000")
    value = bytes.fromhex(
        "ac120005 9c40 00 00 ac120004 07000000 02000000 ac120064 05000000"
        "000000000000 000000000000 efbeadde 00000000 0000000000000000"
    )

    assert map_rows(MapName.SNAT_V4, [(key, value)]) == [
        MapRow(
            "forward tcp 10.0.1.42:40000 -> 172.18.0.100:80",
            "source 172.18.0.5:40000 pod on node 172.18.0.4 policy 0x00000007",
        )
    ]


def test_ipv6_rows_write_ports_behind_brackets() -> None:
    pod, server = "fd000010000100000000000000000042", "20010db8" + "00" * 11 + "64"
    key = bytes.fromhex(f"{pod} {server} 9c40 0050 06 01 0000")
    value = bytes.fromhex(
        f"{server} 9c40 00 00 {'00' * 10} ffff ac120004 07000000 02000000 {'00' * 16}"
        "0500 0000 000000000000 000000000000 00000000 0000000000000000"
    )

    assert map_rows(MapName.SNAT_V6, [(key, value)]) == [
        MapRow(
            "forward tcp [fd00:10:1::42]:40000 -> [2001:db8::64]:80",
            "source [2001:db8::64]:40000 pod on node 172.18.0.4 policy 0x00000007",
        )
    ]


def test_ports_row_says_how_many_are_taken() -> None:
    key = bytes.fromhex("cb007109 ac120005 0050") + pack("=HHBx", 1024, 65535, 6)
    value = b"\xff" * 8 + b"\x05" + bytes(8183 + 16)

    assert map_rows(MapName.PORTS_V4, [(key, value)]) == [
        MapRow(
            "tcp 172.18.0.5 -> 203.0.113.9:80",
            "66 of the ports 1024 to 65535 need no try",
        )
    ]


@pytest.mark.parametrize(
    ("state", "awaited", "text"),
    [
        (0, 1, "its first part has not come, parts wait"),
        (1, 0, "ports 40000 -> 53"),
        (2, 0, "of this node itself"),
    ],
)
def test_fragment_row_says_what_is_known_of_a_datagram(
    state: int, awaited: int, text: str
) -> None:
    key = bytes.fromhex("0a00012a ac120064 0007 0000 11 000000")
    value = bytes.fromhex("9c40 0035 11") + bytes([state, awaited]) + bytes(9)

    assert map_rows(MapName.FRAG_V4, [(key, value)]) == [
        MapRow("10.0.1.42 -> 172.18.0.100 id 7", text)
    ]


def test_rows_of_both_families_are_sorted_ipv4_first() -> None:
    entries = raw(
        (EndpointKey(IPv6Address("::1:2")), EndpointEntry(EndpointFlag.POD)),
        (EndpointKey(GATEWAY), EndpointEntry(EndpointFlag.HOST)),
        (
            EndpointKey(IPv6Address("::1:1")),
            EndpointEntry(EndpointFlag.POD, is_other_family=True),
        ),
    )

    assert [(row.key, row.value) for row in map_rows(MapName.ENDPOINT, entries)] == [
        ("172.18.0.5", "host"),
        ("::1:1", "pod, other family"),
        ("::1:2", "pod"),
    ]


def test_metric_row_names_its_reason() -> None:
    key = bytes.fromhex("0c 01 0000 00000000")
    value = (2).to_bytes(8, "little") + (84).to_bytes(8, "little")

    assert map_rows(MapName.METRICS, [(key, value)]) == [
        MapRow("drop_no_route to_world -", "2 packets 84 bytes")
    ]


def test_config_row_shows_the_tunnel() -> None:
    config = RuntimeConfig(7, 3, bytes.fromhex("0a0000000001"), 1450, 9)

    assert map_rows(MapName.CONFIG, [(bytes(4), config.encode())]) == [
        MapRow(
            "0",
            "tunnel interface 7 mac 0a:00:00:00:00:01 mtu 1450 routes generation 3"
            " policies generation 9",
        )
    ]


def test_status_text_says_that_a_failing_source_removes_nothing() -> None:
    status = {
        "node": "k8s-guide-worker",
        "version": "0.1.0",
        "pinDir": "/sys/fs/bpf/outgate",
        "gatewayPath": "direct",
        "existingFlows": "keep",
        "otherFamily": "pass",
        "gatewayHook": "auto",
        "uplinks": [{"interface": "eth0", "hook": "tc", "reason": "it is a veth"}],
        "source": {"listed": True, "complete": False, "errors": {"pods": "refused"}},
        "egressNode": {"written": 1, "failed": 2, "error": "forbidden"},
        "lastRound": None,
        "lastRoundAge": None,
        "entries": {"policy": {"done": 2, "error": 1}},
        "failures": [
            {
                "kind": "policy",
                "key": "a -> b",
                "error": "write map: no room",
                "age": 3.2,
                "nextAttempt": 1.0,
            }
        ],
        "problems": [{"object": "P", "path": "spec", "message": "is wrong"}],
        "forwarded": 5,
        "passed": {"other_family": 3},
        "drops": {"drop_no_route": 1},
        "garbage": {"error": "", "ipv4": {"released": 8}, "ipv6": {"released": 0}},
        "packets": [
            counted("forwarded", "P one", 5, 300),
            counted("drop_no_route", "P one", 1, 60),
            counted("other_family", "", 3, 252),
        ],
    }

    assert status_text(status).splitlines() == [
        "node             k8s-guide-worker",
        "version          0.1.0",
        "pin directory    /sys/fs/bpf/outgate",
        "gateway path     direct",
        "existing flows   keep",
        "other family     pass",
        "gateway hook     auto",
        "uplink           eth0 by tc: it is a veth",
        "source           failing: entries are added, none is removed",
        "                 pods: refused",
        "EgressNode       not written: forbidden",
        "last round       none yet",
        "entries policy   2 done, 1 error",
        "garbage          by timer: ipv4 8 flows, ipv6 0 flows",
        "forwarded        5 packets",
        "refused          policy a -> b: write map: no room"
        " (for 3 s, next attempt in 1 s)",
        "problem          P: spec: is wrong",
        "",
        "Reason          Direction   Packets   Bytes   Policy",
        "drop_no_route   to_world    1         60      P one",
        "other_family    to_world    3         252     -",
    ]


def test_a_row_of_other_sizes_is_printed_as_bytes() -> None:
    assert map_rows(MapName.FLOW_V4, [(b"\x01", b"\x02")]) == [MapRow("01", "02")]


def test_what_was_sent_on_is_shown_by_policy_without_empty_slots() -> None:
    empty = FORWARDED_VALUE.pack(0, 0, 0, 0, 0)
    slot = FORWARDED_VALUE.pack(7, 3, 180, 1, 60) + FORWARDED_VALUE.pack(7, 1, 60, 0, 0)
    rows = [(bytes(4), empty * 2), (b"\7\0\0\0", slot)]

    assert map_rows(MapName.FORWARDED, rows) == [
        MapRow("forwarded to_pod policy 0x00000007", "1 packets 60 bytes"),
        MapRow("forwarded to_world policy 0x00000007", "4 packets 240 bytes"),
    ]


def test_free_addresses_are_shown_as_bits() -> None:
    (row,) = map_rows(MapName.FREE, [(FREE_KEY.pack(3), FREE_VALUE.pack(5))])

    assert row == MapRow("word     3", "0" * 61 + "101")
