"""
Processes, named so that a reused pid is never mistaken for them.

What this is: pid and start time together, checks against ``/proc``, and the lock
by which a lab's first process is found.
What this is not: starting processes; ``sandbox``, ``shim`` and ``init`` do that.

Units: *start* is field 22 of ``/proc/<pid>/stat``, clock ticks since boot (proc(5)).
The pids that the lab stores count in the lab's own PID namespace; from outside,
read them through the ``/proc`` of the lab (*proc* arguments).
"""

import errno
import fcntl
import os
import signal
import struct
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_FLOCK = struct.Struct("hhqqi4x")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process for all time."""

    pid: int
    start: int


def read_process(pid: int, proc: Path = PROC) -> ProcessId | None:
    """The process that has *pid* now; None when there is none, or only a zombie."""
    try:
        text = (proc / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else ProcessId(pid, int(fields[18]))


def started_at(process: ProcessId, proc: Path = PROC) -> float:
    """When *process* started, in seconds since the epoch, to about a second."""
    lines = (proc / "stat").read_text().splitlines()
    boot = next(float(line.split()[1]) for line in lines if line.startswith("btime "))
    return boot + process.start / os.sysconf("SC_CLK_TCK")


def is_alive(process: ProcessId, proc: Path = PROC) -> bool:
    """Whether exactly this process still runs."""
    return read_process(process.pid, proc) == process


def send_signal(process: ProcessId, number: int) -> bool:
    """Signal exactly this process; False when it is gone."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def take_lock(path: Path) -> int | None:
    """
    Take the record lock on *path*; the kernel gives it back when we end.

    Returns the descriptor, to be kept open, or None when another process has it.
    A lock on a file that ``down`` removed meanwhile counts for nothing: try again.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return None
            raise
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)


def lock_owner(path: Path) -> int | None:
    """The pid of the process that holds the record lock on *path*, None if nobody."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question)
    finally:
        os.close(descriptor)
    kind, _whence, _start, _length, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else pid
