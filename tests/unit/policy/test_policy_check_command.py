"""``outgate policy check``: every problem with its place, and the exit codes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from outgate.cli.policy import app
from outgate.errors import SourceError

GOOD = """\
apiVersion: cilium.io/v2alpha1
kind: CiliumEgressNATPolicy
metadata: {name: good}
spec:
  destinationCIDRs: [10.0.0.0/8]
  egress: [{podSelector: {}}]
  egressSourceIP: 192.0.2.1
"""

BAD = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: none-of-our-business}
---
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata: {name: broken}
spec:
  destinationCIDRs: [10.0.0.1/8]
  selectors: [{}]
  egressGateway: {nodeSelector: {}}
"""

ODD = """\
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata: {name: odd}
spec:
  destinationCIDRs: [10.0.0.0/8]
  excludedCIDRs: [192.0.2.0/24]
  selectors: [{podSelector: {}}]
  egressGateway: {nodeSelector: {}}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in (("good", GOOD), ("bad", BAD), ("odd", ODD)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def _check(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, ["check", *arguments], input=stdin)


def test_check_good_file(run: Path) -> None:
    result = _check("good.yaml")

    assert result.stdout == "1 policy checked, none wrong\n"
    assert result.exit_code == 0


def test_check_names_place_object_path_and_mend(run: Path) -> None:
    result = _check("good.yaml", "bad.yaml")

    assert result.stdout.splitlines() == [
        "bad.yaml, document 2: CiliumEgressGatewayPolicy broken: spec.selectors[0]:"
        " has neither podSelector nor namespaceSelector; to select all pods, write"
        " podSelector: {}",
        "bad.yaml, document 2: CiliumEgressGatewayPolicy broken:"
        " spec.destinationCIDRs[0]: '10.0.0.1/8' has host bits set; did you mean"
        " 10.0.0.0/8?",
        "2 policies checked, 1 wrong",
    ]
    assert result.exit_code == 2


def test_check_warns_without_failing(run: Path) -> None:
    result = _check("odd.yaml")

    assert result.stdout.splitlines()[0] == (
        "odd.yaml, document 1: CiliumEgressGatewayPolicy odd: spec.excludedCIDRs[0]:"
        " warning: 192.0.2.0/24 is in none of destinationCIDRs, so it can only take"
        " traffic from other policies; remove it, or add the network that it is a part"
        " of"
    )
    assert result.exit_code == 0


def test_check_as_json(run: Path) -> None:
    result = _check("odd.yaml", "bad.yaml", "-o", "json")
    problems = json.loads(result.stdout)["problems"]

    assert [
        (p["file"], p["document"], p["object"], p["path"], p["severity"])
        for p in problems
    ] == [
        (
            "odd.yaml",
            1,
            "CiliumEgressGatewayPolicy odd",
            "spec.excludedCIDRs[0]",
            "warning",
        ),
        (
            "bad.yaml",
            2,
            "CiliumEgressGatewayPolicy broken",
            "spec.selectors[0]",
            "error",
        ),
        (
            "bad.yaml",
            2,
            "CiliumEgressGatewayPolicy broken",
            "spec.destinationCIDRs[0]",
            "error",
        ),
    ]
    assert "did you mean 10.0.0.0/8?" in problems[2]["message"]
    assert result.exit_code == 2


def test_check_reads_standard_input(run: Path) -> None:
    result = _check("-", stdin=BAD)

    assert result.stdout.startswith("standard input, document 2: Cilium")


def test_check_tells_what_it_found_beside_a_file_that_it_cannot_read(run: Path) -> None:
    """The error is raised here; ``outgate.cli.main`` prints it and exits with 1."""
    result = _check("missing.yaml", "bad.yaml")

    assert result.stdout.splitlines()[-1] == "1 policy checked, 1 wrong"
    assert isinstance(result.exception, SourceError)
    assert "missing.yaml: No such file" in str(result.exception)


def test_check_policy_without_a_name_says_so(run: Path) -> None:
    result = _check("-", stdin=GOOD.replace("{name: good}", "{}"))

    assert "metadata.name: a policy needs a name" in result.stdout
    assert result.exit_code == 2


def test_check_policy_of_a_version_that_is_not_there_says_which_is(run: Path) -> None:
    result = _check("-", stdin=ODD.replace("cilium.io/v2", "cilium.io/v3"))

    assert "write apiVersion: cilium.io/v2" in result.stdout
    assert result.exit_code == 2
