"""
A program that makes namespaces, stays in them, and so keeps them alive.

What this is: ``python -m outgate.lab.sandbox SPEC`` (a JSON ``SandboxSpec``) makes
the namespaces of one node, one pod, or one bare host, prints the record of the
process that holds them, and ends; the holder sleeps on as a child of the lab's init.
What this is not: cabling.  ``network`` and ``cni`` put interfaces in afterwards.

It is a program of its own because entering mount and PID namespaces needs a process
with one thread, which the control plane is not.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from outgate.lab.process import read_process
from outgate.lab.rootfs import enter_new_root
from outgate.lab.syscalls import (
    Namespace,
    enter,
    make_mounts_private,
    mount,
    set_hostname,
    unshare,
)

# A shell that waits reaps every orphan that the kernel hands to a PID namespace's
# first process; "sleep infinity" alone would leave them as zombies.
HOLD = "trap '' TERM HUP INT; sleep infinity & while kill -0 $!; do wait; done"
READY = b"ready"


class Kind(StrEnum):
    """What the namespaces are for."""

    HOST = "host"
    NODE = "node"
    POD = "pod"
    HOST_POD = "host-pod"


# Without the mount namespace: the child makes its own, so that the parent's /proc
# stays the lab's.
NEW_NAMESPACES = {
    Kind.HOST: Namespace.NETWORK | Namespace.UTS,
    Kind.NODE: Namespace.NETWORK | Namespace.UTS,
    Kind.POD: Namespace.NETWORK | Namespace.UTS | Namespace.IPC | Namespace.PID,
    Kind.HOST_POD: Namespace.IPC | Namespace.PID,
}


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """
    The namespaces to make.

    *node* is the pid of the node's holder whose network and files a host-network
    pod uses.  *sysctls* are written in the new namespaces; keys are paths under
    ``/proc/sys``.
    """

    kind: Kind
    hostname: str
    scratch: str
    node: int = 0
    keep: str | None = None
    hosts: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)


def main() -> int:
    spec = msgspec.json.decode(sys.argv[1], type=SandboxSpec)
    reader, writer = os.pipe()
    if spec.kind is Kind.HOST_POD:
        enter(spec.node, Namespace.NETWORK | Namespace.UTS | Namespace.MOUNT)
    unshare(NEW_NAMESPACES[spec.kind])
    child = os.fork()
    if child == 0:
        os.close(reader)
        unshare(Namespace.MOUNT)
        _furnish(spec)
        os.write(writer, READY)
        _hold()
    os.close(writer)
    if os.read(reader, len(READY)) != READY:
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(read_process(child)))
    return 0


def _furnish(spec: SandboxSpec) -> None:
    """Give the new namespaces their files, name and settings."""
    if spec.kind is Kind.HOST_POD:
        make_mounts_private()
        mount("proc", "/proc", "proc")
        return
    set_hostname(spec.hostname)
    enter_new_root(
        Path(spec.scratch),
        keep=Path(spec.keep) if spec.keep else None,
        bpffs=spec.kind is Kind.NODE,
    )
    Path("/etc/hostname").write_text(f"{spec.hostname}\n")
    Path("/etc/hosts").write_text(spec.hosts)
    for key, value in spec.sysctls.items():
        Path("/proc/sys", key).write_text(value)


def _hold() -> None:
    """Become the sleeping holder; never returns."""
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.closerange(3, 1024)
    os.execve("/bin/sh", ["pause", "-c", HOLD], {"PATH": "/usr/bin:/bin"})


if __name__ == "__main__":
    sys.exit(main())
