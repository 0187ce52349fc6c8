"""Processes by pid and start time, and the lock that finds a lab."""

import os
from pathlib import Path

from outgate.lab.process import (
    ProcessId,
    is_alive,
    lock_owner,
    read_process,
    send_signal,
    take_lock,
)


def in_child(work: str, path: Path) -> tuple[int, int]:
    """Fork a child that holds the lock on *path* until its pipe closes."""
    reader, writer = os.pipe()
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        take_lock(path)
        os.write(told, work.encode())
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    os.read(ready, 100)
    os.close(ready)
    os.close(told)
    return child, writer


def test_reused_pid_is_another_process() -> None:
    own = read_process(os.getpid())
    assert own is not None

    assert is_alive(own)
    assert not is_alive(ProcessId(own.pid, own.start + 1))
    assert not send_signal(ProcessId(own.pid, own.start + 1), 9)


def test_lock_tells_its_owner_until_that_ends(tmp_path: Path) -> None:
    path = tmp_path / "lab.lock"
    child, writer = in_child("held", path)

    assert lock_owner(path) == child
    assert take_lock(path) is None
    os.close(writer)
    os.waitpid(child, 0)
    assert lock_owner(path) is None


def test_lock_of_a_missing_file_has_no_owner(tmp_path: Path) -> None:
    assert lock_owner(tmp_path / "none") is None
