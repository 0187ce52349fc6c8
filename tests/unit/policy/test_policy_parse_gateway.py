"""CiliumEgressGatewayPolicy: every field, what is refused, and what is warned of."""

import copy
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest

from outgate.policy.model import (
    BadPolicy,
    EgressPolicy,
    GatewayHealth,
    GatewayOnNodes,
    Rule,
    policy_id,
)
from outgate.policy.parse import parse_policy
from outgate.policy.selectors import CILIUM_PREFIX, Operator, Requirement, Selector
from outgate.state.entries import NodeName

GOOD: dict[str, Any] = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumEgressGatewayPolicy",
    "metadata": {
        "name": "shop",
        "uid": "u-1",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "generation": 7,
    },
    "spec": {
        "selectors": [
            {
                "podSelector": {"matchLabels": {"app": "a"}},
                "namespaceSelector": {"matchLabels": {"team": "t"}},
                "nodeSelector": {"matchLabels": {"zone": "z"}},
            },
            {"podSelector": {}},
        ],
        "destinationCIDRs": ["203.0.113.0/24", "2001:db8::/32"],
        "excludedCIDRs": ["203.0.113.128/25"],
        "egressGateway": {"nodeSelector": {}, "interface": "eth1"},
    },
}


def _label(key: str, value: str) -> Requirement:
    return Requirement(key, Operator.IN, frozenset({value}))


def _parse(**spec: object) -> EgressPolicy | BadPolicy:
    """Parse the good policy with fields replaced; None takes one away."""
    document = copy.deepcopy(GOOD)
    document["spec"] |= spec
    return parse_policy(document)


def _problems(**spec: object) -> list[tuple[str, str]]:
    parsed = _parse(**spec)
    assert isinstance(parsed, BadPolicy)
    return [(problem.path, problem.message) for problem in parsed.problems]


def _warnings(**spec: object) -> list[tuple[str, str]]:
    parsed = _parse(**spec)
    assert isinstance(parsed, EgressPolicy)
    return [(warning.path, warning.message) for warning in parsed.warnings]


def test_parse_reads_every_field() -> None:
    before = copy.deepcopy(GOOD)

    expected = EgressPolicy(
        kind="CiliumEgressGatewayPolicy",
        name="shop",
        uid="u-1",
        created="2026-01-02T03:04:05Z",
        id=policy_id("u-1", "", "", ""),
        rules=(
            Rule(
                Selector(
                    (
                        _label("io.cilium.k8s.namespace.labels.team", "t"),
                        _label("app", "a"),
                    )
                ),
                Selector((_label("zone", "z"),)),
            ),
            Rule(Selector()),
        ),
        destinations=(IPv4Network("203.0.113.0/24"), IPv6Network("2001:db8::/32")),
        gateways=(GatewayOnNodes(Selector(), "eth1", None),),
        excluded=(IPv4Network("203.0.113.128/25"),),
        generation=7,
    )
    assert expected == parse_policy(GOOD)
    assert before == GOOD, "the input was modified"


def test_parse_reads_several_gateways_with_their_paths() -> None:
    entries = [
        {"nodeSelector": {"matchLabels": {"gw": "a"}}, "egressIP": "2001:db8::5"},
        {"nodeSelector": {"matchLabels": {"gw": "b"}}, "interface": ""},
    ]
    policy = _parse(egressGateway=None, egressGateways=entries)

    assert isinstance(policy, EgressPolicy)
    assert policy.gateways == (
        GatewayOnNodes(
            Selector((_label("gw", "a"),)), egress_ip=IPv6Address("2001:db8::5")
        ),
        GatewayOnNodes(Selector((_label("gw", "b"),))),
    )
    assert [g.path for g in policy.gateways] == [
        "spec.egressGateways[0]",
        "spec.egressGateways[1]",
    ]
    assert policy.warnings == ()


def test_parse_empty_list_of_gateways_leaves_the_one() -> None:
    policy = _parse(egressGateways=[])

    assert isinstance(policy, EgressPolicy)
    assert [g.path for g in policy.gateways] == ["spec.egressGateway"]


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        (
            {"selectors": [{"nodeSelector": {}}]},
            "spec.selectors[0]",
            "has neither podSelector nor namespaceSelector; to select all pods,"
            " write podSelector: {}",
        ),
        (
            {"egressGateway": None},
            "spec",
            "has neither egressGateway nor egressGateways; to say which nodes may be"
            " the gateway, write egressGateway: {nodeSelector: {…}}",
        ),
        (
            {"egressGateway": {"interface": "eth1"}},
            "spec.egressGateway.nodeSelector",
            "is missing; to let any node match, write nodeSelector: {}",
        ),
        (
            {
                "egressGateway": {
                    "nodeSelector": {},
                    "interface": "eth1",
                    "egressIP": "192.0.2.1",
                }
            },
            "spec.egressGateway",
            "has both interface and egressIP; keep one of them: egressIP finds its"
            " interface, and interface its first address",
        ),
        (
            {"egressGateway": {"nodeSelector": {}, "egressIP": "192.0.2.300"}},
            "spec.egressGateway.egressIP",
            "'192.0.2.300' is no IP address; write it like 203.0.113.7 or 2001:db8::7",
        ),
        (
            {"egressGateway": {"nodeSelector": {}, "interface": "a/b"}},
            "spec.egressGateway.interface",
            "'a/b' is no interface name; use at most 127 characters without blanks"
            " and '/', as `ip link` shows it",
        ),
        (
            {"egressGateways": [{"nodeSelector": {}}] * 101},
            "spec.egressGateways",
            "has 101 items; at most 100 are allowed",
        ),
        (
            {"selectors": [{"podSelector": {}}] * 1001},
            "spec.selectors",
            "has 1001 items; at most 1000 are allowed",
        ),
        (
            {"excludedCIDRs": ["10.0.0.1/8"]},
            "spec.excludedCIDRs[0]",
            "'10.0.0.1/8' has host bits set; did you mean 10.0.0.0/8?",
        ),
        (
            {"destinationCIDRs": None},
            "spec.destinationCIDRs",
            "is missing; write a list",
        ),
        (
            {"selectors": [{"podSelector": {}, "nodeSelector": {"matchLabel": {}}}]},
            "spec.selectors[0].nodeSelector.matchLabel",
            "unknown field; there are: matchExpressions, matchLabels",
        ),
    ],
)
def test_parse_wrong_field_names_the_mend(
    spec: dict[str, object], path: str, message: str
) -> None:
    assert _problems(**spec) == [(path, message)]


def test_parse_wrong_ignored_gateway_is_still_refused() -> None:
    """The CRD refuses it too; nobody means to leave it there."""
    problems = _problems(egressGateway={}, egressGateways=[{"nodeSelector": {}}])

    assert [path for path, _ in problems] == ["spec.egressGateway.nodeSelector"]


def test_parse_reports_all_problems_at_once() -> None:
    problems = _problems(
        selectors=[{}],
        destinationCIDRs=["x"],
        egressGateways=[{}, {"nodeSelector": {}, "egressIP": "y"}],
    )

    assert [path for path, _ in problems] == [
        "spec.selectors[0]",
        "spec.destinationCIDRs[0]",
        "spec.egressGateways[0].nodeSelector",
        "spec.egressGateways[1].egressIP",
    ]


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        (
            {"egressGateways": [{"nodeSelector": {}}]},
            "spec.egressGateway",
            "is ignored, because egressGateways is not empty; remove one of them",
        ),
        (
            {"egressGateway": None, "egressGateways": [{"nodeSelector": {}}] * 2},
            "spec.egressGateways[1]",
            "is the same as spec.egressGateways[0], and gets no second share of the"
            " pods; remove it",
        ),
        (
            {"excludedCIDRs": ["203.0.113.1/32", "203.0.112.0/22"]},
            "spec.excludedCIDRs[1]",
            "203.0.112.0/22 is in none of destinationCIDRs, so it can only take traffic"
            " from other policies; remove it, or add the network that it is a part of",
        ),
        (
            {"destinationCIDRs": [], "excludedCIDRs": None},
            "spec.destinationCIDRs",
            "is empty, so nothing is covered; add a network like 203.0.113.0/24, or"
            " 0.0.0.0/0 and ::/0 for all",
        ),
        *(
            (
                {"egressGateway": {"nodeSelector": {}, "egressIP": address}},
                "spec.egressGateway.egressIP",
                f"nobody outside can answer to {address}, an address of a link, a group"
                " or the host itself; use an address of the gateway that others reach",
            )
            for address in ("127.0.0.1", "0.0.0.0", "224.0.0.1", "fe80::1", "::")
        ),
        (
            {
                "selectors": [
                    {"podSelector": {"matchLabels": {f"{CILIUM_PREFIX}cluster": "a"}}}
                ]
            },
            "spec.selectors[0].podSelector",
            f"{CILIUM_PREFIX}cluster is a label that only Cilium gives to pods: here no"
            " pod has it; select by a label of the pod or its namespace",
        ),
    ],
)
def test_parse_warns_of_what_may_not_be_meant(
    spec: dict[str, object], path: str, message: str
) -> None:
    assert _warnings(**spec) == [(path, message)]


def test_parse_excluded_network_equal_to_a_destination_is_no_warning() -> None:
    assert _warnings(excludedCIDRs=["2001:db8::/32", "2001:db8:1::/48"]) == []


def test_parse_reads_what_the_controller_found() -> None:
    gateways: list[object] = [
        {
            "node": "n1",
            "usable": True,
            "selected": True,
            "egressIPs": ["192.0.2.1", "2001:db8::1"],
            "interface": "eth1",
        },
        {"node": "n2", "usable": False, "reason": "NotReady"},
    ]
    policy = parse_policy({**GOOD, "status": {"gateways": gateways}})

    assert isinstance(policy, EgressPolicy)
    assert policy.health == (
        GatewayHealth(
            NodeName("n1"),
            True,
            (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")),
            "eth1",
        ),
        GatewayHealth(NodeName("n2"), False),
    )


@pytest.mark.parametrize(
    "status",
    [
        "text",
        {"gateways": {}},
        {"gateways": [5, {"node": 5, "usable": True}, {"node": "n", "usable": "yes"}]},
    ],
)
def test_parse_leaves_out_a_status_that_it_cannot_read(status: object) -> None:
    policy = parse_policy({**GOOD, "status": status})

    assert isinstance(policy, EgressPolicy)
    assert policy.health == ()


def test_parse_leaves_out_an_egress_ip_that_it_cannot_read() -> None:
    gateway = {"node": "n", "usable": True, "egressIPs": ["x", "192.0.2.1"]}
    policy = parse_policy({**GOOD, "status": {"gateways": [gateway]}})

    assert isinstance(policy, EgressPolicy)
    assert policy.health[0].egress_ips == (IPv4Address("192.0.2.1"),)
