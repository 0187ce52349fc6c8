"""The status of a policy as JSON: times, summary, and the schema of it."""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from outgate.policy.parse import parse_policy
from outgate.policy.status import (
    Aspect,
    Condition,
    GatewayStatus,
    PolicyStatus,
    Truth,
)
from outgate.state.entries import NodeName

CRDS = Path(__file__).parents[3] / "deploy" / "crds"
NOW, EARLIER = "2026-01-02T03:04:05Z", "2026-01-01T00:00:00Z"
IPS = (IPv4Address("198.51.100.4"), IPv6Address("2001:db8::4"))


def status(
    *truths: Truth, gateways: tuple[GatewayStatus, ...] | None = ()
) -> PolicyStatus:
    conditions = tuple(
        Condition(aspect, truth, f"{aspect}{truth}", "because")
        for aspect, truth in zip(Aspect, truths, strict=True)
    )
    return PolicyStatus(3, conditions, 7, gateways)


T, F, U = Truth.TRUE, Truth.FALSE, Truth.UNKNOWN
CHOSEN = GatewayStatus(
    NodeName("g1"), True, True, "Usable", IPS, "eth0", IPv4Address("192.0.2.1")
)
PASSED = GatewayStatus(NodeName("g0"), False, False, "AgentSilent")


@pytest.mark.parametrize(
    ("truths", "expected"),
    [
        ((T, T, T, T), ("True", "-")),
        ((T, U, T, F), ("False", "GatewaySelectedUnknown")),
        ((T, T, U, T), ("Unknown", "EgressIPReadyUnknown")),
        ((F, U, U, U), ("False", "AcceptedFalse")),
    ],
)
def test_summary_names_the_first_that_is_wrong(
    truths: tuple[Truth, ...], expected: tuple[str, str]
) -> None:
    summary = status(*truths).to_json({}, NOW)["summary"]

    assert expected == (summary["ready"], summary["reason"])


def test_summary_shows_what_pods_leave_through() -> None:
    summary = status(T, T, T, T, gateways=(PASSED, CHOSEN)).to_json({}, NOW)["summary"]

    assert "g1" == summary["gateways"]
    assert "198.51.100.4,2001:db8::4" == summary["egressIPs"]


def test_summary_without_gateways_is_a_dash() -> None:
    summary = status(T, F, F, T).to_json({}, NOW)["summary"]

    assert ("-", "-") == (summary["gateways"], summary["egressIPs"])


def test_transition_time_is_kept_while_the_status_is_the_same() -> None:
    before = status(T, T, T, F).to_json({}, EARLIER)
    after = status(T, T, T, T).to_json(before, NOW)

    times = {c["type"]: c["lastTransitionTime"] for c in after["conditions"]}
    assert {
        "Accepted": EARLIER,
        "GatewaySelected": EARLIER,
        "EgressIPReady": EARLIER,
        "Programmed": NOW,
    } == times


def test_status_over_itself_is_itself() -> None:
    before = status(T, T, T, F, gateways=(PASSED, CHOSEN)).to_json({}, EARLIER)

    again = status(T, T, T, F, gateways=(PASSED, CHOSEN)).to_json(before, NOW)
    assert before == again


@pytest.mark.parametrize(
    "nonsense",
    [{"conditions": 5}, {"conditions": [5, {"type": []}]}, {"gateways": None}],
)
def test_status_over_nonsense_is_written(nonsense: dict[str, Any]) -> None:
    written = status(T, T, T, T, gateways=None).to_json(nonsense, NOW)

    assert {NOW} == {c["lastTransitionTime"] for c in written["conditions"]}
    assert [] == written["gateways"]


def test_status_keeps_gateways_that_it_knows_nothing_of() -> None:
    before = status(T, T, T, T, gateways=(CHOSEN,)).to_json({}, EARLIER)
    after = status(F, U, U, U, gateways=None).to_json(before, NOW)

    assert before["gateways"] == after["gateways"]
    assert "g1" == after["summary"]["gateways"]


@pytest.mark.parametrize(
    "file", ["ciliumegressgatewaypolicies.yaml", "ciliumegressnatpolicies.yaml"]
)
def test_status_is_what_the_crd_says(file: str) -> None:
    """Each field is in the schema: what is not, the API would drop."""
    crd = yaml.safe_load((CRDS / file).read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    node = _closed(schema["properties"]["status"])
    written = status(T, T, F, U, gateways=(PASSED, CHOSEN)).to_json({}, NOW)

    assert [] == [e.message for e in jsonschema_rs.iter_errors(node, written)]
    assert written.keys() == node["properties"].keys()


def _closed(node: Any) -> Any:
    """Return a schema that refuses what it does not name."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _closed(value) for key, value in node.items()}
    if "properties" in found:
        found["additionalProperties"] = False
    return found


def test_parser_reads_the_health_that_is_written() -> None:
    written = status(T, T, T, T, gateways=(PASSED, CHOSEN)).to_json({}, NOW)
    policy = parse_policy(
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumEgressGatewayPolicy",
            "metadata": {"name": "p"},
            "spec": {
                "selectors": [{"podSelector": {}}],
                "destinationCIDRs": ["203.0.113.0/24"],
                "egressGateway": {"nodeSelector": {}},
            },
            "status": written,
        }
    )

    health = getattr(policy, "health", ())
    assert [("g0", False, ()), ("g1", True, IPS)] == [
        (h.node, h.is_usable, h.egress_ips) for h in health
    ]
