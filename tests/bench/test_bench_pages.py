"""Pages show the numbers that were measured last."""

import pytest

from bench.page import (
    BEGIN,
    END,
    README,
    REFERENCE,
    filled_in,
    readme_filled_in,
)
from bench.results import Result, read_results


@pytest.mark.parametrize("group", ["scale", "speed"])
def test_a_page_has_the_numbers_of_the_last_run(group: str) -> None:
    page = (REFERENCE / f"{group}.md").read_text()

    assert filled_in(page, group, read_results()) == page


def test_readme_has_the_numbers_of_the_last_run() -> None:
    text = README.read_text()

    assert readme_filled_in(text, read_results()) == text


def test_readme_shows_three_figures_side_by_side() -> None:
    results = [
        Result("gateway/xdp", 3456.0, "kpps/core", 20_000),
        Result("gateway/tc", 1234.0, "kpps/core", 20_000),
        Result("gateway/tc", 1.0, "kpps/core", 1),
        Result("chain/plain", 1500.0, "kpps/core", 20_000),
        Result("tcp/connections/nftables", 14390.0, "connections/s"),
    ]

    shown = readme_filled_in(f"{BEGIN}\n{END}", results).splitlines()

    assert shown[3:6] == [
        "| through a gateway, million packets/s and core | 3.46 | 1.23 |  |  |",
        "| pod to server, million packets/s and core |  |  |  | 1.5 |",
        "| new TCP connections, thousand/s |  |  | 14.4 |  |",
    ]


def test_only_what_is_between_the_marks_is_replaced() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    results = [
        Result("scale/node/first-sync", 2.0, "s", 0, 200, "target 3 s", 0.667),
        Result("gateway/tc", 1.0, "ns"),
    ]

    assert filled_in(page, "scale", results).splitlines() == [
        "before",
        BEGIN,
        "| case | rows | value | of its target, or of another case |",
        "|---|---:|---:|---|",
        "| node/first-sync | 200 | 2 s | 0.67 of target 3 s |",
        END,
        "after",
    ]


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="page of scale"):
        filled_in("no marks", "scale", [])
