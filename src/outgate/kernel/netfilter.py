"""
The node's netfilter links: forward_guard in the host's forwarding path.

One for each IP family.  They hang on no interface, so they are there before a pod's
veth is, and stay, by their pins, when no agent runs.  The kernel cannot replace the
program of such a link: a new link runs beside the old one until its pin takes the old
pin's name.

Called by ``kernel.links``, which knows pins and turns OSError into KernelError.
"""

import errno
import os
from pathlib import Path

from outgate.kernel import syscall
from outgate.state.entries import Family

FIRST_PRIORITY = -100
"""Before filter rules (0); each below the next is tried while others are taken."""

PRIORITIES = range(FIRST_PRIORITY, FIRST_PRIORITY + 8)
"""The kernel gives each priority of a family's hook to one BPF link at most."""

PROTOCOLS = {Family.V4: syscall.NF_PROTO_IPV4, Family.V6: syscall.NF_PROTO_IPV6}


def put_forward_link(path: Path, program: int, family: Family) -> None:
    """
    Pin a new link of *family* that runs *program* at *path*, whatever is pinned there.

    The former link ends only after the new one began.  Errors: OSError; EINVAL from
    kernels without BPF programs for netfilter.
    """
    unfinished = path.with_name(f"next_{path.name}")
    unfinished.unlink(missing_ok=True)
    fd = _create(program, PROTOCOLS[family])
    try:
        syscall.obj_pin(fd, unfinished)
        unfinished.rename(path)
    finally:
        os.close(fd)


def _create(program: int, protocol: int) -> int:
    for priority in PRIORITIES:
        try:
            return syscall.link_create_forward(program, priority, protocol)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
