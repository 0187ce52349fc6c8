"""``outgate policy plan``: text, JSON, problems, and the exit codes it promises."""

import json
from pathlib import Path

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
            "policy": "egress-all",
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
            "policy": "broken",
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
            "have no Node 'nowhere'; they have: k8s-guide-control-plane,",
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
