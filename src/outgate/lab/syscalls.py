"""
The system calls that Python 3.11 lacks: namespaces and mounts.

What this is: thin, typed calls through libc; each raises OSError with what was
tried.  ``os`` has setns and unshare from Python 3.12 on.
What this is not: policy; ``sandbox`` and ``rootfs`` decide what is mounted where.

Traps: setns() into a mount or PID namespace needs a process with one thread, and a
PID namespace counts for children only.
"""

import ctypes
import os
from enum import IntFlag
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG = 1
MNT_DETACH = 2


class Namespace(IntFlag):
    """Kinds of namespaces (``linux/sched.h``)."""

    MOUNT = 0x00020000
    UTS = 0x04000000
    IPC = 0x08000000
    PID = 0x20000000
    NETWORK = 0x40000000


class Mount(IntFlag):
    """Flags of mount(2) (``linux/mount.h``)."""

    NONE = 0
    READ_ONLY = 1
    REMOUNT = 32
    BIND = 4096
    RECURSIVE = 16384
    PRIVATE = 1 << 18


FILES = {
    Namespace.NETWORK: "net",
    Namespace.UTS: "uts",
    Namespace.IPC: "ipc",
    Namespace.PID: "pid",
    Namespace.MOUNT: "mnt",
}


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(kinds: Namespace) -> None:
    """Give this process new namespaces of *kinds*."""
    _check(_libc.unshare(int(kinds)), f"unshare {kinds!r}")


def open_namespaces(pid: int, kinds: Namespace) -> list[tuple[int, Namespace]]:
    """
    Open the namespaces of process *pid*, the mount namespace last.

    Opened before any is entered, because ``/proc`` is another one afterwards.
    """
    return [
        (os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind)
        for kind, name in FILES.items()
        if kind & kinds
    ]


def setns(descriptor: int, kind: Namespace) -> None:
    """Enter an opened namespace."""
    _check(_libc.setns(descriptor, int(kind)), f"setns {kind!r}")


def enter(pid: int, kinds: Namespace) -> None:
    """Enter the namespaces of process *pid*."""
    for descriptor, kind in open_namespaces(pid, kinds):
        setns(descriptor, kind)
        os.close(descriptor)


def mount(
    source: str | Path,
    target: str | Path,
    kind: str = "",
    flags: Mount = Mount.NONE,
    options: str = "",
) -> None:
    """mount(2)."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(int(flags)),
        options.encode() or None,
    )
    _check(result, f"mount {kind or 'bind'} on {target}")


def make_mounts_private() -> None:
    """Keep every mount made from now on inside this mount namespace."""
    mount("none", "/", flags=Mount.RECURSIVE | Mount.PRIVATE)


def change_root(root: Path) -> None:
    """Make the mount point *root* the root of this mount namespace; drop the old."""
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), f"pivot_root {root}")
    _check(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def set_hostname(name: str) -> None:
    """Name this UTS namespace."""
    encoded = name.encode()
    _check(_libc.sethostname(encoded, len(encoded)), f"sethostname {name}")


def die_with_parent(signal_number: int) -> None:
    """Ask the kernel to send this process *signal_number* when its parent dies."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal_number), "prctl PDEATHSIG")
