"""
A thread with namespaces of its own, for tests that touch the real kernel.

Network and mount namespace are the thread's alone: links made there, and a bpf file
system mounted there, end with it, whatever a test does.  Not a security boundary.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from outgate.kernel.attachments import has_tcx
from outgate.kernel.hooks import AttachWay

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_REC_PRIVATE = 0x4000 | 1 << 18

BPF_FS = Path("/sys/fs/bpf")

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}")


def enter_private_namespaces() -> None:
    """Give the calling thread an empty network and a private bpf file system."""
    _checked(_libc.unshare(CLONE_NEWNET | CLONE_NEWNS), "unshare")
    _checked(_libc.mount(None, b"/", None, MS_REC_PRIVATE, None), "mount private")
    _checked(_libc.mount(b"bpf", bytes(BPF_FS), b"bpf", 0, None), "mount bpf")


def run_isolated(body: Callable[[], None]) -> None:
    """Run *body* in such a thread; raise here what it raises."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            enter_private_namespaces()
            body()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def skip_without_root() -> None:
    """Skip the calling test, with the reason, where namespaces cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes namespaces and loads programs")


def skip_without(way: AttachWay) -> None:
    """Skip the calling test, with the reason, where the kernel cannot attach so."""
    skip_without_root()
    if way is AttachWay.TCX and not has_tcx():
        pytest.skip("needs tcx: Linux 6.6")
