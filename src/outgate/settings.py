"""
Settings of a process: from a file, the environment and flags.

Order: built-in default < YAML file < ``OUTGATE_*`` < flag.  A setting has one name in
kebab case everywhere: ``tunnel-port`` in the file, ``OUTGATE_TUNNEL_PORT``,
``--tunnel-port``.  Every wrong value is a ConfigError that names the setting, the
value and what would be right.

What it is not: a list of settings; each process has its own table.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import yaml

from outgate.errors import ConfigError

Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class HostPort:
    """An address to listen on; an empty *host* is every one, of both IP families."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Setting:
    """*default* is text as users write it; None: unset, and *parse* is not asked."""

    name: str
    default: str | None
    parse: Callable[[str], Any]
    meaning: str

    @property
    def variable(self) -> str:
        """Return the environment variable of the setting."""
        return "OUTGATE_" + self.name.replace("-", "_").upper()


def read_settings(
    settings: Iterable[Setting],
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    file: Path | None = None,
) -> dict[str, Any]:
    """
    Return the values of *settings*, by name with underscores.

    *flags* are by setting name, None where not given.  Errors: ConfigError that names
    the setting and where its value came from.
    """
    settings = tuple(settings)
    in_file = _read_file(file, settings) if file else {}
    values: dict[str, Any] = {}
    for setting in settings:
        text, origin = setting.default, setting.name
        if setting.name in in_file:
            text, origin = in_file[setting.name], f"{file}: {setting.name}"
        if setting.variable in environment:
            text, origin = environment[setting.variable], setting.variable
        flag = flags.get(setting.name)
        if flag is not None:
            text, origin = flag, f"--{setting.name}"
        values[setting.name.replace("-", "_")] = _parse(setting, text, origin)
    return values


def number(first: int, last: int) -> Callable[[str], int]:
    """Return a parser of numbers in a range."""

    def parse(text: str) -> int:
        try:
            number = int(text, 0)
        except ValueError:
            raise ValueError(f"is not a number from {first} to {last}") from None
        if not first <= number <= last:
            raise ValueError(f"is not from {first} to {last}")
        return number

    return parse


def choice(kind: type[Choice]) -> Callable[[str], Choice]:
    """Return a parser of one of a few words."""

    def parse(text: str) -> Choice:
        if text not in list(kind):
            raise ValueError(f"is none of {', '.join(kind)}")
        return kind(text)

    return parse


def absolute_path(text: str) -> Path:
    """Parse a path from the root."""
    if not text.startswith("/"):
        raise ValueError("is not an absolute path")
    return Path(text)


def host_port(text: str) -> HostPort:
    """Parse an address to listen on."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("is not host:port")
    return HostPort(host.strip("[]"), int(port))


def _parse(setting: Setting, text: str | None, origin: str) -> Any:
    if text is None:
        return None
    try:
        return setting.parse(text)
    except ValueError as error:
        raise ConfigError(f"{origin}: '{text}' {error}") from error


def _read_file(file: Path, settings: Iterable[Setting]) -> dict[str, str]:
    try:
        read = yaml.safe_load(file.read_text())
    except OSError as error:
        raise ConfigError(f"config file {file}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        # PyYAML lets the ValueError of a number like 0x_ through.
        raise ConfigError(f"config file {file}: no YAML: {error}") from error
    if read is not None and not isinstance(read, dict):
        raise ConfigError(f"config file {file}: is not a mapping of settings")
    known = {setting.name for setting in settings}
    for name, value in (read or {}).items():
        if name not in known:
            raise ConfigError(f"config file {file}: unknown setting '{name}'")
        if isinstance(value, dict):
            raise ConfigError(f"config file {file}: {name}: is not a single value")
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in (read or {}).items()
        if value is not None
    }
