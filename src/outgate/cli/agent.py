"""
``outgate agent``: run the agent of this node; every setting is a flag.

The flags are made from the table in ``agent.config``, so that a setting is written
down once; environment and file are read there too.
"""

import asyncio
import os
from typing import Any

import typer

from outgate.agent.agent import run_agent
from outgate.agent.config import SETTINGS, load_config
from outgate.cli.flags import with_flags

app = typer.Typer(add_completion=False)


def run(**arguments: Any) -> None:
    """Run the agent of this node until it is told to stop."""
    file = arguments.pop("config")
    flags = {name.replace("_", "-"): value for name, value in arguments.items()}
    asyncio.run(run_agent(load_config(flags, os.environ, file)))


app.command("agent")(with_flags(run, SETTINGS))
