"""
``outgate``: arguments in, exit codes out; every command lives in a module beside this.

Commands are imported when they are asked for: ``outgate map get`` starts without an
HTTP library, and a missing extra hides nothing but its own command.

Exit codes: 0; 1 when something could not be done (one line on standard error says
what and how to mend it); 2 for wrong arguments, or what a command says.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from outgate.errors import ConfigError, OutgateError
from outgate.telemetry.version import product_version

EXIT_FAILED = 1


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command lives; *extra* is the optional dependency set it needs."""

    module: str
    application: str
    extra: str = ""


COMMANDS = {
    "agent": Lazy("outgate.cli.agent", "app"),
    "controller": Lazy("outgate.cli.controller", "app"),
    "status": Lazy("outgate.cli.show", "status_app"),
    "monitor": Lazy("outgate.cli.monitor", "app"),
    "map": Lazy("outgate.cli.show", "map_app"),
    "policy": Lazy("outgate.cli.policy", "app"),
    "explain": Lazy("outgate.cli.explain", "app"),
    "datapath": Lazy("outgate.cli.datapath", "app"),
    "lab": Lazy("outgate.cli.lab", "app", extra="lab"),
}


class LazyGroup(TyperGroup):
    """A group that imports a command when it is looked up."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command, or None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        application = _application(COMMANDS[cmd_name])
        if application.registered_callback is None:
            command = typer.main.get_command(application)
            command.name = cmd_name
            return command
        # A group is looked up in a parent, so that it offers no completion of its own.
        parent = typer.Typer(add_completion=False)
        parent.add_typer(application, name=cmd_name)
        return typer.main.get_group(parent).commands[cmd_name]


def _application(lazy: Lazy) -> typer.Typer:
    try:
        application = getattr(import_module(lazy.module), lazy.application)
    except ModuleNotFoundError as error:
        if not lazy.extra:
            raise
        return _missing(lazy.extra, error.name or "")
    assert isinstance(application, typer.Typer)
    return application


def _missing(extra: str, module: str) -> typer.Typer:
    """Return a command that says which extra to install."""
    stand_in = typer.Typer(add_completion=False)
    accept_all = {"allow_extra_args": True, "ignore_unknown_options": True}

    @stand_in.command(context_settings=accept_all, help=f"Needs the extra '{extra}'.")
    def explain() -> None:
        raise ConfigError(
            f"this command needs '{module}', which is not installed: "
            f"pip install 'outgate[{extra}]'"
        )

    return stand_in


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="An eBPF egress gateway for Kubernetes.",
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"outgate {product_version()}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it."
        ),
    ] = False,
) -> None:
    """An eBPF egress gateway for Kubernetes."""


def run() -> None:
    """Run the command line; expected errors become one line and exit code 1."""
    failed: list[OutgateError] = []
    try:
        app()
    except* OutgateError as errors:
        failed.extend(_leaves(errors))
    for error in failed:
        print(f"outgate: {error}", file=sys.stderr)
    if failed:
        sys.exit(EXIT_FAILED)


def _leaves(group: BaseExceptionGroup[OutgateError]) -> Iterable[OutgateError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
