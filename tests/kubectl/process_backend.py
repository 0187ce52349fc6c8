"""
A backend for tests: "containers" are plain processes of this machine.

What it is: enough of ``PodBackend`` to see exec and logs through a real kubectl.
What it is not: isolation of any sort; commands come from the tests only.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import suppress

from outgate.kubeapi.backend import BackendError, ExecRequest, ExecSession, LogRequest

_CHUNK = 65536


class PipeSession:
    """A process with three pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def write_stdin(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(ConnectionError):
            self._process.stdin.write(data)
            await self._process.stdin.drain()

    async def close_stdin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def resize(self, width: int, height: int) -> None:
        raise AssertionError("a pipe has no size")

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        streams = (self._process.stdout, self._process.stderr)

        async def copy(channel: int, stream: asyncio.StreamReader | None) -> None:
            assert stream is not None
            while chunk := await stream.read(_CHUNK):
                queue.put_nowait((channel, chunk))
            queue.put_nowait((channel, b""))

        tasks = [asyncio.create_task(copy(n, s)) for n, s in enumerate(streams, 1)]
        open_streams = len(tasks)
        while open_streams:
            channel, chunk = await queue.get()
            if chunk:
                yield channel, chunk
            else:
                open_streams -= 1

    async def wait(self) -> int:
        return await self._process.wait()

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()


class TerminalSession:
    """A process on a pseudo-terminal."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int) -> None:
        self._process = process
        self._terminal = terminal

    async def write_stdin(self, data: bytes) -> None:
        await asyncio.to_thread(os.write, self._terminal, data)

    async def close_stdin(self) -> None:
        await self.write_stdin(b"\x04")

    async def resize(self, width: int, height: int) -> None:
        size = struct.pack("HHHH", height, width, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        # Reading a terminal whose last process has ended is EIO.
        with suppress(OSError):
            while chunk := await asyncio.to_thread(os.read, self._terminal, _CHUNK):
                yield 1, chunk

    async def wait(self) -> int:
        return await self._process.wait()

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()


class ProcessBackend:
    """Runs every command here; a log is ten fixed lines, followed by two more."""

    async def exec(self, request: ExecRequest) -> ExecSession:
        pipe = asyncio.subprocess.PIPE
        if request.command[0] == "no-such-program":
            raise BackendError("no-such-program: not found in $PATH")
        if not request.tty:
            stdin = pipe if request.stdin else asyncio.subprocess.DEVNULL
            return PipeSession(
                await asyncio.create_subprocess_exec(
                    *request.command, stdin=stdin, stdout=pipe, stderr=pipe
                )
            )
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *request.command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        return TerminalSession(process, ours)

    async def logs(self, request: LogRequest) -> AsyncIterator[bytes]:
        lines = [f"{request.container} line {n}\n".encode() for n in range(1, 11)]
        for line in lines[-(request.tail_lines or len(lines)) :]:
            yield line
        if request.follow:
            for n in (11, 12):
                await asyncio.sleep(0.05)
                yield f"{request.container} line {n}\n".encode()
