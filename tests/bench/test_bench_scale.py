"""The measurements of scale work; what they measure is no test's business."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.results import (
    LATEST,
    Result,
    against_target,
    read_results,
    table,
    write_results,
)
from bench.scale import run
from contract.isolation import skip_without_root

ROOT = Path(__file__).parents[2]


@pytest.mark.kernel
def test_a_fiftieth_of_the_cluster_is_measured_in_every_case() -> None:
    """Each stage checks the whole map against the rows that it expects."""
    skip_without_root()

    results = run(is_quick=True)

    cases = {result.case for result in results}
    assert EXPECTED_CASES <= cases
    assert all(result.value >= 0 for result in results)


EXPECTED_CASES = {
    "scale/node/first-sync",
    "scale/node/pod-change-p99",
    "scale/node/policy-change-p99",
    "scale/gateway/first-sync",
    "scale/gateway/peak-memory",
    "scale/gateway/idle-cpu",
    "scale/gateway/heartbeats-cpu",
    "scale/gateway/churn-lag-p99",
    "scale/gateway-many-networks/rows-programmed",
}


def test_a_run_keeps_the_numbers_of_other_parts(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    other, old, new = (
        Result("gateway/tc", 1.0, "ns"),
        Result("scale/node/first-sync", 9.0, "s"),
        Result("scale/node/first-sync", 2.0, "s", rows=200),
    )
    hook, conversation = Result("empty", 16.0, "ns"), Result("tcp/ask_1/tc", 2.0, "x")

    write_results([other, old, hook, conversation], path)
    write_results([new], path)

    assert read_results(path) == [other, hook, conversation, new]


def test_an_item_of_the_file_has_seven_keys_and_null_without_meaning(
    tmp_path: Path,
) -> None:
    path = tmp_path / "latest.json"
    known = Result("gateway/tc", 900.0, "kpps/core", 1, 1, "gateway/nftables", 2.0)

    write_results([Result("empty", 16.0, "ns"), known], path)

    assert json.loads(path.read_text()) == [
        {
            "case": "empty",
            "flows": None,
            "rows": None,
            "value": 16.0,
            "unit": "ns",
            "ratio_to": None,
            "ratio": None,
        },
        {
            "case": "gateway/tc",
            "flows": 1,
            "rows": 1,
            "value": 900.0,
            "unit": "kpps/core",
            "ratio_to": "gateway/nftables",
            "ratio": 2.0,
        },
    ]


def test_every_item_of_the_last_run_has_seven_keys() -> None:
    for item in json.loads(LATEST.read_text()):
        assert list(item) == KEYS
        assert isinstance(item["value"], int | float)
        assert (item["ratio"] is None) == (item["ratio_to"] is None)


KEYS = ["case", "flows", "rows", "value", "unit", "ratio_to", "ratio"]


def test_a_table_says_how_a_number_stands_to_its_target() -> None:
    promised = against_target(Result("scale/x", 1.5, "s", rows=1200), 3.0)

    shown = table([promised])

    assert (
        shown.splitlines()[1] == "scale/x         1,200    1.5  s     0.5 of target 3 s"
    )


def test_an_unknown_case_is_refused_by_name() -> None:
    command = (sys.executable, "-m", "bench.run", "sclae")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 2
    assert "no case 'sclae'; there are: hooks, paths" in done.stderr
