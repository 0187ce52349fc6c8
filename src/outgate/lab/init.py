"""
The first process of a lab: makes it, keeps its services alive, and takes it along.

What this is: ``python -m outgate.lab.init FOLDER``.  It becomes process 1 of new PID
and mount namespaces, takes the lab's lock, builds the hosts, and then supervises the
echo server and the control plane.  When it ends, however it ends, the kernel kills
every process of the lab, and with them go all namespaces, links, mounts and pins.
What this is not: a daemon that remembers; ``up``, ``down`` and ``status`` find it by
the owner of the lock alone.

It imports neither asyncio nor an HTTP library: it must be up at once, and small.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from outgate.lab.errors import LabError
from outgate.lab.holders import build_hosts
from outgate.lab.process import read_process, take_lock
from outgate.lab.records import read_record, write_record
from outgate.lab.settings import LabSettings, StateFolder
from outgate.lab.syscalls import Namespace, make_mounts_private, mount, unshare
from outgate.lab.topology import topology_of

RESTART_PAUSE_SECONDS = 1.0
STOP_SECONDS = 0.5
STARTED = b"started"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def say(text: str) -> None:
    """One line of progress, into the log that ``lab up`` shows."""
    print(f"lab: {text}", flush=True)


@dataclass(slots=True)
class Service:
    """A supervised process."""

    name: str
    command: Sequence[str]
    running: subprocess.Popen[bytes] | None = None
    not_before: float = 0.0


class Supervisor:
    """Reaps everything, restarts services, ends when a holder of the lab is gone."""

    def __init__(self, folder: StateFolder, holders: set[int]) -> None:
        self._folder = folder
        self._holders = holders
        self._services: list[Service] = []
        self._is_stopping = False
        self._wake_reader, wake_writer = os.pipe()
        os.set_blocking(wake_writer, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)

    def _stop(self, *_: object) -> None:
        self._is_stopping = True

    def add(self, name: str, command: Sequence[str]) -> None:
        self._services.append(Service(name, command))

    def run(self) -> None:
        """Supervise until asked to stop, or until a holder died."""
        while not self._is_stopping:
            now = time.monotonic()
            for service in self._services:
                if service.running is None and service.not_before <= now:
                    self._start(service)
            self._sleep(RESTART_PAUSE_SECONDS)
            self._reap()
        self._stop_services()

    def _sleep(self, seconds: float) -> None:
        ready, _, _ = select.select([self._wake_reader], [], [], seconds)
        if ready:
            os.read(self._wake_reader, 4096)

    def _start(self, service: Service) -> None:
        service.running = subprocess.Popen(
            service.command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={"PATH": PATH, "LANG": "C.UTF-8"},
        )
        record = self._folder.services / f"{service.name}.json"
        write_record(record, read_process(service.running.pid))

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._note_end(pid, os.waitstatus_to_exitcode(status))

    def _note_end(self, pid: int, code: int) -> None:
        if pid in self._holders:
            say(f"a namespace holder (process {pid}) died; the lab ends")
            self._is_stopping = True
        for service in self._services:
            if service.running is not None and service.running.pid == pid:
                service.running.returncode = code
                service.running = None
                service.not_before = time.monotonic() + RESTART_PAUSE_SECONDS
                say(f"{service.name} ended with code {code}; starting it again")

    def _stop_services(self) -> None:
        """Let the control plane close its journal; the kernel ends the rest."""
        deadline = time.monotonic() + STOP_SECONDS
        running = [service.running for service in self._services if service.running]
        for process in running:
            process.terminate()
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))


def python_program(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our own modules."""
    return [sys.executable, "-I", "-m", module, *arguments]


def forget_processes(folder: StateFolder) -> None:
    """Remove an earlier lab's process records; its objects stay, as after a reboot."""
    for leftover in (folder.holders, folder.services, folder.networks, folder.pods):
        shutil.rmtree(leftover, ignore_errors=True)
    folder.scratch.mkdir(parents=True, exist_ok=True)


def live(folder: StateFolder, started: BinaryIO) -> int:
    """The life of process 1; writes to *started* once the lab is its own."""
    make_mounts_private()
    mount("proc", "/proc", "proc")
    lock = take_lock(folder.lock)
    if lock is None:
        say("another lab of this name is running")
        return 1
    started.write(STARTED)
    started.close()
    forget_processes(folder)
    say("making nodes and network")
    try:
        settings = read_record(folder.settings, LabSettings)
        topology = topology_of(settings.ip_family)
        holders = build_hosts(topology, settings, folder)
    except LabError as error:
        say(f"failed: {error}")
        return 1
    supervisor = Supervisor(folder, {holder.pid for holder in holders.values()})
    echo = python_program("outgate.lab.echo", *map(str, topology.versions))
    namespace = f"--net=/proc/{holders[topology.server.name].pid}/ns/net"
    supervisor.add("echo", ["nsenter", namespace, "--", *echo])
    supervisor.add(
        "control-plane",
        python_program("outgate.lab.controlplane", str(folder.root)),
    )
    say("starting the API, the kubelets and the echo server")
    supervisor.run()
    say("stopped")
    return 0


def main() -> int:
    """Become process 1 of a new lab; the caller's process ends once that runs."""
    folder = StateFolder(Path(sys.argv[1]))
    unshare(Namespace.PID | Namespace.MOUNT)
    reader, writer = os.pipe()
    if os.fork() > 0:
        os.close(writer)
        return 0 if os.read(reader, len(STARTED)) == STARTED else 1
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as started:
        return live(folder, started)


if __name__ == "__main__":
    sys.exit(main())
