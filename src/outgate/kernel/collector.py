"""
The collector: a program that the kernel runs by a timer, once it was started.

It drops the entries of flows that are over, with or without an agent: the timer lives
in a pinned map, and keeps its program.  An agent that comes starts it anew, which
replaces the program.  Kernels before 5.15 have no such timers; there an entry that is
over stays until its tuple, or its room, is wanted.

What the program does is in ``bpf/collect.bpf.c``; it is attached nowhere.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from outgate.errors import KernelError
from outgate.kernel.maps import MapName
from outgate.kernel.objects import (
    Program,
    UnfitMapError,
    load_program,
    program_name,
)
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.records import CollectorRecord
from outgate.kernel.settings import DatapathSettings
from outgate.kernel.testrun import run_program
from outgate.state.entries import Family

COLLECT = "collect"

COLLECTORS = {Family.V4: MapName.COLLECTOR_V4, Family.V6: MapName.COLLECTOR_V6}
"""Where the timers lie; missing where the kernel refused the programs."""

_FIRST = bytes(4)
_FRAME = bytes(14)
"""The shortest that BPF_PROG_TEST_RUN takes; the program does not look at it."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Whether garbage is collected (*error* says why not), and what was done."""

    error: str = ""
    records: Mapping[Family, CollectorRecord] = field(default_factory=dict)


def load_collectors(pin_dir: Path, settings: DatapathSettings) -> tuple[Program, ...]:
    """Load the program of each family, all or none; KernelError where refused."""
    programs: list[Program] = []
    raw, sizes = settings.encode(), settings.sizes
    try:
        for family in Family:
            programs.append(load_program(COLLECT, family, pin_dir, raw, sizes))
    except KernelError:
        close_collectors(programs)
        raise
    return tuple(programs)


def close_collectors(programs: list[Program] | tuple[Program, ...]) -> None:
    """Close the descriptors; a program whose timer runs lives on."""
    for program in programs:
        os.close(program.fd)


def start_collectors(pin_dir: Path, settings: DatapathSettings) -> str:
    """
    Start the timers, or replace what they run; return why they could not be, or "".

    Who has no collector has a datapath that works, so its refusal is no exception.
    """
    try:
        programs = _load_over_former(pin_dir, settings)
    except KernelError as error:
        return str(error)
    try:
        for program in programs:
            _start(program)
    except KernelError as error:
        return str(error)
    finally:
        close_collectors(programs)
    return ""


def _load_over_former(pin_dir: Path, settings: DatapathSettings) -> tuple[Program, ...]:
    """Load the programs; a timer of another version's layout ends with its pin."""
    former = {pin_dir / name for name in COLLECTORS.values()}
    while True:
        try:
            return load_collectors(pin_dir, settings)
        except UnfitMapError as error:
            if error.path not in former:
                raise
            former.discard(error.path)
            error.path.unlink()


def _start(program: Program) -> None:
    operation = f"start {program_name(COLLECT, program.family)}"
    try:
        result = run_program(program.fd, _FRAME).verdict
    except OSError as error:
        raise KernelError(operation, error.errno or 0) from error
    if result:
        raise KernelError(operation, -result, "no timer")


def stop_collectors(pin_dir: Path) -> None:
    """End the timers, as the kernel does with what is overwritten; counters too."""
    for name in COLLECTORS.values():
        with PinnedMap(pin_dir / name) as table:
            table.put(_FIRST, bytes(table.shape.value_size))


def read_collectors(pin_dir: Path) -> dict[Family, CollectorRecord]:
    """Return what each family's collector has done; none where there is none."""
    records = {}
    for family, name in COLLECTORS.items():
        if (pin_dir / name).exists():
            with PinnedMap(pin_dir / name) as table:
                records[family] = CollectorRecord.decode(table.get(_FIRST))
    return records
