"""What addresses keep while a policy is bad of which nobody knows a good version."""

from ipaddress import ip_address, ip_network

import pytest

from outgate.policy.compile import Compiled
from outgate.policy.doubt import stay_careful
from outgate.state.entries import (
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Key,
    NoGateway,
    PolicyId,
    RowSet,
    RowsKey,
    Value,
)

BAD = PolicyId(7)
POD = EndpointKey(ip_address("fd00:10:1::7"))
HOST = EndpointKey(ip_address("192.0.2.1"))
KNOWN = EndpointEntry(EndpointFlag.POD)
SELECTED = EndpointEntry(EndpointFlag.POD, is_other_family=True)
OWN = EndpointEntry(EndpointFlag.HOST)
SHARED = EndpointEntry(EndpointFlag.HOST, is_egress_ip=True)
ROWS = RowsKey(POD.address)
NETWORK = ip_network("2001:db8:ff::/48")

COVERED: dict[Key, Value] = {
    CoveredKey(ip_network("203.0.113.0/24")): CoveredEntry(BAD)
}
HELD: dict[Key, Value] = {
    **COVERED,
    POD: SELECTED,
    HOST: SHARED,
}
WANTED: dict[Key, Value] = {POD: KNOWN, HOST: OWN}


def test_roles_stay_with_the_policy_that_is_kept() -> None:
    careful = stay_careful(Compiled(WANTED, kept_policies=frozenset({BAD})), HELD)

    assert careful.snapshot == {**COVERED, POD: SELECTED, HOST: SHARED}


@pytest.mark.parametrize("kept", [frozenset(), frozenset({PolicyId(9)})])
def test_roles_end_without_a_policy_that_is_kept(kept: frozenset[PolicyId]) -> None:
    """Number 9 was never good: the kernel holds nothing of it."""
    careful = stay_careful(Compiled(WANTED, kept_policies=kept), HELD)

    assert careful.snapshot == WANTED


def test_a_row_ends_the_role_of_the_other_family() -> None:
    wanted = {**WANTED, ROWS: RowSet({NETWORK: NoGateway(PolicyId(8))})}
    careful = stay_careful(Compiled(wanted, kept_policies=frozenset({BAD})), HELD)

    assert careful.snapshot == {**COVERED, **wanted, HOST: SHARED}


def test_roles_of_a_pod_are_not_those_of_the_host_that_has_its_address_now() -> None:
    held = {**HELD, HOST: SELECTED}
    careful = stay_careful(Compiled(WANTED, kept_policies=frozenset({BAD})), held)

    assert careful.snapshot[HOST] == OWN
