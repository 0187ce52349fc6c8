"""
``kubectl exec``: a command inside a pod's namespaces.

What this is: the session behind the API's exec, with pipes or with a terminal.
What this is not: the protocol; ``kubeapi`` speaks it.

A command that the client leaves behind is killed with its process group; what runs
on a terminal also gets the terminal's hangup.
"""

import asyncio
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from outgate.kubeapi.backend import BackendError, ExecRequest
from outgate.lab.errors import LabError
from outgate.lab.process import ProcessId
from outgate.lab.records import find_record
from outgate.lab.runs import PodFolder, RunSpec
from outgate.lab.runtime import Runtime
from outgate.lab.workload import DEFAULT_PATH

STDOUT, STDERR = 1, 2
ON_TERMINAL = ("/usr/bin/setsid", "--ctty", "--wait")
CHUNK_BYTES = 1 << 16
TERMINAL_TYPE = "xterm"


def choose_container(folder: PodFolder, wanted: str | None) -> str:
    """The container asked for, or the only or first one."""
    names = folder.containers()
    if wanted is not None and wanted not in names:
        raise BackendError(f"container {wanted} is not running", 400)
    if not names:
        raise BackendError("the pod's containers were not started yet", 400)
    return wanted or names[0]


def enter_command(
    holder: ProcessId, folder: str, command: tuple[str, ...]
) -> list[str]:
    """The command that runs *command* in the namespaces that *holder* holds."""
    kinds = ("--mount", "--uts", "--ipc", "--net", "--pid")
    where = ["--target", str(holder.pid), *kinds, f"--wdns={folder}"]
    return ["nsenter", *where, "--", *command]


class PipeSession:
    """A command with its three standard streams on pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def write_stdin(self, data: bytes) -> None:
        if self._process.stdin is not None:
            with suppress(ConnectionError):
                self._process.stdin.write(data)
                await self._process.stdin.drain()

    async def close_stdin(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def resize(self, width: int, height: int) -> None:
        """Pipes have no size."""

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(16)
        readers = ((STDOUT, self._process.stdout), (STDERR, self._process.stderr))
        tasks = [
            asyncio.create_task(_copy(channel, reader, queue))
            for channel, reader in readers
            if reader is not None
        ]
        try:
            open_streams = len(tasks)
            while open_streams:
                channel, data = await queue.get()
                if data:
                    yield channel, data
                else:
                    open_streams -= 1
        finally:
            for task in tasks:
                task.cancel()

    async def wait(self) -> int:
        return _exit_code(await self._process.wait())

    async def kill(self) -> None:
        _kill_group(self._process.pid)


async def _copy(
    channel: int, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[int, bytes]]
) -> None:
    """Queue what *reader* gives; the last item is empty."""
    while data := await reader.read(CHUNK_BYTES):
        await queue.put((channel, data))
    await queue.put((channel, b""))


class TerminalSession:
    """A command on a terminal of its own."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int) -> None:
        self._process = process
        self._terminal = terminal
        os.set_blocking(terminal, False)
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        asyncio.get_running_loop().add_reader(terminal, self._readable.set)

    async def write_stdin(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        while data and self._terminal >= 0:
            try:
                data = data[os.write(self._terminal, data) :]
            except BlockingIOError:
                self._writable.clear()
                loop.add_writer(self._terminal, self._writable.set)
                await self._writable.wait()
                loop.remove_writer(self._terminal)
            except OSError:
                return

    async def close_stdin(self) -> None:
        """Tell the terminal that nothing more will be typed."""
        await self.write_stdin(b"\x04")

    async def resize(self, width: int, height: int) -> None:
        if self._terminal >= 0:
            size = struct.pack("HHHH", height, width, 0, 0)
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        try:
            while data := await self._read():
                yield STDOUT, data
        finally:
            self._close()

    async def _read(self) -> bytes:
        """What the command printed; empty when it closed the terminal."""
        while True:
            self._readable.clear()
            try:
                return os.read(self._terminal, CHUNK_BYTES)
            except BlockingIOError:
                await self._readable.wait()
            except OSError:
                return b""

    def _close(self) -> None:
        if self._terminal >= 0:
            asyncio.get_running_loop().remove_reader(self._terminal)
            asyncio.get_running_loop().remove_writer(self._terminal)
            os.close(self._terminal)
            self._terminal = -1
            self._writable.set()

    async def wait(self) -> int:
        return _exit_code(await self._process.wait())

    async def kill(self) -> None:
        self._close()
        for pid in (*_children(self._process.pid), self._process.pid):
            _kill_group(pid)


def _exit_code(code: int) -> int:
    return code if code >= 0 else 128 - code


def _children(pid: int) -> list[int]:
    """The children of *pid*: the command that nsenter started and waits for."""
    try:
        return [
            int(word)
            for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


async def start_session(
    runtime: Runtime, request: ExecRequest
) -> PipeSession | TerminalSession:
    """Errors: BackendError when the pod or the container does not run."""
    try:
        folder, holder = runtime.find_holder(request.namespace, request.pod)
    except LabError as error:
        raise BackendError(str(error), 400) from error
    name = choose_container(folder, request.container)
    spec = find_record(folder.run(name, folder.attempts(name)[-1]).spec, RunSpec)
    environment = dict(spec.environment) if spec else {"PATH": DEFAULT_PATH}
    working_folder = spec.working_folder if spec else "/"
    if request.tty:
        inner = (*ON_TERMINAL, *request.command)
        command = enter_command(holder, working_folder, inner)
        return await _start_on_terminal(command, environment)
    command = enter_command(holder, working_folder, request.command)
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.PIPE if request.stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    return PipeSession(process)


async def _start_on_terminal(
    command: list[str], environment: dict[str, str]
) -> TerminalSession:
    """
    Start *command* on a new terminal.

    setsid(1) is part of *command*: a session must begin inside the pod's PID
    namespace, or a shell there sees no process group of its terminal to give back.
    """
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={"TERM": TERMINAL_TYPE, **environment},
            start_new_session=True,
        )
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return TerminalSession(process, ours)
