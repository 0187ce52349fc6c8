"""``outgate map`` and ``outgate datapath`` on real pins, without an agent."""

import json
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contract.isolation import BPF_FS, run_isolated
from outgate.cli.main import app
from outgate.kernel.maps import MapName, encode_key, encode_value
from outgate.kernel.pinned import PinnedMap
from outgate.state.entries import WORLD, IpcacheEntry, IpcacheKey

pytestmark = [pytest.mark.kernel]

PIN_DIR = BPF_FS / "inspected"


@pytest.fixture
def run(
    tiny_objects: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    monkeypatch.setenv("OUTGATE_BPF_OBJECTS", str(tiny_objects))
    monkeypatch.setenv("OUTGATE_STATUS_SOCKET", "/nonexistent/agent.sock")

    def outgate(*arguments: str) -> list[str]:
        done = CliRunner().invoke(app, [*arguments, "--pin", str(PIN_DIR)])

        assert done.exit_code == 0, done.output
        return done.output.splitlines()

    return outgate


WITHOUT_ROWS = {
    MapName.GARBAGE_V4: "a queue of flows that the collector must look at: empty",
    MapName.GARBAGE_V6: "a queue of flows that the collector must look at: empty",
    MapName.EVENTS: "a ring of 4096 bytes",
    MapName.XDP: "an array of programs",
}


def put_world() -> None:
    key = IpcacheKey(IPv4Network("0.0.0.0/0"))
    name, encoded = encode_key(key)
    with PinnedMap(PIN_DIR / name) as opened:
        opened.put(encoded, encode_value(key, IpcacheEntry(WORLD, None)))


def test_map_get_prints_a_row_each(run: Callable[..., list[str]]) -> None:
    def body() -> None:
        run("datapath", "load")
        put_world()

        assert run("map", "get", "cilium_ipcache") == [
            "Key         Value                State     Error",
            "0.0.0.0/0   2 0 0.0.0.0          unknown",
        ]

    run_isolated(body)


def test_map_get_prints_json(run: Callable[..., list[str]]) -> None:
    def body() -> None:
        run("datapath", "load")
        put_world()

        assert json.loads("\n".join(run("map", "get", "cilium_ipcache", "-o", "json")))[
            0
        ] == {
            "key": "0.0.0.0/0",
            "value": "2 0 0.0.0.0",
            "state": "unknown",
            "error": "",
        }

    run_isolated(body)


def test_map_list_counts_rows(run: Callable[..., list[str]]) -> None:
    def body() -> None:
        run("datapath", "load")
        put_world()
        lines = [line.split() for line in run("map", "list")]

        assert ["cilium_ipcache", "1", "0"] in lines
        assert len(lines) == 1 + len(MapName)

    run_isolated(body)


@pytest.mark.parametrize("name", MapName)
def test_every_map_can_be_printed(run: Callable[..., list[str]], name: MapName) -> None:
    def body() -> None:
        run("datapath", "load")

        assert run("map", "get", name)[0].startswith(WITHOUT_ROWS.get(name, "Key"))
        assert json.loads("\n".join(run("map", "get", name, "-o", "json"))) is not None

    run_isolated(body)


def test_datapath_unload_may_be_repeated(run: Callable[..., list[str]]) -> None:
    def body() -> None:
        run("datapath", "load")
        run("datapath", "unload")

        assert run("datapath", "unload") == [f"nothing is loaded in {PIN_DIR}"]

    run_isolated(body)
