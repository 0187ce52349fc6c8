"""
Cases of the datapath: single hooks, whole paths, and what programs see of them.

Runs as a process of its own, in network and mount namespaces of its own: every wire and
every pin ends with it.  Not in its own PID namespace: the CPU's softirq thread must be
seen.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from bench import ROOT, applications, endtoend, hooks, targets
from bench.results import Result

STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")
QUICK = "quick"


def run(is_quick: bool) -> list[Result]:
    """Measure all cases of this module."""
    command = ("unshare", "--net", "--mount", sys.executable, "-m", "bench.datapath")
    words = (QUICK,) if is_quick else ()
    done = subprocess.run(
        (*command, *words), cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return [Result(**row) for row in json.loads(done.stdout)]


def measure(is_quick: bool) -> list[Result]:
    """Measure all cases, in the caller's namespaces."""
    return [
        *note_statistics(),
        *hooks.run(hooks.QUICK if is_quick else hooks.Sizes()),
        *endtoend.run(endtoend.QUICK if is_quick else endtoend.Sizes()),
        *applications.run(applications.QUICK if is_quick else applications.Sizes()),
    ]


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
    results = measure(QUICK in sys.argv)
    print(json.dumps([asdict(result) for result in results]))
