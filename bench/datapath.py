"""
Cases of the datapath: single hooks, whole paths, what programs see of them, its tables.

Runs as a process of its own, in network and mount namespaces of its own: every wire and
every pin ends with it, and it ends with its caller.  Not in its own PID namespace: the
CPU's softirq thread must be seen.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from bench import (
    ROOT,
    applications,
    collector,
    endtoend,
    hooks,
    isolation,
    programming,
    targets,
)
from bench.results import COLLECTOR, HOOKS, PATHS, PROGRAM, TCP, Result

STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")
QUICK = "quick"


def run(parts: Sequence[str], is_quick: bool) -> list[Result]:
    """Measure *parts*, keys of ``PARTS``."""
    command = ("unshare", "--net", "--mount", sys.executable, "-m", "bench.datapath")
    words = (QUICK, *parts) if is_quick else parts
    done = subprocess.run(
        (*isolation.WITH_CALLER, *command, *words),
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return [Result(**row) for row in json.loads(done.stdout)]


def _hooks(is_quick: bool) -> list[Result]:
    measured = hooks.run(hooks.QUICK if is_quick else hooks.Sizes())
    return [*note_statistics(), *measured]


def _paths(is_quick: bool) -> list[Result]:
    return endtoend.run(endtoend.QUICK if is_quick else endtoend.Sizes())


def _tcp(is_quick: bool) -> list[Result]:
    return applications.run(applications.QUICK if is_quick else applications.Sizes())


def _collector(is_quick: bool) -> list[Result]:
    return collector.run(collector.QUICK if is_quick else collector.Sizes())


def _program(is_quick: bool) -> list[Result]:
    return programming.run(programming.QUICK if is_quick else programming.Sizes())


PARTS: dict[str, Callable[[bool], list[Result]]] = {
    HOOKS: _hooks,
    PATHS: _paths,
    TCP: _tcp,
    COLLECTOR: _collector,
    PROGRAM: _program,
}


def measure(parts: Sequence[str], is_quick: bool) -> Iterator[Result]:
    """Measure *parts*, in the caller's namespaces."""
    for part in parts:
        print(f"bench: {part}", file=sys.stderr)
        yield from PARTS[part](is_quick)


def note_statistics() -> list[Result]:
    """
    Say so where the kernel takes the time of each program itself, about 40 ns a run.

    Hooks net of the empty program are right all the same; the empty one and paths of
    programs are not.  It is the machine's setting, and somebody else's to change.
    """
    if STATISTICS.read_text().strip() == "0":
        return []
    print(
        f"bench: {STATISTICS} is not 0: the kernel's own clock is in these figures;"
        " run sysctl kernel.bpf_stats_enabled=0 for better ones",
        file=sys.stderr,
    )
    return [Result(targets.STATISTICS, 1, "on")]


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != QUICK]
    results = measure(words, QUICK in sys.argv)
    print(json.dumps([asdict(result) for result in results]))
