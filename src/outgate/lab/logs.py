"""
``kubectl logs``: read, cut and follow the logs that shims write.

What this is: the reader of the CRI lines of ``shim``.  Following ends when the run
ended and its log was read to the end.
What this is not: an archive; the present run and the one before it are kept.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from outgate.kubeapi.backend import BackendError, LogRequest
from outgate.lab.exec import choose_container
from outgate.lab.runs import RunFolder
from outgate.lab.runtime import Runtime

POLL_SECONDS = 0.2


def select_lines(
    lines: Iterable[bytes], request: LogRequest, now: float
) -> Iterator[bytes]:
    """
    Cut stored lines to what was asked.

    Shape: in, ``time stream tag text`` without line end; out, the text, with the
    time before it on request, with a line end unless the line was a part.

    Units: *now* is seconds since the epoch.
    """
    oldest = b""
    if request.since_seconds is not None:
        moment = datetime.fromtimestamp(now - request.since_seconds, UTC)
        oldest = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
    chosen = [line for line in lines if line[: len(oldest)] >= oldest]
    if request.tail_lines is not None:
        chosen = chosen[len(chosen) - min(request.tail_lines, len(chosen)) :]
    for line in chosen:
        moment_text, _stream, tag, text = line.split(b" ", 3)
        head = moment_text + b" " if request.timestamps else b""
        yield head + text + (b"\n" if tag == b"F" else b"")


def find_run(runtime: Runtime, request: LogRequest) -> RunFolder:
    """Errors: BackendError when there is no such pod, container or run."""
    for record in runtime.records():
        if (record.namespace, record.name) == (request.namespace, request.pod):
            folder = runtime.pod_folder(record.uid)
            name = choose_container(folder, request.container)
            attempts = folder.attempts(name)
            if request.previous:
                attempts = attempts[:-1]
            if not attempts:
                which = "previous terminated " if request.previous else ""
                missing = f'{which}container "{name}" in pod "{request.pod}" not found'
                raise BackendError(missing, 400)
            return folder.run(name, attempts[-1])
    raise BackendError(f"pod {request.namespace}/{request.pod} was not started", 400)


async def read_logs(runtime: Runtime, request: LogRequest) -> AsyncIterator[bytes]:
    """The log of one run, in pieces; honours the limit of bytes."""
    left = request.limit_bytes
    async for piece in _pieces(find_run(runtime, request), request):
        part = piece if left is None else piece[:left]
        if part:
            yield part
        if left is not None:
            left -= len(part)
            if left <= 0:
                return


async def _pieces(folder: RunFolder, request: LogRequest) -> AsyncIterator[bytes]:
    position, lines = _read_from(folder.log, 0)
    yield b"".join(select_lines(lines, request, time.time()))
    everything = replace(request, tail_lines=None, since_seconds=None)
    while request.follow:
        has_ended = folder.exit.exists() or not folder.root.exists()
        position, lines = _read_from(folder.log, position)
        if lines:
            yield b"".join(select_lines(lines, everything, time.time()))
        elif has_ended:
            return
        else:
            await asyncio.sleep(POLL_SECONDS)


def _read_from(path: Path, position: int) -> tuple[int, list[bytes]]:
    """The whole lines after *position*, and the position after them."""
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) < position:
                position = 0
            file.seek(position)
            text = file.read()
    except FileNotFoundError:
        return position, []
    whole = text[: text.rfind(b"\n") + 1]
    return position + len(whole), whole.splitlines()
