"""
A process with namespaces of its own: network, mounts, processes.

Links, bpf file system and every child end with it, whatever a measurement does.  Not a
security boundary.  ``outside`` starts such a process, ``enter`` is its first act.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


WITH_CALLER = ("setpriv", "--pdeathsig", "KILL")
"""Before a command that shall end when its caller does, however that ends."""


def run_inside(module: str, arguments: Sequence[str]) -> str:
    """
    Run ``python -m module`` in new namespaces and return what it prints.

    Errors: CalledProcessError; what it wrote to standard error was shown already.
    """
    command = ("unshare", *NAMESPACES, sys.executable, "-m", module, *arguments)
    command = (*WITH_CALLER, *command)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def enter(address: str) -> None:
    """Give the caller a bpf file system and an uplink, eth0, that has *address*."""
    _run("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "wire")
    _run("ip", "address", "add", f"{address}/12", "dev", "eth0")
    _run("ip", "link", "set", "wire", "up")
    _run("ip", "link", "set", "eth0", "up")
    _run("ip", "route", "add", "default", "dev", "eth0")


@contextmanager
def pod_cables(count: int) -> Iterator[None]:
    """Make veths whose other ends are in another network namespace, as pods' are."""
    with subprocess.Popen(
        ("unshare", "--net", "sh", "-c", "echo ready; cat"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        batch = "".join(
            f"link add veth{i} type veth peer name eth{i} netns {holder.pid}\n"
            f"link set veth{i} up\n"
            for i in range(count)
        )
        subprocess.run(("ip", "-batch", "-"), input=batch, text=True, check=True)
        try:
            yield
        finally:
            holder.kill()


@contextmanager
def link_settings() -> Iterator[Callable[[str], None]]:
    """Give a function that sets one link after another, as ``ip link set`` does."""
    with subprocess.Popen(
        ("ip", "-batch", "-"), stdin=subprocess.PIPE, text=True, bufsize=1
    ) as setter:
        assert setter.stdin
        lines = setter.stdin
        yield lambda setting: print("link set", setting, file=lines)
        lines.close()


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
