"""The schemas that an API server applies and the parser of agents say the same."""

import copy
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from outgate.kubeapi.crds import crd_faults
from outgate.kubeapi.schema import Schema
from outgate.kubeapi.typetable import built_in_schema
from outgate.policy.model import BadPolicy, EgressPolicy, Problem
from outgate.policy.parse import POLICY_KINDS, parse_policy

PROJECT = Path(__file__).parents[3]
FOLDER = PROJECT / "deploy" / "crds"
DEFINITIONS = sorted(FOLDER.glob("*.yaml"))

NAT: dict[str, Any] = {
    "apiVersion": "cilium.io/v2alpha1",
    "kind": "CiliumEgressNATPolicy",
    "metadata": {"name": "egress-all"},
    "spec": {
        "destinationCIDRs": ["172.18.0.0/16"],
        "egress": [
            {"podSelector": {"matchLabels": {"io.kubernetes.pod.namespace": "default"}}}
        ],
        "egressSourceIP": "172.18.0.5",
    },
}
GATEWAY: dict[str, Any] = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumEgressGatewayPolicy",
    "metadata": {"name": "egress-all"},
    "spec": {
        "selectors": NAT["spec"]["egress"],
        "destinationCIDRs": ["0.0.0.0/0", "::/0"],
        "excludedCIDRs": ["10.0.0.0/8"],
        "egressGateway": {
            "nodeSelector": {"matchLabels": {"egress": "yes"}},
            "egressIP": "192.0.2.5",
        },
    },
}

NETWORKS_GOOD = [
    *("0.0.0.0/0", "10.0.0.0/8", "203.0.113.9/32", "255.255.255.255/32"),
    *("::/0", "2001:db8::/32", "2001:DB8::0:0/32", "2001:db8:0:0:0:0:0:9/128"),
    "64:ff9b::192.0.2.0/120",
]
NETWORKS_BAD = [
    "10.0.0.0",
    "10.0.0.0/33",
    "10.0.0.0/08",
    "10.0.0.0/",
    "10.0.0.0/255.0.0.0",
    "10.0.0/8",
    "010.0.0.0/8",
    "256.0.0.0/8",
    *("2001:db8::", "2001:db8::/129", "2001:db8::/032", "2001:db8::/", "2001:db8/32"),
    *("2001:db8:::/32", "1::2::/64", "12345::/16", "g::/16", "fe80::%eth0/64"),
    " 10.0.0.0/8",
    "",
    "all",
    5,
    None,
]
ADDRESSES_GOOD = [
    *("172.18.0.5", "0.0.0.0", "255.255.255.255"),
    *("2001:db8::5", "2001:DB8:0:0::5", "1:2:3:4:5:6:7::", "::8", "::"),
]
ADDRESSES_BAD = [
    *("172.18.0", "172.18.0.256", "172.18.0.05", "", "node", 7),
    *("1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "::1::", "fe80::1%eth0", "[::1]"),
]
PADDED = [" 172.18.0.5 ", " 2001:db8::5"]

MATCH = {"key": "app", "operator": "In", "values": ["a"]}
EXISTS = {"key": "app", "operator": "Exists"}
SELECTORS_GOOD: list[object] = [
    {},
    {"matchLabels": {"app": ""}},
    {"matchExpressions": [MATCH, EXISTS, {**EXISTS, "values": []}]},
    {"matchExpressions": [{**MATCH, "key": "example.com/a_b"}]},
    {"matchExpressions": [{**MATCH, "operator": "NotIn"}]},
    {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]},
    {"matchExpressions": [EXISTS] * 100},
]
SELECTORS_BAD: list[object] = [
    "all",
    {"matchLabels": {"app": 5}},
    {"matchLabels": {"app": "-a"}},
    {"matchLabels": {"app": "a" * 64}},
    {"matchExpressions": {}},
    {"matchExpressions": [{"key": "a"}]},
    {"matchExpressions": [{**MATCH, "operator": "in"}]},
    {"matchExpressions": [{**MATCH, "values": ["a b"]}]},
    {"matchExpressions": [{**MATCH, "values": []}]},
    {"matchExpressions": [{"key": "a", "operator": "In"}]},
    {"matchExpressions": [{"key": "a", "operator": "NotIn"}]},
    {"matchExpressions": [{**MATCH, "operator": "Exists"}]},
    {"matchExpressions": [{**MATCH, "operator": "DoesNotExist"}]},
    {"matchExpressions": [{**MATCH, "key": "a b"}]},
    {"matchExpressions": [{**MATCH, "key": "/a"}]},
    {"matchExpressions": [{**MATCH, "key": "a..b/c"}]},
    {"matchExpressions": [{**MATCH, "key": "a-.b/c"}]},
    {"matchExpressions": [EXISTS] * 101},
]
RULES_GOOD: list[object] = [
    [],
    [{"podSelector": {}}, {"namespaceSelector": {}}],
    [{"podSelector": {}, "namespaceSelector": {}}],
    [{"podSelector": {}}] * 1000,
]
RULES_BAD: list[object] = [
    [{}],
    [{"podSelector": {}}, {}],
    ["all"],
    "all",
    [{"podSelector": {}}] * 1001,
]
GATEWAYS_GOOD: list[dict[str, object]] = [
    {"nodeSelector": {}},
    {"nodeSelector": {}, "interface": "eth0"},
    {"nodeSelector": {}, "interface": "a" * 127},
    {"nodeSelector": {}, "interface": "", "egressIP": "192.0.2.1"},
    {"nodeSelector": {}, "egressIP": "2001:db8::1"},
]
GATEWAYS_BAD: list[object] = [
    {},
    "all",
    {"interface": "eth0"},
    {"nodeSelector": {}, "interface": "eth0", "egressIP": "192.0.2.1"},
    {"nodeSelector": {}, "interface": "a b"},
    {"nodeSelector": {}, "interface": "a/b"},
    {"nodeSelector": {}, "interface": "a" * 128},
    {"nodeSelector": {}, "interface": 5},
]

MISSING = object()
Case = tuple[dict[str, Any], str, object, bool]


def _of_both(field: str, values: list[Any], is_good: bool) -> list[Case]:
    """Cases of a field of either kind's rules, or of one that both have."""
    places = {"rules": (("egress", NAT), ("selectors", GATEWAY))}
    both = ((field, NAT), (field, GATEWAY))
    return [
        (policy, name, value, is_good)
        for name, policy in places.get(field, both)
        for value in values
    ]


def _rules(key: str, selectors: list[object]) -> list[object]:
    return [[{"podSelector": {}, key: selector}] for selector in selectors]


def _gateway(**fields: object) -> dict[str, object]:
    return {"nodeSelector": {}, **fields}


CASES: list[Case] = [
    *_of_both("destinationCIDRs", [[value] for value in NETWORKS_GOOD], True),
    *_of_both("destinationCIDRs", [[value] for value in NETWORKS_BAD], False),
    *_of_both("destinationCIDRs", [[], ["10.0.0.0/8"] * 3000], True),
    *_of_both("destinationCIDRs", ["10.0.0.0/8", MISSING], False),
    *_of_both("rules", RULES_GOOD, True),
    *_of_both("rules", [*RULES_BAD, MISSING], False),
    *_of_both("rules", _rules("namespaceSelector", SELECTORS_GOOD), True),
    *_of_both("rules", _rules("namespaceSelector", SELECTORS_BAD), False),
    *_of_both("rules", _rules("podSelector", SELECTORS_GOOD), True),
    *_of_both("rules", _rules("podSelector", SELECTORS_BAD), False),
    *((NAT, "egressSourceIP", value, True) for value in ADDRESSES_GOOD + PADDED),
    *((NAT, "egressSourceIP", value, False) for value in [*ADDRESSES_BAD, None]),
    (NAT, "egressSourceIP", MISSING, False),
    *((GATEWAY, "excludedCIDRs", [value], True) for value in NETWORKS_GOOD),
    *((GATEWAY, "excludedCIDRs", [value], False) for value in NETWORKS_BAD),
    (GATEWAY, "excludedCIDRs", MISSING, True),
    *(
        (GATEWAY, "selectors", value, True)
        for value in _rules("nodeSelector", SELECTORS_GOOD)
    ),
    *(
        (GATEWAY, "selectors", value, False)
        for value in _rules("nodeSelector", SELECTORS_BAD)
    ),
    (GATEWAY, "selectors", [{"nodeSelector": {}}], False),
    *((GATEWAY, "egressGateway", value, True) for value in GATEWAYS_GOOD),
    *((GATEWAY, "egressGateway", value, False) for value in GATEWAYS_BAD),
    *((GATEWAY, "egressGateways", [value], True) for value in GATEWAYS_GOOD),
    *((GATEWAY, "egressGateways", [value], False) for value in GATEWAYS_BAD),
    *(
        (GATEWAY, "egressGateway", _gateway(nodeSelector=value), True)
        for value in SELECTORS_GOOD
    ),
    *(
        (GATEWAY, "egressGateway", _gateway(nodeSelector=value), False)
        for value in SELECTORS_BAD
    ),
    *(
        (GATEWAY, "egressGateway", _gateway(egressIP=value), True)
        for value in ADDRESSES_GOOD
    ),
    *(
        (GATEWAY, "egressGateway", _gateway(egressIP=value), False)
        for value in ADDRESSES_BAD + PADDED
    ),
    (GATEWAY, "egressGateway", MISSING, False),
    (GATEWAY, "egressGateways", [], True),
    (GATEWAY, "egressGateways", [{"nodeSelector": {}}] * 100, True),
    (GATEWAY, "egressGateways", [{"nodeSelector": {}}] * 101, False),
    (GATEWAY, "egressGateways", "all", False),
]


@cache
def _schema(kind: str) -> Schema:
    """The schema of *kind* as the lab's API server applies it, CEL rules included."""
    for path in DEFINITIONS:
        spec = yaml.safe_load(path.read_text())["spec"]
        if spec["names"]["kind"] == kind:
            (version,) = spec["versions"]
            node = version["schema"]["openAPIV3Schema"]
            return Schema(node, built_in_schema("ObjectMeta"))
    raise LookupError(kind)


def _faults(document: dict[str, Any]) -> list[str]:
    faults = _schema(document["kind"]).faults(document)
    return [f"{fault.field}: {fault.message}" for fault in faults]


def _problems(document: dict[str, Any]) -> tuple[Problem, ...]:
    policy = parse_policy(document)
    return policy.problems if isinstance(policy, BadPolicy) else ()


def _with(policy: dict[str, Any], field: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(policy)
    document["spec"][field] = value
    if value is MISSING:
        del document["spec"][field]
    return document


@pytest.mark.parametrize("policy", [NAT, GATEWAY], ids=["nat", "gateway"])
def test_crd_accepts_the_users_file(policy: dict[str, Any]) -> None:
    assert _faults(policy) == []
    assert isinstance(parse_policy(policy), EgressPolicy)


@pytest.mark.parametrize(("policy", "field", "value", "is_good"), CASES)
def test_crd_and_parser_agree(
    policy: dict[str, Any], field: str, value: object, is_good: bool
) -> None:
    document = _with(policy, field, value)
    faults, problems = _faults(document), _problems(document)

    assert (is_good, is_good) == (not faults, not problems), (faults, problems)


def test_crd_and_parser_agree_that_one_of_the_gateways_is_needed() -> None:
    document = _with(_with(GATEWAY, "egressGateway", MISSING), "egressGateways", [])

    assert (len(_faults(document)), len(_problems(document))) == (1, 1)
    document["spec"]["egressGateways"] = [{"nodeSelector": {}}]
    assert (_faults(document), _problems(document)) == ([], ())


@pytest.mark.parametrize("policy", [NAT, GATEWAY], ids=["nat", "gateway"])
def test_crd_and_parser_require_a_spec(policy: dict[str, Any]) -> None:
    document = {key: value for key, value in policy.items() if key != "spec"}

    assert _faults(document)[0] == "spec: Required value"
    assert [problem.path for problem in _problems(document)] == ["spec"]


@pytest.mark.parametrize(
    ("policy", "field", "value"),
    [
        (NAT, "egress", [{}]),
        (GATEWAY, "selectors", [{"podSelector": {}}, {}]),
        (GATEWAY, "egressGateway", MISSING),
        (GATEWAY, "egressGateway", _gateway(interface="a", egressIP="192.0.2.1")),
        (GATEWAY, "egressGateways", [_gateway(interface="a", egressIP="192.0.2.1")]),
    ],
)
def test_crd_and_parser_say_the_same_words_where_cel_speaks(
    policy: dict[str, Any], field: str, value: object
) -> None:
    document = _with(policy, field, value)
    (problem,) = _problems(document)

    said = f'{problem.path}: Invalid value: "object": {problem.message}'
    assert [said] == _faults(document)


@pytest.mark.parametrize(
    ("policy", "field", "value"),
    [
        (NAT, "destinationCIDRs", ["10.0.0.1/8"]),
        (NAT, "destinationCIDRs", ["2001:db8::1/32"]),
        (NAT, "destinationCIDRs", ["::ffff:10.0.0.0/104"]),
        (NAT, "egressSourceIP", "::ffff:172.18.0.5"),
        (NAT, "egress", [{"podSelector": {"matchLabels": {"a b": "c"}}}]),
        (GATEWAY, "excludedCIDRs", ["10.0.0.1/8"]),
        (GATEWAY, "egressGateway", _gateway(egressIP="::ffff:172.18.0.5")),
        (GATEWAY, "egress", []),
    ],
)
def test_parser_refuses_what_the_header_says_that_no_schema_can(
    policy: dict[str, Any], field: str, value: object
) -> None:
    document = _with(policy, field, value)

    assert _faults(document) == []
    assert len(_problems(document)) == 1


def test_parser_takes_null_for_absent_where_the_schema_does_not() -> None:
    document = _with(GATEWAY, "excludedCIDRs", None)

    assert _faults(document) != []
    assert _problems(document) == ()


def test_crd_names_the_field_of_a_bad_value() -> None:
    (fault,) = _faults(_with(NAT, "destinationCIDRs", ["10.0.0.0/8", "10.0.0.0/40"]))

    assert fault.startswith("spec.destinationCIDRs[1]: ")


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.stem)
def test_crd_is_one_that_the_api_accepts(path: Path) -> None:
    assert crd_faults(yaml.safe_load(path.read_text())) == []


def test_there_is_a_crd_of_every_policy() -> None:
    served = {
        (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
        for path in DEFINITIONS
        for spec in [yaml.safe_load(path.read_text())["spec"]]
        for version in spec["versions"]
    }

    assert set(POLICY_KINDS) | {("outgate.io/v1alpha1", "EgressNode")} == served


def test_crds_are_what_the_script_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = PROJECT / "scripts" / "crds"
    monkeypatch.syspath_prepend(str(scripts))
    runpy.run_path(str(scripts / "__main__.py"))["write"](tmp_path)

    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in DEFINITIONS}
