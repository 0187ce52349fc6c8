"""
What this API asks of whoever runs the pods: exec and logs.

What it is: the interface, for the side that starts processes to implement.
What it is not: an implementation; without one, exec and logs answer 501.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


class BackendError(Exception):
    """The backend could not do it; the message reaches the client."""

    def __init__(self, message: str, code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """One command to run inside a container."""

    namespace: str
    pod: str
    container: str | None
    command: tuple[str, ...]
    stdin: bool
    tty: bool


@dataclass(frozen=True, slots=True)
class LogRequest:
    """Which part of a container's output is wanted."""

    namespace: str
    pod: str
    container: str | None
    follow: bool
    tail_lines: int | None
    previous: bool
    timestamps: bool
    since_seconds: int | None
    limit_bytes: int | None


class ExecSession(Protocol):
    """A command that runs; the API reads and writes it until it ends."""

    async def write_stdin(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def resize(self, width: int, height: int) -> None: ...

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(1 stdout or 2 stderr, data); ends when the process closed its output."""

    async def wait(self) -> int:
        """The exit code."""

    async def kill(self) -> None:
        """The client went away."""


class PodBackend(Protocol):
    """Errors: ``BackendError`` from both."""

    async def exec(self, request: ExecRequest) -> ExecSession: ...

    def logs(self, request: LogRequest) -> AsyncIterator[bytes]: ...
