"""
``outgate controller``: run the writer of policies' status; every setting is a flag.

One process per cluster is enough; a second one stands by.
"""

import asyncio
import os
from typing import Any

import typer

from outgate.cli.flags import with_flags
from outgate.controller.config import SETTINGS, load_config
from outgate.controller.controller import run_controller

app = typer.Typer(add_completion=False)


def run(**arguments: Any) -> None:
    """Run the controller, which writes the status of policies, until told to stop."""
    file = arguments.pop("config")
    flags = {name.replace("_", "-"): value for name, value in arguments.items()}
    asyncio.run(run_controller(load_config(flags, os.environ, file)))


app.command("controller")(with_flags(run, SETTINGS))
