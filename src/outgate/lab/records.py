"""
Small JSON files that outlive the process that wrote them.

What this is: dataclass to file and back, each write atomic, so that a reader (or a
process that starts after a crash) sees a whole record or none.
What this is not: a store; the API's objects are in its journal.
"""

import contextlib
from pathlib import Path
from typing import TypeVar

import msgspec

from outgate.lab.errors import LabError

Record = TypeVar("Record")


def write_record(path: Path, record: object) -> None:
    """Replace *path* by the JSON text of *record*, readable by root alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.new")
    fresh.touch(mode=0o600)
    fresh.write_bytes(msgspec.json.encode(record))
    fresh.replace(path)


def read_record(path: Path, kind: type[Record]) -> Record:
    """Errors: LabError when the file is missing or is not a *kind*."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise LabError(f"{path} is not a {kind.__name__}: {error}") from error


def find_record(path: Path, kind: type[Record]) -> Record | None:
    """The record at *path*, None when it was never written."""
    with contextlib.suppress(FileNotFoundError):
        return msgspec.json.decode(path.read_bytes(), type=kind)
    return None
