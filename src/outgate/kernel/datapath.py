"""
All programs as a set: load them, pin them for inspection, unpin them.

Each hook has a program for each IP family; they are loaded, and left out, together.

An agent loads them and attaches by links (``kernel.linux``).  ``pin_programs`` is for
``outgate datapath load``: programs and maps without any attachment, for bpftool and
for BPF_PROG_TEST_RUN.
"""

import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from outgate.errors import KernelError
from outgate.kernel import syscall
from outgate.kernel.clsact import observe_filters
from outgate.kernel.collector import COLLECT, close_collectors, load_collectors
from outgate.kernel.links import FOLDER as LINK_FOLDER
from outgate.kernel.maps import MapName
from outgate.kernel.objects import (
    Pair,
    Program,
    UnfitMapError,
    load_program,
    program_name,
)
from outgate.kernel.settings import DatapathSettings
from outgate.state.entries import Family, Hook

PROGRAM_FOLDER = "programs"
CLOCK_MONOTONIC_COARSE = 6

OPTIONAL = frozenset({Hook.FORWARD_GUARD, Hook.XDP_NETDEV})
"""Hooks that a kernel may refuse while the others do their work."""


def jiffies_per_second() -> int:
    """Return the kernel's HZ: its coarse clock moves once a jiffy."""
    return round(1 / time.clock_getres(CLOCK_MONOTONIC_COARSE))


def prepare_pin_dir(pin_dir: Path) -> None:
    """Create *pin_dir*; KernelError unless it lies on a bpf file system."""
    try:
        existing = next(p for p in (pin_dir, *pin_dir.parents) if p.is_dir())
    except OSError as error:
        raise KernelError(f"look up {pin_dir}", error.errno or 0) from error
    if not syscall.is_on_bpf_fs(existing):
        mend = "mount -t bpf bpf /sys/fs/bpf, or choose another pin directory"
        raise KernelError(
            f"use pin directory {pin_dir}",
            0,
            f"{existing} is not on a bpf file system; {mend}",
        )
    try:
        pin_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KernelError(f"create {pin_dir}", error.errno or 0) from error


def load_programs(
    pin_dir: Path, settings: DatapathSettings, hooks: Collection[Hook] = tuple(Hook)
) -> dict[Hook, Pair]:
    """
    Load the programs of *hooks*; their maps are pinned below *pin_dir*, or taken from
    there.

    A hook of ``OPTIONAL`` that is refused is left out.
    """
    prepare_pin_dir(pin_dir)
    loaded: dict[Hook, Pair] = {}
    try:
        for hook in hooks:
            try:
                loaded[hook] = load_pair(hook, pin_dir, settings)
            except UnfitMapError:
                raise
            except KernelError:
                if hook not in OPTIONAL:
                    raise
    except KernelError:
        close_programs(loaded)
        raise
    return loaded


def load_pair(hook: Hook, pin_dir: Path, settings: DatapathSettings) -> Pair:
    """Load the programs of *hook*, all or none."""
    pair: dict[Family, Program] = {}
    try:
        for family in Family:
            pair[family] = load_program(
                hook, family, pin_dir, settings.encode(), settings.sizes
            )
    except KernelError:
        close_programs({hook: pair})
        raise
    return pair


def close_programs(programs: Mapping[Hook, Pair]) -> None:
    """Close the descriptors; programs that are attached or pinned live on."""
    for pair in programs.values():
        for program in pair.values():
            os.close(program.fd)


def pin_programs(pin_dir: Path, settings: DatapathSettings) -> tuple[Path, ...]:
    """
    Load all programs and pin each at ``<pin_dir>/programs/<hook>_v<family>``.

    Programs pinned there before are replaced; nothing is attached, and no collector
    is started.  Returns the pins, maps included.
    """
    programs = load_programs(pin_dir, settings)
    collectors = _load_optional_collectors(pin_dir, settings)
    folder = pin_dir / PROGRAM_FOLDER
    try:
        folder.mkdir(exist_ok=True)
        of_hooks = (one for pair in programs.values() for one in pair.values())
        for program in (*of_hooks, *collectors):
            path = folder / program_name(program.hook, program.family)
            path.unlink(missing_ok=True)
            (folder / program.hook).unlink(missing_ok=True)
            syscall.obj_pin(program.fd, path)
    except OSError as error:
        raise KernelError(f"pin programs in {folder}", error.errno or 0) from error
    finally:
        close_programs(programs)
        close_collectors(collectors)
    return _pins(pin_dir)


def _load_optional_collectors(
    pin_dir: Path, settings: DatapathSettings
) -> tuple[Program, ...]:
    try:
        return load_collectors(pin_dir, settings)
    except KernelError:
        return ()


def unpin_programs(pin_dir: Path) -> tuple[Path, ...]:
    """
    Remove what ``pin_programs`` made; return what was there.

    Errors: KernelError where an agent's links live in *pin_dir*, because their maps
    lie there too; and where its classifiers live on this node, whose maps may.
    """
    links = pin_dir / LINK_FOLDER
    try:
        if links.is_dir() and any(links.iterdir()):
            mend = "an agent's links are pinned there; nothing removed"
            raise KernelError(f"unload {pin_dir}", 0, mend)
        if filters := observe_filters():
            mend = f"an agent's classifiers are on {filters[0].key.interface}"
            raise KernelError(f"unload {pin_dir}", 0, f"{mend}; nothing removed")
        removed = _pins(pin_dir)
        for path in removed:
            path.unlink()
        for folder in (pin_dir / PROGRAM_FOLDER, pin_dir):
            if folder.is_dir() and not folder.is_mount() and not any(folder.iterdir()):
                folder.rmdir()
    except OSError as error:
        raise KernelError(f"unload {pin_dir}", error.errno or 0) from error
    return removed


def _pins(pin_dir: Path) -> tuple[Path, ...]:
    # A hook alone names the program of a former version, which knew one IP family.
    names = [
        name
        for program in (*Hook, COLLECT)
        for name in (program, *_program_names(program))
    ]
    programs = [pin_dir / PROGRAM_FOLDER / name for name in names]
    maps = [pin_dir / name for name in MapName]
    return tuple(path for path in (*programs, *maps) if path.exists())


def _program_names(hook: str) -> list[str]:
    return [program_name(hook, family) for family in Family]
