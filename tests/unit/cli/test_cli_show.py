from typing import Any

import pytest

from outgate.cli.render import MapRow
from outgate.cli.show import state_of

ROW = MapRow("172.18.0.5", "host", ("endpoint", "172.18.0.5"), "host")


def entry(state: str, wanted: str | None = "host", error: str = "") -> dict[str, Any]:
    return {"state": state, "wanted": wanted, "error": error}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (entry("done"), ("sync", "")),
        (entry("done", wanted="pod"), ("pending", "")),
        (entry("pending"), ("pending", "")),
        (entry("kept", wanted=None), ("kept", "")),
        (entry("error", error="no room"), ("error", "no room")),
    ],
)
def test_state_is_sync_only_when_the_agent_confirms_it(
    answer: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert state_of(ROW, {("endpoint", "172.18.0.5"): answer}) == expected


def test_state_is_unknown_without_an_agent() -> None:
    assert state_of(ROW, None) == ("unknown", "")


def test_rows_of_programs_have_no_state() -> None:
    assert state_of(MapRow("a", "b"), {}) == ("-", "")
