"""The page about ``outgate policy plan`` knows every field, and its facts are read."""

import json
import re
from pathlib import Path

from typer.testing import CliRunner

from outgate.cli.policy import app
from outgate.source.facts_file import load_facts

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference/plan.md").read_text()
OBJECTS = ROOT / "tests/scenarios/objects"


def test_every_field_of_a_row_is_documented() -> None:
    result = CliRunner().invoke(
        app, ["plan", "-f", str(OBJECTS), "--node", "k8s-guide-worker", "-o", "json"]
    )
    row, *_ = json.loads(result.stdout)["rows"]
    named = re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE)

    assert {field for cell in named for field in re.findall(r"`(\w+)`", cell)} == set(
        row
    )


def test_documented_facts_are_read(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "facts.yaml").write_text(example)
    facts = load_facts(tmp_path / "facts.yaml")

    assert [link.name for link in facts.links] == ["eth0", "eth1"]
    assert (facts.default_interface, facts.default_interface_v6) == ("eth0", "eth1")
