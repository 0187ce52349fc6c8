"""
Flags of a command from its table of settings, so that each is written down once.

Who calls it: the commands that run a process, ``agent`` and ``controller``.
"""

from collections.abc import Callable, Iterable
from inspect import Parameter, Signature
from pathlib import Path

import typer

from outgate.settings import Setting

CONFIG_HELP = "YAML file with the same settings; variables and flags win over it."


def with_flags(
    run: Callable[..., None], settings: Iterable[Setting]
) -> Callable[..., None]:
    """Return *run* as typer is to see it: a flag per setting, and ``--config``."""
    run.__signature__ = _signature(settings)  # type: ignore[attr-defined]
    run.__annotations__ = {}
    return run


def _flag(setting: Setting) -> Parameter:
    default = f" Default: {setting.default}." if setting.default else ""
    option = typer.Option(None, f"--{setting.name}", help=f"{setting.meaning}{default}")
    return Parameter(
        setting.name.replace("-", "_"),
        Parameter.KEYWORD_ONLY,
        default=option,
        annotation=str | None,
    )


def _signature(settings: Iterable[Setting]) -> Signature:
    option = typer.Option(None, "--config", help=CONFIG_HELP, envvar="OUTGATE_CONFIG")
    file = Parameter(
        "config", Parameter.KEYWORD_ONLY, default=option, annotation=Path | None
    )
    return Signature([file, *map(_flag, settings)])
