from ipaddress import IPv4Address

from outgate.kernel.records import (
    FlowDecision,
    FlowRecord,
    MetricDirection,
    MetricRecord,
    NatDirection,
    NatRecord,
    Tuple4,
)
from outgate.state.entries import InterfaceIndex, PolicyId


def test_tuple_ports_are_read_in_network_order() -> None:
    key = bytes.fromhex("0a00012a ac120064 9c40 0050 06 02 0000")

    assert Tuple4.decode(key) == Tuple4(
        IPv4Address("10.0.1.42"),
        IPv4Address("172.18.0.100"),
        40000,
        80,
        6,
        NatDirection.REVERSE,
    )


def test_flow_record_names_its_decision() -> None:
    value = bytes.fromhex(
        "01 03 0000 07000000 ac120005 ac120005 09000000"
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
    )


def test_nat_record_of_a_host_socket_says_so() -> None:
    value = bytes.fromhex(
        "0a00012a 9c40 00 01 ac120004 07000000 02000000 ac120001 05000000"
        "000000000000 000000000000 e803000000000000"
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


def test_metric_record_adds_up_all_cpus() -> None:
    key = bytes.fromhex("02 01 0000 07000000")
    one = (3).to_bytes(8, "little") + (180).to_bytes(8, "little")

    assert MetricRecord.decode(key, one * 2) == MetricRecord(
        2, MetricDirection.TO_WORLD, PolicyId(7), 6, 360
    )
