"""
One real agent under measurement, and the API server that it talks to.

Both are processes of their own; what they cost is read from ``/proc``, what the agent
did from the pinned map.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.world import World, node_name
from outgate.errors import KernelError
from outgate.kernel.pinned import PinnedMap

PIN = Path("/sys/fs/bpf/outgate/cilium_egress_v4")
START_SECONDS = 120.0
STOP_SECONDS = 40.0

AGENT = "from outgate.cli.main import run; run()"


class Cost:
    """What a process has used so far."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def cpu_seconds(self) -> float:
        """Return the time on a CPU of all its threads that live."""
        tasks = (self._folder / "task").iterdir()
        return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e9

    def memory(self, field: str = "VmRSS") -> float:
        """Return megabytes: *field* VmRSS is now, VmHWM the most there ever were."""
        for line in (self._folder / "status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) / 1024
        raise KeyError(field)


class Control:
    """The unix socket of ``apiserver``: commands by name."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._answers = self._socket.makefile("r")

    def send(self, command: str, **arguments: Any) -> None:
        """Give a command and do not wait."""
        line = json.dumps({"do": command, **arguments}) + "\n"
        self._socket.sendall(line.encode())

    def answer(self) -> Any:
        """Return the answer to the oldest command that has none yet."""
        return json.loads(self._answers.readline())

    def ask(self, command: str, **arguments: Any) -> Any:
        self.send(command, **arguments)
        return self.answer()


class Server:
    """A running API server of one world."""

    def __init__(self, world: World, folder: Path) -> None:
        sizes = [
            f"--{name}={getattr(world, name)}"
            for name in ("nodes", "policies", "networks", "gateways", "kind")
        ]
        command = (sys.executable, "-m", "bench.apiserver", str(folder), *sizes)
        self.process = subprocess.Popen(command)
        self.cost = Cost(self.process.pid)
        self.kubeconfig = folder / "kubeconfig"
        until(self.kubeconfig.exists, START_SECONDS, self.process)
        self.control = Control(folder / "control")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Agent:
    """``outgate agent`` of one node; *started* is CLOCK_MONOTONIC, seconds."""

    def __init__(self, node: int, kubeconfig: Path, log: Path) -> None:
        settings = ("--node", node_name(node), "--kubeconfig", str(kubeconfig))
        command = (sys.executable, "-c", AGENT, "agent", *settings)
        self._log = log.open("w")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command, stdout=self._log, stderr=subprocess.STDOUT
        )
        self.cost = Cost(self.process.pid)

    def map(self) -> PinnedMap:
        """Return the agent's rows, once it has made the map."""
        until(PIN.exists, START_SECONDS, self.process)
        return PinnedMap(PIN)

    def stop(self) -> None:
        """End it as a supervisor would: first asked, then killed."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._log.close()


@contextmanager
def running(what: Any) -> Iterator[Any]:
    """Stop *what* at the end."""
    try:
        yield what
    finally:
        what.stop()


def until(
    is_so: Callable[[], bool],
    seconds: float,
    process: subprocess.Popen[bytes],
    pause: float = 0.002,
) -> None:
    """
    Wait for *is_so*, asking it every *pause* seconds.

    Errors: RuntimeError when that takes longer than *seconds*, or *process* ended.
    """
    deadline = time.monotonic() + seconds
    while not is_so():
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} was not done in {seconds} s")
        time.sleep(pause)


def row(rows: PinnedMap, key: bytes) -> bytes | None:
    """Return the value of one row, None for no row."""
    try:
        return rows.get(key)
    except KernelError:
        return None
