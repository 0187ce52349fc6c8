"""The schema that an API server applies and the parser of agents say the same."""

import copy
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from outgate.policy.model import EgressPolicy
from outgate.policy.parse import API_VERSION, KIND, parse_policy

CRD = Path(__file__).parents[3] / "deploy" / "crds" / "ciliumegressnatpolicies.yaml"

GOOD: dict[str, Any] = {
    "apiVersion": API_VERSION,
    "kind": KIND,
    "metadata": {"name": "egress-all"},
    "spec": {
        "destinationCIDRs": ["172.18.0.0/16"],
        "egress": [
            {"podSelector": {"matchLabels": {"io.kubernetes.pod.namespace": "default"}}}
        ],
        "egressSourceIP": "172.18.0.5",
    },
}

DESTINATIONS_GOOD = [
    *("0.0.0.0/0", "10.0.0.0/8", "203.0.113.9/32", "255.255.255.255/32"),
    *("::/0", "2001:db8::/32", "2001:DB8::0:0/32", "2001:db8:0:0:0:0:0:9/128"),
    "64:ff9b::192.0.2.0/120",
]
DESTINATIONS_BAD = [
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
    *("172.18.0.5", " 172.18.0.5 ", "0.0.0.0", "255.255.255.255"),
    *("2001:db8::5", " 2001:DB8:0:0::5 ", "1:2:3:4:5:6:7::", "::8", "::"),
]
ADDRESSES_BAD = [
    *("172.18.0", "172.18.0.256", "172.18.0.05", "", "node", 7, None),
    *("1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "::1::", "fe80::1%eth0", "[::1]"),
]

MATCH = {"key": "app", "operator": "In", "values": ["a"]}
RULES_GOOD: list[object] = [
    {"podSelector": {}},
    {"namespaceSelector": {}},
    {"podSelector": {"matchLabels": {"app": ""}}},
    {"podSelector": {"matchExpressions": [MATCH]}},
    {"podSelector": {"matchExpressions": [{**MATCH, "key": "example.com/a_b"}]}},
    {
        "podSelector": {"matchLabels": {"a": "b"}},
        "namespaceSelector": {
            "matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]
        },
    },
]
RULES_BAD: list[object] = [
    {},
    "all",
    {"podSelector": "all"},
    {"podSelector": {"matchLabels": {"app": 5}}},
    {"podSelector": {"matchLabels": {"app": "-a"}}},
    {"podSelector": {"matchLabels": {"app": "a" * 64}}},
    {"podSelector": {"matchExpressions": {}}},
    {"podSelector": {"matchExpressions": [{"key": "a"}]}},
    {"podSelector": {"matchExpressions": [{**MATCH, "operator": "in"}]}},
    {"podSelector": {"matchExpressions": [{**MATCH, "values": ["a b"]}]}},
    {"podSelector": {"matchExpressions": [{**MATCH, "key": "a b"}]}},
    {"podSelector": {"matchExpressions": [{**MATCH, "key": "/a"}]}},
]

CASES = [
    *(("destinationCIDRs", [value], True) for value in DESTINATIONS_GOOD),
    *(("destinationCIDRs", [value], False) for value in DESTINATIONS_BAD),
    *(("egressSourceIP", value, True) for value in ADDRESSES_GOOD),
    *(("egressSourceIP", value, False) for value in ADDRESSES_BAD),
    *(("egress", [value], True) for value in RULES_GOOD),
    *(("egress", [value], False) for value in RULES_BAD),
    ("egress", "all", False),
    ("destinationCIDRs", "10.0.0.0/8", False),
]


@pytest.fixture(scope="module")
def schema() -> jsonschema_rs.Validator:
    document = yaml.safe_load(CRD.read_text())
    (version,) = document["spec"]["versions"]
    return jsonschema_rs.validator_for(version["schema"]["openAPIV3Schema"])


def _with(field: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    document["spec"][field] = value
    return document


def test_crd_accepts_the_users_file(schema: jsonschema_rs.Validator) -> None:
    assert schema.is_valid(GOOD)
    assert isinstance(parse_policy(GOOD), EgressPolicy)


@pytest.mark.parametrize(("field", "value", "is_good"), CASES)
def test_crd_and_parser_agree(
    schema: jsonschema_rs.Validator, field: str, value: object, is_good: bool
) -> None:
    document = _with(field, value)
    by_parser = isinstance(parse_policy(document), EgressPolicy)

    assert (is_good, is_good) == (schema.is_valid(document), by_parser)


@pytest.mark.parametrize("field", ["egress", "destinationCIDRs", "egressSourceIP"])
def test_crd_and_parser_require_each_field(
    schema: jsonschema_rs.Validator, field: str
) -> None:
    document = copy.deepcopy(GOOD)
    del document["spec"][field]

    assert not schema.is_valid(document)
    assert not isinstance(parse_policy(document), EgressPolicy)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("destinationCIDRs", ["10.0.0.1/8"]),
        ("destinationCIDRs", ["2001:db8::1/32"]),
        ("destinationCIDRs", ["::ffff:10.0.0.0/104"]),
        ("egressSourceIP", "::ffff:172.18.0.5"),
        ("egress", [{"podSelector": {"matchExpressions": [{**MATCH, "values": []}]}}]),
    ],
)
def test_parser_refuses_more_than_a_schema_can(
    schema: jsonschema_rs.Validator, field: str, value: object
) -> None:
    document = _with(field, value)

    assert schema.is_valid(document)
    assert not isinstance(parse_policy(document), EgressPolicy)


def test_crd_names_the_field_of_a_bad_value(schema: jsonschema_rs.Validator) -> None:
    document = _with("destinationCIDRs", ["10.0.0.0/8", "10.0.0.0/40"])
    (error,) = schema.iter_errors(document)

    assert error.instance_path == ["spec", "destinationCIDRs", 1]
