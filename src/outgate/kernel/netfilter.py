"""
The node's one netfilter link: forward_guard in the host's forwarding path.

It hangs on no interface, so it is there before a pod's veth is, and stays, by its pin,
when no agent runs.  The kernel cannot replace the program of such a link: a new link
runs beside the old one until its pin takes the old pin's name.

Called by ``kernel.links``, which knows pins and turns OSError into KernelError.
"""

import errno
import os
from pathlib import Path

from outgate.kernel import syscall

FIRST_PRIORITY = -100
"""Before filter rules (0); each below the next is tried while others are taken."""

PRIORITIES = range(FIRST_PRIORITY, FIRST_PRIORITY + 8)
"""The kernel gives each priority of a hook to one BPF link at most."""


def put_forward_link(path: Path, program: int) -> None:
    """
    Pin a new link that runs *program* at *path*, whatever is pinned there now.

    The former link ends only after the new one began.  Errors: OSError; EINVAL from
    kernels without BPF programs for netfilter.
    """
    unfinished = path.with_name(f"next_{path.name}")
    unfinished.unlink(missing_ok=True)
    fd = _create(program)
    try:
        syscall.obj_pin(fd, unfinished)
        unfinished.rename(path)
    finally:
        os.close(fd)


def _create(program: int) -> int:
    for priority in PRIORITIES:
        try:
            return syscall.link_create_forward(program, priority)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
