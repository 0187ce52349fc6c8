"""Which version of a policy is in force."""

from dataclasses import replace
from ipaddress import IPv4Address

from outgate.policy.model import BadPolicy, EgressPolicy, GatewayAtAddress
from outgate.source.history import PolicyHistory
from outgate.state.entries import PolicyId

GOOD = EgressPolicy(
    kind="CiliumEgressNATPolicy",
    name="a",
    uid="u",
    created="",
    id=PolicyId(7),
    selectors=(),
    destinations=(),
    gateway=GatewayAtAddress(IPv4Address("192.0.2.1")),
)
BAD = BadPolicy(GOOD.kind, GOOD.name, GOOD.uid, GOOD.id, ())


def test_last_good_version_of_a_bad_policy_stays_in_force() -> None:
    history = PolicyHistory()
    history.split([GOOD])

    assert history.split([BAD]) == ((GOOD,), (BAD,))
    assert history.split([BAD]) == ((GOOD,), (BAD,))


def test_policy_that_is_deleted_while_it_is_bad_is_forgotten() -> None:
    history = PolicyHistory()
    history.split([GOOD])
    history.split([BAD])

    assert history.split([]) == ((), ())
    assert history.split([BAD]) == ((), (BAD,))


def test_two_policies_whose_numbers_collide_are_both_in_force() -> None:
    """A number is 32 bits of a hash; what it counts may blur, a policy may not go."""
    other = replace(GOOD, name="b", uid="v")

    assert PolicyHistory().split([GOOD, other]) == ((GOOD, other), ())


def test_bad_policy_does_not_take_over_one_whose_number_collides() -> None:
    history = PolicyHistory()
    bad = BadPolicy(GOOD.kind, "b", "v", GOOD.id, ())
    history.split([GOOD])

    assert history.split([GOOD, bad]) == ((GOOD,), (bad,))
