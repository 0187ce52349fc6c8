from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from outgate.cli.maprows import MapRow
from outgate.cli.show import MAP_OF_ENTRY, state_of
from outgate.kernel.maps import encode_key
from outgate.state.entries import (
    CoveredKey,
    EndpointKey,
    IpcacheKey,
    Key,
    NodeKey,
    PolicyKey,
    family_of,
)
from outgate.state.snapshot import render_key

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


@pytest.mark.parametrize("network", ["10.0.0.0/8", "fd00::/8"])
def test_refused_entries_are_counted_in_the_map_that_holds_them(network: str) -> None:
    of = ip_network(network)
    address = ip_address(of.network_address)
    keys: list[Key | PolicyKey] = [
        NodeKey(address),
        IpcacheKey(of),
        CoveredKey(of),
        PolicyKey(address, of),
        EndpointKey(address),
    ]
    for key in keys:
        family = family_of(of)
        assert MAP_OF_ENTRY[(render_key(key)[0], family)] == encode_key(key)[0]
