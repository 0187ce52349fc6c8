"""
``outgate status`` and ``outgate map``: what the agent says, what the maps hold.

Maps are read from their pins, with or without an agent; the agent only adds whether
a row is what it should be.  Nothing is changed here.
"""

import errno
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from outgate.agent.ask import AgentAbsentError, ask
from outgate.cli.maprows import MapRow, map_rows
from outgate.cli.render import Output, status_text, table
from outgate.errors import ConfigError, KernelError
from outgate.kernel.collector import COLLECTORS
from outgate.kernel.maps import MapName
from outgate.kernel.pinned import PinnedMap
from outgate.state.entries import Family

DEFAULT_SOCKET = Path("/run/outgate/agent.sock")
DEFAULT_PIN_DIR = Path("/sys/fs/bpf/outgate")

IN_SYNC = "sync"
UNKNOWN = "unknown"
BY_DATAPATH = "-"

MAP_OF_ENTRY = {
    ("node", Family.V4): MapName.NODE_V4,
    ("node", Family.V6): MapName.NODE_V6,
    ("ipcache", Family.V4): MapName.IPCACHE,
    ("ipcache", Family.V6): MapName.IPCACHE,
    ("covered", Family.V4): MapName.COVERED_V4,
    ("covered", Family.V6): MapName.COVERED_V6,
    ("policy", Family.V4): MapName.EGRESS_V4,
    ("policy", Family.V6): MapName.EGRESS_V6,
    ("endpoint", Family.V4): MapName.ENDPOINT,
    ("endpoint", Family.V6): MapName.ENDPOINT,
}
"""Where entries live, by ``state.snapshot``'s word for their kind, and by family."""

SocketOption = Annotated[
    Path,
    typer.Option(
        "--socket", envvar="OUTGATE_STATUS_SOCKET", help="The agent's status socket."
    ),
]
PinOption = Annotated[
    Path | None,
    typer.Option("--pin", help="Pin directory; default: the running agent's."),
]
OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print.")]

status_app = typer.Typer(add_completion=False)
map_app = typer.Typer(no_args_is_help=True)


@status_app.command()
def status(
    socket: SocketOption = DEFAULT_SOCKET, output: OutputOption = Output.TEXT
) -> None:
    """Print what this node's agent knows, does, and fails to do."""
    answer = ask(socket, "/status")
    text = status_text(answer) if output is Output.TEXT else _json(answer)
    print(text)


@map_app.callback()
def maps() -> None:
    """Read the pinned maps of this node."""


@map_app.command("list")
def list_maps(
    pin: PinOption = None,
    socket: SocketOption = DEFAULT_SOCKET,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print each map, how many rows it has, and how many the kernel refused."""
    pin_dir = find_pin_dir(pin, socket)
    states = (entry_states(socket) or {}).values()
    refused = Counter(
        MAP_OF_ENTRY.get((entry["kind"], entry["family"]))
        for entry in states
        if entry["error"]
    )
    found = []
    for name in MapName:
        if name in COLLECTORS.values() and not (pin_dir / name).exists():
            continue
        entries = _size(pin_dir, name)
        errors = refused.get(name, 0)
        found.append({"name": str(name), "entries": entries, "errors": errors})
    if output is Output.JSON:
        print(_json(found))
    else:
        lines = [
            ["-" if cell is None else str(cell) for cell in one.values()]
            for one in found
        ]
        print(table(("Name", "Entries", "Errors"), lines))


@map_app.command("get")
def get_map(
    name: Annotated[str, typer.Argument(help="A map's name; see 'outgate map list'.")],
    pin: PinOption = None,
    socket: SocketOption = DEFAULT_SOCKET,
    output: OutputOption = Output.TEXT,
) -> None:
    """
    Print the rows of a map, one a line.

    State is sync when the agent confirms that the row is what it should be, unknown
    when no agent answers, and - for maps that the programs write.  Queues and the ring
    of events have no rows: what is read from them is gone.
    """
    if name not in list(MapName):
        raise ConfigError(f"no map '{name}'; there are: {', '.join(MapName)}")
    pin_dir = find_pin_dir(pin, socket)
    if contents := _without_rows(pin_dir, MapName(name)):
        print(contents if output is Output.TEXT else _json([]))
        return
    rows = read_rows(pin_dir, MapName(name))
    states = entry_states(socket)
    lines = [(row.key, row.value, *state_of(row, states)) for row in rows]
    if output is Output.TEXT:
        print(table(("Key", "Value", "State", "Error"), lines))
        return
    names = ("key", "value", "state", "error")
    stripped = [[cell.strip() for cell in line] for line in lines]
    print(_json([dict(zip(names, line, strict=True)) for line in stripped]))


def find_pin_dir(pin: Path | None, socket: Path) -> Path:
    """Return *pin*, or ``OUTGATE_PIN_DIR``, or the agent's, or the default."""
    if pin is not None:
        return pin
    if variable := os.environ.get("OUTGATE_PIN_DIR"):
        return Path(variable)
    try:
        return Path(ask(socket, "/status")["pinDir"])
    except AgentAbsentError:
        return DEFAULT_PIN_DIR


def read_rows(pin_dir: Path, name: MapName) -> list[MapRow]:
    """Return the rows of a pinned map as text, sorted."""
    return map_rows(name, read_raw(pin_dir, name))


def read_raw(pin_dir: Path, name: MapName) -> list[tuple[bytes, bytes]]:
    """Return the rows of a pinned map as bytes, in no order."""
    with _opened(pin_dir, name) as opened:
        return list(opened.rows())


def _size(pin_dir: Path, name: MapName) -> int | None:
    """Return how many rows a pinned map has; None for what has no rows."""
    with _opened(pin_dir, name) as opened:
        return sum(1 for _ in opened.rows()) if opened.shape.has_rows else None


def _without_rows(pin_dir: Path, name: MapName) -> str:
    """Return what there is to say of a map without rows, nothing of other maps."""
    with _opened(pin_dir, name) as opened:
        if opened.shape.has_rows:
            return ""
        if name is MapName.EVENTS:
            return f"a ring of {opened.shape.entries} bytes; read by 'outgate monitor'"
        if name is MapName.XDP:
            return "an array of programs: IPv6's, which IPv4's of XDP goes on with"
        state = "empty" if opened.is_empty_queue() else "not empty"
        room = f"room for {opened.shape.entries} flows"
        return f"a queue of flows that the collector must look at: {state}, {room}"


def _opened(pin_dir: Path, name: MapName) -> PinnedMap:
    try:
        return PinnedMap(pin_dir / name)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        raise ConfigError(
            f"no map {name} pinned in {pin_dir}; "
            "start an agent, run 'outgate datapath load', or give --pin"
        ) from error


EntryStates = Mapping[tuple[str, str], dict[str, Any]]


def entry_states(socket: Path) -> EntryStates | None:
    """Return what the agent says of each entry, by kind and key; None without one."""
    try:
        answer = ask(socket, "/entries")
    except AgentAbsentError:
        return None
    return {(entry["kind"], entry["key"]): entry for entry in answer["entries"]}


def state_of(row: MapRow, states: EntryStates | None) -> tuple[str, str]:
    """Return the state of a row and its error, the way users' tools name them."""
    if row.subject is None:
        return BY_DATAPATH, ""
    if states is None:
        return UNKNOWN, ""
    entry = states.get(row.subject)
    if entry is None:
        return "pending", ""
    if entry["state"] == "done":
        return (IN_SYNC if entry["wanted"] == row.wanted else "pending"), ""
    return entry["state"], entry["error"]


def _json(answer: object) -> str:
    return json.dumps(answer, indent=2)
