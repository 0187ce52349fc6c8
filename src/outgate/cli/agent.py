"""
``outgate agent``: run the agent of this node; every setting is a flag.

The flags are made from the table in ``agent.config``, so that a setting is written
down once; environment and file are read there too.
"""

import asyncio
import os
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import typer

from outgate.agent.agent import run_agent
from outgate.agent.config import SETTINGS, Setting, load_config

app = typer.Typer(add_completion=False)

CONFIG_HELP = "YAML file with the same settings; variables and flags win over it."


def _flag(setting: Setting) -> Parameter:
    default = f" Default: {setting.default}." if setting.default else ""
    option = typer.Option(None, f"--{setting.name}", help=f"{setting.meaning}{default}")
    return Parameter(
        setting.name.replace("-", "_"),
        Parameter.KEYWORD_ONLY,
        default=option,
        annotation=str | None,
    )


def _signature() -> Signature:
    option = typer.Option(None, "--config", help=CONFIG_HELP, envvar="OUTGATE_CONFIG")
    file = Parameter(
        "config", Parameter.KEYWORD_ONLY, default=option, annotation=Path | None
    )
    return Signature([file, *map(_flag, SETTINGS)])


def run(**arguments: Any) -> None:
    """Run the agent of this node until it is told to stop."""
    file = arguments.pop("config")
    flags = {name.replace("_", "-"): value for name, value in arguments.items()}
    asyncio.run(run_agent(load_config(flags, os.environ, file)))


run.__signature__ = _signature()  # type: ignore[attr-defined]
run.__annotations__ = {}
app.command("agent")(run)
