from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from outgate.kernel.layouts import FORWARDED_VALUE, METRIC_KEY, METRIC_VALUE
from outgate.kernel.records import (
    FlowDecision,
    FlowRecord,
    FlowTuple,
    FragmentRecord,
    FragmentState,
    MetricDirection,
    MetricRecord,
    NatDirection,
    NatRecord,
    read_counts,
)
from outgate.state.entries import InterfaceIndex, PolicyId


def test_tuple_ports_are_read_in_network_order() -> None:
    key = bytes.fromhex("0a00012a ac120064 9c40 0050 06 02 0000")

    assert FlowTuple.decode(key) == FlowTuple(
        IPv4Address("10.0.1.42"),
        IPv4Address("172.18.0.100"),
        40000,
        80,
        6,
        NatDirection.REVERSE,
    )


def test_flow_record_names_its_decision() -> None:
    value = bytes.fromhex(
        "01 03 0500 07000000 ac120005 ac120005 09000000"
        "0a0000000001 0a0000000002 e803000000000000"
    )

    assert FlowRecord.decode(value) == FlowRecord(
        FlowDecision.TO_GATEWAY,
        PolicyId(7),
        IPv4Address("172.18.0.5"),
        IPv4Address("172.18.0.5"),
        InterfaceIndex(9),
        3,
        1000,
        generation=5,
    )


def test_nat_record_of_a_host_socket_says_so() -> None:
    value = bytes.fromhex(
        "0a00012a 9c40 00 01 ac120004 07000000 02000000 ac120001 0500 0900"
        "000000000000 000000000000 efbeadde 00000000 e803000000000000"
    )

    assert NatRecord.decode(value) == NatRecord(
        address=IPv4Address("10.0.1.42"),
        port=40000,
        tunnel_endpoint=IPv4Address("172.18.0.4"),
        next_hop=IPv4Address("172.18.0.1"),
        ifindex=InterfaceIndex(2),
        policy=PolicyId(7),
        tcp=0,
        is_host_socket=True,
        last_seen=1000,
    )


V6_POD, V6_SERVER = "fd000010000100000000000000000042", "20010db8" + "00" * 11 + "64"


def test_ipv6_tuple_is_told_by_its_size() -> None:
    key = bytes.fromhex(f"{V6_POD} {V6_SERVER} 9c40 0050 3a 01 0000")

    assert FlowTuple.decode(key) == FlowTuple(
        IPv6Address("fd00:10:1::42"),
        IPv6Address("2001:db8::64"),
        40000,
        80,
        58,
        NatDirection.FORWARD,
    )


def test_ipv6_flow_through_ipv4_nodes_names_an_ipv4_endpoint() -> None:
    mapped = "00" * 10 + "ffff" + "ac120005"
    value = bytes.fromhex(
        f"01 03 0500 07000000 {mapped} {V6_SERVER} 09000000"
        "0a0000000001 0a0000000002 e803000000000000"
    )

    assert FlowRecord.decode(value) == FlowRecord(
        FlowDecision.TO_GATEWAY,
        PolicyId(7),
        IPv4Address("172.18.0.5"),
        IPv6Address("2001:db8::64"),
        InterfaceIndex(9),
        3,
        1000,
        generation=5,
    )


def test_ipv6_nat_record_of_a_local_pod_has_no_endpoint() -> None:
    nothing = "00" * 16
    value = bytes.fromhex(
        f"{V6_POD} 9c40 00 00 {nothing} 07000000 02000000 {nothing} 0500 0900"
        "000000000000 000000000000 00000000 e803000000000000"
    )

    assert NatRecord.decode(value) == NatRecord(
        address=IPv6Address("fd00:10:1::42"),
        port=40000,
        tunnel_endpoint=IPv6Address("::"),
        next_hop=IPv6Address("::"),
        ifindex=InterfaceIndex(2),
        policy=PolicyId(7),
        tcp=0,
        is_host_socket=False,
        last_seen=1000,
    )


@pytest.mark.parametrize(
    ("source", "number", "expected"),
    [("0a00012a", "00070000", "10.0.1.42"), (V6_POD, "00000007", "fd00:10:1::42")],
    ids=["ipv4", "ipv6"],
)
def test_fragment_record_knows_a_datagram_by_the_number_in_its_header(
    source: str, number: str, expected: str
) -> None:
    """IPv4's has 16 bits, in the first half of the field."""
    key = bytes.fromhex(f"{source} {source} {number} 11 000000")
    value = bytes.fromhex("9c40 0035 11 01 01 00 e803000000000000")

    assert FragmentRecord.decode(key, value) == FragmentRecord(
        source=ip_address(expected),
        destination=ip_address(expected),
        identification=7,
        protocol=17,
        source_port=40000,
        destination_port=53,
        state=FragmentState.KNOWN,
        is_awaited=True,
        last_seen=1000,
    )


def test_metric_record_adds_up_all_cpus() -> None:
    key = bytes.fromhex("02 01 0000 07000000")
    one = (3).to_bytes(8, "little") + (180).to_bytes(8, "little")

    assert MetricRecord.decode(key, one * 2) == MetricRecord(
        2, MetricDirection.TO_WORLD, PolicyId(7), 6, 360
    )


def slot(*cpus: tuple[int, int, int, int, int]) -> bytes:
    """Return a slot of ``outgate_forwarded``: policy, to the world, to the pod."""
    return b"".join(FORWARDED_VALUE.pack(*cpu) for cpu in cpus)


def test_forwarded_packets_of_a_slot_are_each_policys_own() -> None:
    values = slot((7, 1, 60, 2, 120), (1031, 3, 180, 0, 0), (7, 10, 600, 0, 0))
    out, back = MetricDirection.TO_WORLD, MetricDirection.TO_POD

    assert set(read_counts((), ((b"", values),))) == {
        MetricRecord(0, out, PolicyId(7), 11, 660),
        MetricRecord(0, back, PolicyId(7), 2, 120),
        MetricRecord(0, out, PolicyId(1031), 3, 180),
    }


def test_a_slot_that_nobody_has_counts_nothing() -> None:
    assert MetricRecord.decode_forwarded(slot((0, 0, 0, 0, 0))) == ()
    assert MetricRecord.decode_forwarded(slot((7, 0, 0, 0, 0))) == ()


def test_what_both_maps_count_is_added_up() -> None:
    row = METRIC_KEY.pack(0, 1, 7), METRIC_VALUE.pack(5, 300) + METRIC_VALUE.pack(1, 60)
    drop = METRIC_KEY.pack(3, 1, 7), METRIC_VALUE.pack(2, 120)
    out = MetricDirection.TO_WORLD

    assert set(read_counts((row, drop), ((b"", slot((7, 4, 240, 0, 0))),))) == {
        MetricRecord(0, out, PolicyId(7), 10, 600),
        MetricRecord(3, out, PolicyId(7), 2, 120),
    }
