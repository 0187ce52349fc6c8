"""The page about ``outgate explain`` knows every outcome and part that there is."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outgate.cli.explain import app
from outgate.policy.explain import Outcome

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference/explain.md").read_text()


def test_every_outcome_is_documented() -> None:
    assert set(re.findall(r"^\| `([-a-z]+)` \|", PAGE, re.MULTILINE)) >= set(Outcome)


def test_documented_parts_are_those_of_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The page's example has a row, an egress IP, gateways and networks."""
    monkeypatch.chdir(ROOT)
    (line,) = re.findall(r"^\$ outgate explain (.*)$", PAGE, re.MULTILINE)
    result = CliRunner().invoke(app, shlex.split(line))
    heads = {text[:11].strip() for text in result.stdout.splitlines()[3:]} - {""}

    assert result.exit_code == 0
    assert heads == {"row", "egress IP", "gateways", "networks"}
    assert all(f"| `{head}` |" in PAGE for head in heads)
