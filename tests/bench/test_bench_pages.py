"""Pages show the numbers that were measured last."""

import pytest

from bench.page import BEGIN, END, REFERENCE, filled_in
from bench.results import Result, read_results


@pytest.mark.parametrize("group", ["scale", "speed"])
def test_a_page_has_the_numbers_of_the_last_run(group: str) -> None:
    page = (REFERENCE / f"{group}.md").read_text()

    assert filled_in(page, group, read_results()) == page


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
