"""
Waiting for processes that are not our children.

What this is: asyncio around pidfds, by which the control plane notices the end of
what an earlier control plane started.
What this is not: reaping; the lab's init does that.
"""

import asyncio
import os
import subprocess
from collections.abc import Sequence

from outgate.lab.errors import LabError
from outgate.lab.process import ProcessId, is_alive


async def wait_ended(process: ProcessId) -> None:
    """Return when *process* has ended."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        if not is_alive(process):
            return
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def has_ended(process: ProcessId, seconds: float) -> bool:
    """Whether *process* ended within *seconds*."""
    try:
        async with asyncio.timeout(seconds):
            await wait_ended(process)
    except TimeoutError:
        return False
    return True


async def run_program(command: Sequence[str]) -> tuple[bytes, bytes]:
    """
    Run one of our short programs; returns its output and its errors.

    Errors: LabError with the last line of its errors when it fails.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise LabError(f"{command[-2]} failed: {last}")
    return output, errors
