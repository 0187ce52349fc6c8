"""``outgate policy plan``: text, JSON, problems, and the exit codes it promises."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from outgate.cli.policy import app
from outgate.errors import ConfigError, SourceError

OBJECTS = Path(__file__).parents[2] / "scenarios" / "objects"
WORKER2 = "k8s-guide-worker2"

BAD = """\
apiVersion: cilium.io/v2alpha1
kind: CiliumEgressNATPolicy
metadata: {name: broken}
spec:
  destinationCIDRs: [10.0.0.1/8]
  egress: [{podSelector: {}}]
  egressSourceIP: 172.18.0.5
"""


def test_plan_prints_the_rows_of_the_gateway() -> None:
    result = CliRunner().invoke(app, ["plan", "-f", str(OBJECTS), "--node", WORKER2])

    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if line.startswith("pol")] == [
        f"policy      {source} -> 172.18.0.0/16  via 172.18.0.5 as 172.18.0.5"
        for source in ("10.0.0.174", "10.0.1.42", "10.0.2.86")
    ]


def test_plan_as_json_holds_rows_problems_and_entries() -> None:
    result = CliRunner().invoke(
        app, ["plan", "-f", str(OBJECTS), "--node", "k8s-guide-worker", "-o", "json"]
    )
    answer = json.loads(result.stdout)

    assert answer["rows"] == [
        {
            "source": "10.0.1.42",
            "destination": "172.18.0.0/16",
            "kind": "gateway",
            "egressIP": "172.18.0.5",
            "tunnelEndpoint": "172.18.0.5",
            "interface": None,
            "policy": "egress-all",
            "policyKind": "CiliumEgressNATPolicy",
        }
    ]
    assert answer["problems"] == []
    assert "ipcache     0.0.0.0/0  identity 2" in answer["entries"]


def test_plan_reads_standard_input_and_tells_problems_with_exit_code_2() -> None:
    result = CliRunner().invoke(
        app,
        ["plan", "-f", str(OBJECTS), "-f", "-", "--node", WORKER2],
        input=BAD,
    )

    assert result.exit_code == 2
    assert result.stderr == (
        "CiliumEgressNATPolicy broken: spec.destinationCIDRs[0]:"
        " '10.0.0.1/8' has host bits set; did you mean 10.0.0.0/8?\n"
    )
    assert "10.0.2.86 -> 172.18.0.0/16" in result.stdout, "others are not harmed"


GATEWAYS = str(OBJECTS / "two-gateways.yaml")

GATEWAY_POLICY = """\
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata: {name: shop}
spec:
  selectors: [{podSelector: {matchLabels: {app: web}}}]
  destinationCIDRs: [203.0.113.0/24]
  excludedCIDRs: [203.0.113.7/32, 192.0.2.0/24]
  egressGateway: {nodeSelector: {matchLabels: {zone: b}}, interface: uplink}
"""

FACTS = """\
interfaces:
- {name: eth0, addresses: [192.0.2.12/24]}
- {name: eth1, altnames: [uplink], addresses: [198.51.100.7/24]}
defaultRoute: {ipv4: eth0}
"""


def _plan_as_json(node: str, *arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(
        app,
        ["plan", "-f", GATEWAYS, "-f", "-", "--node", node, "-o", "json", *arguments],
        input=GATEWAY_POLICY,
    )
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def test_plan_with_facts_names_the_interface_and_its_address(tmp_path: Path) -> None:
    facts = tmp_path / "facts.yaml"
    facts.write_text(FACTS)
    answer = _plan_as_json("gateway-b", "--facts", str(facts))

    row = {
        "source": "10.0.1.10",
        "destination": "203.0.113.0/24",
        "kind": "gateway",
        "egressIP": "198.51.100.7",
        "tunnelEndpoint": "192.0.2.12",
        "interface": "eth1",
        "policy": "shop",
        "policyKind": "CiliumEgressGatewayPolicy",
    }
    nothing = dict.fromkeys(["egressIP", "tunnelEndpoint", "interface"])
    excluded = {**row, **nothing, "destination": "203.0.113.7/32", "kind": "excluded"}
    of_web_0 = [found for found in answer["rows"] if found["source"] == "10.0.1.10"]
    assert [row, excluded] == [
        found for found in of_web_0 if found["destination"].startswith("203.0.113.")
    ]


def test_plan_without_facts_imagines_no_other_interface() -> None:
    answer = _plan_as_json("gateway-b")

    assert {row["kind"] for row in answer["rows"]} == {"no-egress-ip", "excluded"}
    assert "spec.egressGateway.interface" in [p["path"] for p in answer["problems"]]


def test_plan_on_a_node_that_is_not_the_gateway_may_not_know_the_egress_ip() -> None:
    rows = _plan_as_json("worker")["rows"]

    assert {
        (row["egressIP"], row["tunnelEndpoint"], row["interface"])
        for row in rows
        if row["kind"] == "gateway"
    } == {(None, "192.0.2.12", None)}


def test_plan_names_the_interface_of_the_policy_where_two_have_the_address(
    tmp_path: Path,
) -> None:
    facts = tmp_path / "facts.yaml"
    facts.write_text(FACTS.replace("198.51.100.7/24", "192.0.2.12/24"))
    rows = _plan_as_json("gateway-b", "--facts", str(facts))["rows"]

    assert {row["interface"] for row in rows if row["kind"] == "gateway"} == {"eth1"}


REPORT = """\
apiVersion: outgate.io/v1alpha1
kind: EgressNode
metadata: {name: gateway-b}
status:
  interfaces: [{name: eth1, altnames: [uplink], addresses: [198.51.100.7]}]
"""


def test_plan_takes_what_the_agent_reported_of_the_node(tmp_path: Path) -> None:
    report = tmp_path / "report.yaml"
    report.write_text(REPORT)
    rows = _plan_as_json("gateway-b", "-f", str(report))["rows"]

    found = {row["egressIP"] for row in rows if row["kind"] == "gateway"}
    assert found == {"198.51.100.7"}


def test_plan_refuses_a_report_that_is_none_with_its_place(tmp_path: Path) -> None:
    report = tmp_path / "report.yaml"
    report.write_text(REPORT.replace("[{", "{").replace("}]", "}"))
    result = CliRunner().invoke(
        app, ["plan", "-f", GATEWAYS, "-f", str(report), "--node", "worker"]
    )

    assert isinstance(result.exception, SourceError)
    assert "document 1 (EgressNode)" in str(result.exception)


def test_plan_asks_for_pod_networks_only_where_some_node_has_one() -> None:
    """A user's files leave them out; where one Node has one, another lacks it."""
    objects = """\
{apiVersion: v1, kind: Node, metadata: {name: one}, spec: {%s}}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {nodeName: one}
status: {podIPs: [{ip: 10.0.1.10}]}
---
"""
    paths = []
    for spec in ("", "podCIDR: 10.9.0.0/24"):
        result = CliRunner().invoke(
            app,
            ["plan", "-f", "-", "--node", "one", "-o", "json"],
            input=objects % spec + GATEWAY_POLICY,
        )
        paths.append([found["path"] for found in json.loads(result.stdout)["problems"]])

    assert "spec.podCIDRs" not in paths[0]
    assert "spec.podCIDRs" in paths[1]


def test_plan_tells_warnings_among_the_problems() -> None:
    problems = _plan_as_json("worker")["problems"]

    assert "spec.excludedCIDRs[1]" in [problem["path"] for problem in problems]


def test_plan_refuses_wrong_facts_with_the_path(tmp_path: Path) -> None:
    facts = tmp_path / "facts.yaml"
    facts.write_text("defaultRoute: {ipv4: eth9}")
    result = CliRunner().invoke(
        app, ["plan", "-f", GATEWAYS, "--node", "worker", "--facts", str(facts)]
    )

    assert isinstance(result.exception, SourceError)
    assert "defaultRoute.ipv4: there is no interface 'eth9'" in str(result.exception)


def test_plan_without_a_gateway_has_nulls(tmp_path: Path) -> None:
    policy = tmp_path / "p.yaml"
    policy.write_text(BAD.replace("10.0.0.1/8", "10.0.0.0/8").replace("0.5", "0.99"))
    nodes = str(OBJECTS / "three-nodes.yaml")
    result = CliRunner().invoke(
        app,
        ["plan", "-f", nodes, "-f", str(policy), "--node", WORKER2, "-o", "json"],
    )
    answer = json.loads(result.stdout)

    assert result.exit_code == 0
    assert answer["rows"] == [
        {
            "source": "10.0.2.86",
            "destination": "10.0.0.0/8",
            "kind": "no-gateway",
            "egressIP": None,
            "tunnelEndpoint": None,
            "interface": None,
            "policy": "broken",
            "policyKind": "CiliumEgressNATPolicy",
        }
    ]
    assert [(p["object"], p["path"]) for p in answer["problems"]] == [
        ("CiliumEgressNATPolicy broken", "spec.egressSourceIP")
    ]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["-f", "missing.yaml", "--node", "n"], SourceError, "missing.yaml: No such"),
        (
            ["-f", str(OBJECTS), "--node", "nowhere"],
            ConfigError,
            "have no Node 'nowhere'; they have: gateway-a, gateway-b, k8s-guide-",
        ),
    ],
)
def test_plan_refuses_with_exit_code_1(
    arguments: list[str], error: type[Exception], message: str
) -> None:
    """The errors are raised here; ``outgate.cli.main`` prints them without a trace."""
    result = CliRunner().invoke(app, ["plan", *arguments])

    assert result.exit_code == 1
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
