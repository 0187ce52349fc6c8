"""
The parent of one container: starts it, keeps its output, records how it ended.

What this is: ``python -m outgate.lab.shim FOLDER`` reads ``spec.json`` there, starts
the command inside the pod's namespaces, writes ``run.json``, and goes on as a child
of the lab's init, so that no restart of the control plane touches the container.
What this is not: a supervisor; the kubelet decides about restarts.

The log's lines are those of the Kubernetes CRI: time, stream, ``F`` (full line) or
``P`` (part of one), text.
"""

import os
import selectors
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from outgate.lab.process import ProcessId, read_process
from outgate.lab.records import read_record, write_record
from outgate.lab.runs import ExitRecord, RunFolder, RunRecord, RunSpec
from outgate.lab.syscalls import (
    Namespace,
    die_with_parent,
    open_namespaces,
    setns,
)

POD_NAMESPACES = Namespace.NETWORK | Namespace.UTS | Namespace.IPC | Namespace.MOUNT
READY = b"ready"
MAX_LOG_BYTES = 16 << 20
MAX_LINE_BYTES = 16 << 10
LAST_WORDS_SECONDS = 0.2


class Log:
    """A log file; when it is full it starts again from nothing."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._parts = {"stdout": b"", "stderr": b""}

    def write(self, stream: str, text: bytes) -> None:
        """Add output; a line without its end waits for more, up to a limit."""
        *lines, rest = (self._parts[stream] + text).split(b"\n")
        records = [(b"F", line) for line in lines]
        if len(rest) > MAX_LINE_BYTES:
            records.append((b"P", rest))
            rest = b""
        self._parts[stream] = rest
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
        head = now + b" " + stream.encode()
        self._add(b"".join(b"%s %s %s\n" % (head, *record) for record in records))

    def finish(self) -> None:
        """Write what waits for its line end."""
        for stream, rest in self._parts.items():
            if rest:
                self.write(stream, b"\n")

    def _add(self, text: bytes) -> None:
        if self._file.tell() > MAX_LOG_BYTES:
            self._file.truncate(0)
        self._file.write(text)


def start(spec: RunSpec) -> subprocess.Popen[bytes]:
    """Start the container's command inside the namespaces of its pod."""
    others = open_namespaces(spec.holder, POD_NAMESPACES)
    for descriptor, kind in open_namespaces(spec.holder, Namespace.PID):
        setns(descriptor, kind)

    def enter() -> None:
        die_with_parent(signal.SIGKILL)
        for descriptor, kind in others:
            setns(descriptor, kind)
        os.chdir(spec.working_folder)

    return subprocess.Popen(
        spec.command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(spec.environment),
        preexec_fn=enter,
        start_new_session=True,
    )


def pump(container: subprocess.Popen[bytes], log: Log) -> None:
    """Copy output to the log until the command ended and its pipes are silent."""
    with selectors.DefaultSelector() as selector:
        for stream, pipe in (
            ("stdout", container.stdout),
            ("stderr", container.stderr),
        ):
            assert pipe is not None
            selector.register(pipe, selectors.EVENT_READ, stream)
        ended = os.pidfd_open(container.pid)
        selector.register(ended, selectors.EVENT_READ)
        patience: float | None = None
        while len(selector.get_map()) > (patience is None):
            ready = selector.select(patience)
            if not ready:
                return
            for key, _ in ready:
                if key.fd == ended:
                    selector.unregister(ended)
                    patience = LAST_WORDS_SECONDS
                elif not (text := os.read(key.fd, 1 << 16)):
                    selector.unregister(key.fd)
                else:
                    log.write(key.data, text)


def _identity(pid: int) -> ProcessId:
    process = read_process(pid)
    return process if process is not None else ProcessId(pid, 0)


def run(folder: RunFolder, ready: BinaryIO) -> None:
    """The life of a shim; writes to *ready* once the container runs."""
    spec = read_record(folder.spec, RunSpec)
    log = Log(folder.log)
    own = _identity(os.getpid())
    started_at = time.time()
    code = 128
    try:
        container = start(spec)
    except (OSError, subprocess.SubprocessError) as error:
        log.write("stderr", f"cannot start {spec.command[0]}: {error}\n".encode())
        write_record(folder.run, RunRecord(own, own, started_at))
    else:
        record = RunRecord(own, _identity(container.pid), started_at)
        write_record(folder.run, record)
        ready.write(READY)
        ready.close()
        _let_go_of_the_caller()
        pump(container, log)
        code = container.wait()
    log.finish()
    write_record(
        folder.exit, ExitRecord(code if code >= 0 else 128 - code, time.time())
    )


def _let_go_of_the_caller() -> None:
    """Close the caller's pipes, which it reads to their end."""
    null = os.open("/dev/null", os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.close(null)


def main() -> int:
    reader, writer = os.pipe()
    if os.fork() > 0:
        os.close(writer)
        os.read(reader, len(READY))
        return 0
    os.close(reader)
    os.setsid()
    with os.fdopen(writer, "wb", buffering=0) as ready:
        run(RunFolder(Path(sys.argv[1])), ready)
    return 0


if __name__ == "__main__":
    sys.exit(main())
