from ipaddress import IPv4Address, IPv4Network, IPv6Address

from outgate.kernel.guard import guard
from outgate.state.entries import (
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    NodeKey,
    RowsKey,
)
from outgate.state.plan import Put, Remove

ONE, OTHER = IPv4Address("10.0.1.1"), IPv4Address("10.0.1.2")
NETWORK = IPv4Network("172.18.0.0/16")
PUTS = [
    Put(EndpointKey(address), EndpointEntry(EndpointFlag.POD))
    for address in (ONE, OTHER)
]


def test_guard_withholds_only_the_pod_whose_row_failed() -> None:
    withheld, _ = guard(PUTS, [RowsKey(ONE)])

    assert withheld == [EndpointKey(ONE)]


def test_guard_takes_back_the_pod_whose_row_failed() -> None:
    _, taken_back = guard((), [RowsKey(ONE)])

    assert taken_back == [Remove(EndpointKey(ONE))]


def test_guard_withholds_every_pod_when_a_covered_network_failed() -> None:
    withheld, _ = guard(PUTS, [CoveredKey(NETWORK)])

    assert withheld == [EndpointKey(ONE), EndpointKey(OTHER)]


def test_guard_ignores_failures_that_hide_no_pod() -> None:
    assert guard(PUTS, [NodeKey(ONE)]) == ([], [])


def test_guard_takes_back_pods_of_both_families() -> None:
    six = IPv6Address("fd00::1")
    failed = [RowsKey(six), RowsKey(ONE)]

    _, taken_back = guard((), failed)

    assert taken_back == [Remove(EndpointKey(ONE)), Remove(EndpointKey(six))]
