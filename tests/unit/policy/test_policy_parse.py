"""Every wrong field is named by its path, with its value and the mend."""

import copy
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest

from outgate.policy.model import (
    BadPolicy,
    EgressPolicy,
    GatewayAtAddress,
    Rule,
    policy_id,
)
from outgate.policy.parse import POLICY_KINDS, is_policy, parse_policy
from outgate.policy.selectors import Operator, Requirement, Selector

HEAD = {"apiVersion": "cilium.io/v2alpha1", "kind": "CiliumEgressNATPolicy"}

GOOD: dict[str, Any] = {
    **HEAD,
    "metadata": {
        "name": "egress-all",
        "uid": "u-1",
        "creationTimestamp": "2026-01-02T03:04:05Z",
    },
    "spec": {
        "destinationCIDRs": ["172.18.0.0/16", "10.0.0.0/8"],
        "egress": [{"podSelector": {"matchLabels": {"app": "a"}}}],
        "egressSourceIP": " 172.18.0.5",
    },
}


def _problems(spec: object, metadata: object = None) -> list[tuple[str, str]]:
    parsed = parse_policy({**HEAD, "metadata": metadata or {"name": "p"}, "spec": spec})
    assert isinstance(parsed, BadPolicy)
    return [(problem.path, problem.message) for problem in parsed.problems]


def test_parse_good_policy() -> None:
    before = copy.deepcopy(GOOD)
    selector = Selector((Requirement("app", Operator.IN, frozenset({"a"})),))

    expected = EgressPolicy(
        kind="CiliumEgressNATPolicy",
        name="egress-all",
        uid="u-1",
        created="2026-01-02T03:04:05Z",
        id=policy_id("u-1", "", "", ""),
        rules=(Rule(selector),),
        destinations=(IPv4Network("172.18.0.0/16"), IPv4Network("10.0.0.0/8")),
        gateways=(GatewayAtAddress(IPv4Address("172.18.0.5")),),
    )
    assert expected == parse_policy(GOOD)
    assert before == GOOD, "the input was modified"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1/8", "'10.0.0.1/8' has host bits set; did you mean 10.0.0.0/8?"),
        (
            "10.0.0.7",
            "'10.0.0.7' has no plain prefix length; did you mean 10.0.0.7/32?",
        ),
        (
            "2001:DB8::1/32",
            "'2001:DB8::1/32' has host bits set; did you mean 2001:db8::/32?",
        ),
        (
            "::ffff:10.0.0.0/104",
            "'::ffff:10.0.0.0/104' is an IPv4 address written as IPv6;"
            " did you mean 10.0.0.0/8?",
        ),
        (
            "fe80::%eth0/64",
            "'fe80::%eth0/64' has a zone, which means something on one node only",
        ),
        (
            "all",
            "'all' is no IP network; write it like 203.0.113.0/24 or 2001:db8::/32",
        ),
        (8, "must be a string, not the number 8 (quote it)"),
    ],
)
def test_parse_bad_destination_names_the_mend(text: object, message: str) -> None:
    spec = {**GOOD["spec"], "destinationCIDRs": ["10.0.0.0/8", text]}

    assert _problems(spec) == [("spec.destinationCIDRs[1]", message)]


def test_parse_takes_any_spelling_of_ipv6() -> None:
    spec = {
        **GOOD["spec"],
        "destinationCIDRs": ["2001:DB8::0:0/32", "::/0", "10.0.0.0/8"],
        "egressSourceIP": "2001:0db8:0:0:0:0:0:5",
    }
    policy = parse_policy({**HEAD, "metadata": {"name": "p"}, "spec": spec})

    assert isinstance(policy, EgressPolicy)
    assert [str(network) for network in policy.destinations] == [
        "2001:db8::/32",
        "::/0",
        "10.0.0.0/8",
    ]
    assert policy.gateways == (GatewayAtAddress(IPv6Address("2001:db8::5")),)


def test_parse_reports_all_problems_of_an_object() -> None:
    spec = {
        "destinationCIDRs": ["x/8"],
        "egress": [{}, {"podSelector": {"matchExpressions": [{"operator": "Is"}]}}],
        "egressSourceIP": "::ffff:192.0.2.1",
        "excludedCIDRs": [],
    }

    expected = [
        (
            "spec.excludedCIDRs",
            "unknown field; there are: destinationCIDRs, egress, egressSourceIP",
        ),
        (
            "spec.egress[0]",
            "has neither podSelector nor namespaceSelector; to select all pods,"
            " write podSelector: {}",
        ),
        (
            "spec.egress[1].podSelector.matchExpressions[0].key",
            "is missing; write a string",
        ),
        (
            "spec.egress[1].podSelector.matchExpressions[0].operator",
            "'Is' is no operator; use one of: In, NotIn, Exists, DoesNotExist",
        ),
        (
            "spec.destinationCIDRs[0]",
            "'x/8' is no IP network; write it like 203.0.113.0/24 or 2001:db8::/32",
        ),
        (
            "spec.egressSourceIP",
            "'::ffff:192.0.2.1' is an IPv4 address written as IPv6;"
            " did you mean 192.0.2.1?",
        ),
    ]
    assert expected == _problems(spec)


def test_parse_without_a_spec_says_so() -> None:
    assert _problems(None) == [("spec", "is missing; write an object")]


def test_parse_without_a_name_says_so() -> None:
    assert _problems(GOOD["spec"], {"uid": "u"}) == [
        ("metadata.name", "a policy needs a name")
    ]


def test_policy_id_is_never_0() -> None:
    """2,000 ids: none is 0, none repeats here; the uid alone decides."""
    ids = {policy_id(f"uid-{n}", "v", "k", "n") for n in range(2000)}

    assert 0 not in ids
    assert len(ids) == 2000
    assert policy_id("u", "a", "b", "c") == policy_id("u", "x", "y", "z")
    assert policy_id("", "a", "b", "c") != policy_id("", "a", "b", "d")


def test_a_policy_of_another_version_says_which_there_is() -> None:
    bad = parse_policy({**GOOD, "apiVersion": "cilium.io/v2"})

    assert isinstance(bad, BadPolicy)
    assert [(problem.path, problem.message) for problem in bad.problems] == [
        (
            "apiVersion",
            "there is no CiliumEgressNATPolicy of 'cilium.io/v2';"
            " write apiVersion: cilium.io/v2alpha1",
        )
    ]


def test_only_policies_are_parsed() -> None:
    assert all(is_policy(kind) for _, kind in POLICY_KINDS)
    assert not is_policy("Service")
    with pytest.raises(ValueError, match="'Service' is no kind of egress policies"):
        parse_policy({**GOOD, "kind": "Service"})


def test_parse_empty_rules_warns_that_no_pod_is_selected() -> None:
    policy = parse_policy({**GOOD, "spec": {**GOOD["spec"], "egress": []}})

    assert isinstance(policy, EgressPolicy)
    assert [(warning.path, warning.message) for warning in policy.warnings] == [
        (
            "spec.egress",
            "is empty, so no pod is selected; for all pods, add podSelector: {}",
        )
    ]


def test_parse_egress_source_ip_that_nobody_can_answer_to_is_a_warning() -> None:
    spec = {**GOOD["spec"], "egressSourceIP": "127.0.0.1"}
    policy = parse_policy({**GOOD, "spec": spec})

    assert isinstance(policy, EgressPolicy)
    assert [warning.path for warning in policy.warnings] == ["spec.egressSourceIP"]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([{"podSelector": {}}], (Rule(Selector()),)),
        ([{"podSelector": {}}, {}], ()),
    ],
)
def test_a_bad_policy_still_tells_whom_it_selects_unless_that_is_what_is_wrong(
    rules: list[object], expected: tuple[Rule, ...]
) -> None:
    spec = {"egress": rules, "destinationCIDRs": ["x"], "egressSourceIP": "192.0.2.1"}
    bad = parse_policy({**HEAD, "metadata": {"name": "a"}, "spec": spec})

    assert isinstance(bad, BadPolicy)
    assert bad.rules == expected
