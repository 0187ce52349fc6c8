"""
Bring a lab up and take it down: what ``outgate lab up|down`` call.

What this is: the view from outside.  The lab's first process is found by the owner
of its lock; everything else is asked of the lab's own API.
What this is not: the making; ``init`` does that inside.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from outgate.lab import kubeconfig
from outgate.lab.cni import PLUGINS
from outgate.lab.errors import LabError
from outgate.lab.overview import Overview, look
from outgate.lab.process import (
    ProcessId,
    lock_owner,
    read_process,
    send_signal,
    take_lock,
)
from outgate.lab.records import find_record, read_record, write_record
from outgate.lab.settings import LOOPBACK, ApiAddress, LabSettings, StateFolder
from outgate.lab.waiting import has_ended

READY_SECONDS = 60.0
POLL_SECONDS = 0.1
STOP_SECONDS = 1.0
TOOLS = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "openssl": "openssl",
}

API_MODULES = ("jsonpatch", "jsonschema_rs")

Say = Callable[[str], None]


def check_machine(settings: LabSettings) -> None:
    """Errors: LabError that names what is missing and the package that has it."""
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces and loads programs: run it as root")
    tools = TOOLS | ({"ethtool": "ethtool"} if settings.has_xdp else {})
    missing = [package for tool, package in tools.items() if not shutil.which(tool)]
    if not (PLUGINS / "ptp").exists():
        missing.append("containernetworking-plugins")
    if missing:
        raise LabError(f"tools are missing: apt-get install {' '.join(missing)}")
    for module in API_MODULES:
        if find_spec(module) is None:
            raise LabError(f"{module} is missing: pip install 'outgate[lab]'")


async def up(settings: LabSettings, config: Path, say: Say) -> None:
    """Start the lab unless it runs, wait until it is whole, make it current."""
    check_machine(settings)
    folder = StateFolder.of(settings.name)
    owner = lock_owner(folder.lock)
    if owner is None:
        _check_former(settings, folder)
        _start(settings, folder, say)
    else:
        _check_same(settings, folder)
        say(f"the lab {settings.name} runs already (process {owner})")
    await _until(folder, _api_answers, say)
    await _until(folder, _nodes_are_ready, say)
    api = read_record(folder.api_address, ApiAddress)
    name = kubeconfig.context_name(settings.name)
    write_record(folder.kubeconfigs, sorted(map(str, _named_in(folder, config))))
    word = "now" if kubeconfig.install(config, api, settings.name) else "already"
    say(f"kubeconfig {config}: context {name} is {word} current")
    await _until(folder, _agents_run, say)


def _check_port(folder: StateFolder, wanted: int) -> None:
    """
    Make sure that the API's port is free before anything starts.

    A port that the lab chose itself and that is taken now is given up.
    Errors: LabError when it is the one that the user asked for.
    """
    kept = find_record(folder.api_address, ApiAddress)
    port = wanted or (kept.port if kept else 0)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if wanted:
                raise LabError(f"--port: {wanted}: {error.strerror}") from error
            if kept is not None:
                write_record(folder.api_address, replace(kept, port=0))


def _named_in(folder: StateFolder, config: Path) -> set[Path]:
    """The kubeconfig files that may name the lab: *config*, and those of before."""
    known = find_record(folder.kubeconfigs, list[str]) or []
    return {config.absolute(), *map(Path, known)}


def _check_same(settings: LabSettings, folder: StateFolder) -> None:
    """Errors: LabError when the lab runs with settings other than those asked."""
    running = read_record(folder.settings, LabSettings)
    asked: dict[str, object] = {
        "ip-family": settings.ip_family,
        "network": settings.network,
        "gateway-path": settings.gateway_path,
        "gateway-hook": settings.gateway_hook,
    }
    has: dict[str, object] = {
        "ip-family": running.ip_family,
        "network": running.network,
        "gateway-path": running.gateway_path,
        "gateway-hook": running.gateway_hook,
    }
    if settings.port:
        asked["port"] = settings.port
        has["port"] = read_record(folder.api_address, ApiAddress).port
    for flag, value in asked.items():
        if value != has[flag]:
            raise LabError(
                f"--{flag}: the lab runs with {has[flag]}, not {value}; take it down "
                f"first: outgate lab down --name {settings.name}"
            )


def _check_former(settings: LabSettings, folder: StateFolder) -> None:
    """
    Make sure that what a lab left that ended by itself can live on.

    Errors: LabError when its objects have addresses of another family.
    """
    former = find_record(folder.settings, LabSettings)
    if former is not None and former.ip_family is not settings.ip_family:
        raise LabError(
            f"--ip-family: the lab that ended had {former.ip_family}, and its objects "
            f"are kept; remove them first: outgate lab down --name {settings.name}"
        )


def _start(settings: LabSettings, folder: StateFolder, say: Say) -> None:
    """Start the first process, detached from this one."""
    say(f"starting the lab {settings.name}, log {folder.log}")
    _check_port(folder, settings.port)
    write_record(folder.settings, settings)
    folder.agent_settings.write_text(f"gateway-hook: {settings.gateway_hook}\n")
    with folder.log.open("ab") as log:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "outgate.lab.init", str(folder.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            check=False,
        )
    if done.returncode != 0:
        raise LabError(f"the lab did not start: {last_line(folder.log)}")


def last_line(log: Path) -> str:
    """The end of the lab's log, for a message."""
    with suppress(OSError):
        return log.read_text(errors="replace").strip().rpartition("\n")[2]
    return "there is no log"


async def _until(
    folder: StateFolder, judge: Callable[[Overview], str | None], say: Say
) -> None:
    """
    Look at the lab until *judge* returns its line of success, and say that.

    Errors: LabError when the lab ends meanwhile, or it takes too long.
    """
    deadline = time.monotonic() + READY_SECONDS
    while True:
        overview = await look(folder)
        line = judge(overview)
        if line is not None:
            say(line)
            return
        if overview.owner is None:
            raise LabError(f"the lab ended: {last_line(folder.log)}")
        if time.monotonic() > deadline:
            raise LabError(overview.complaint(folder.log))
        await asyncio.sleep(POLL_SECONDS)


def _api_answers(overview: Overview) -> str | None:
    return f"API: {overview.server}" if overview.answers else None


def _nodes_are_ready(overview: Overview) -> str | None:
    if overview.nodes_not_ready:
        return None
    names = ", ".join(f"{node.name} {node.address}" for node in overview.nodes)
    return f"nodes: {names}"


def _agents_run(overview: Overview) -> str | None:
    if overview.nodes_without_agent:
        return None
    return f"agents: {', '.join(agent.name for agent in overview.agents)}"


async def down(name: str, config: Path, say: Say) -> None:
    """
    Take the lab away with every trace of it; also half of one, also none.

    Ending the first process makes the kernel end all others, and with them the
    namespaces, links, mounts and pins.  Files are removed under the lab's lock.
    """
    if os.geteuid() != 0:
        raise LabError("the lab belongs to root: run this as root")
    folder = StateFolder.of(name)
    configs = _named_in(folder, config)
    owner = lock_owner(folder.lock)
    first = None if owner is None else read_process(owner)
    if first is not None:
        say(f"ending the lab {name} (process {first.pid}) and everything in it")
        await _end(first)
    was_left = folder.root.exists()
    _remove_files(folder)
    for path in sorted(configs):
        if kubeconfig.uninstall(path, name):
            say(f"kubeconfig {path}: context {kubeconfig.context_name(name)} removed")
    if first is None and not was_left:
        say(f"no lab {name} was running")
    elif first is None:
        say(f"the lab {name} had ended before; what it left is removed")
    else:
        say(f"the lab {name} is gone")


async def _end(first: ProcessId) -> None:
    """SIGTERM for a clean stop; SIGKILL when that takes too long."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        send_signal(first, number)
        if await has_ended(first, STOP_SECONDS):
            return
    raise LabError(f"process {first.pid} of the lab does not end; see its /proc entry")


def _remove_files(folder: StateFolder) -> None:
    if take_lock(folder.lock) is None:
        raise LabError("somebody starts a lab of this name right now; try again")
    if folder.root.exists():
        shutil.rmtree(folder.root)
    folder.lock.unlink()
    for parent in (folder.root.parent, folder.root.parent.parent):
        with suppress(OSError):
            parent.rmdir()
