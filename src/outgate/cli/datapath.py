"""
``outgate datapath``: the programs and maps alone, without an agent or attachments.

For inspection with bpftool and for BPF_PROG_TEST_RUN.  Both commands may be repeated.
"""

from pathlib import Path
from typing import Annotated

import typer

from outgate.agent.config import SETTINGS, load_config
from outgate.kernel.datapath import jiffies_per_second, pin_programs, unpin_programs

app = typer.Typer(no_args_is_help=True)

PinOption = Annotated[
    Path, typer.Option("--pin", help="A directory on a bpf file system.")
]
GatewayPathOption = Annotated[
    str, typer.Option("--gateway-path", help="direct, or through the host stack.")
]


@app.callback()
def datapath() -> None:
    """Load the programs for inspection, or unload them."""


@app.command()
def load(pin: PinOption, gateway_path: GatewayPathOption = "direct") -> None:
    """Load and pin all programs and maps below DIR; nothing is attached."""
    flags = dict.fromkeys((setting.name for setting in SETTINGS), None)
    given = {**flags, "node": "none", "gateway-path": gateway_path}
    config = load_config(given, environment={})
    settings = config.datapath_settings(jiffies_per_second())
    for path in pin_programs(pin.absolute(), settings):
        print(path)


@app.command()
def unload(pin: PinOption) -> None:
    """Remove what load pinned below DIR, and nothing else."""
    removed = unpin_programs(pin.absolute())
    for path in removed:
        print(f"removed {path}")
    if not removed:
        print(f"nothing is loaded in {pin}")
