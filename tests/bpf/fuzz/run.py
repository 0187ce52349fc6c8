"""
The fuzzer: millions of frames through every hook, each compared with the model.

``make fuzz`` runs ``python tests/bpf/fuzz/run.py --packets N --seed S``, one process
for each CPU; tests run a slice (:mod:`bpf.fuzz.rounds`).  Progress goes to a file, a
line a round, and so does the summary: how many frames ended how, by hook and family.
Where rows differ, ``--round N --every 1`` finds the frame that made them so.
"""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import Event as new_event
from multiprocessing.synchronize import Event
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from bpf.fuzz.rounds import BETWEEN, Job, work  # noqa: E402
from bpf.model.check import DifferenceError, Ends  # noqa: E402
from outgate.errors import KernelError  # noqa: E402
from outgate.state.entries import Hook  # noqa: E402

ROUND = 20_000
VERDICTS = ("pass", "drop", "answer", "redirect")


_stop: list[Event] = []
"""In a worker: set when another one found a difference."""


def share(job: Job, worker: int, progress: Path) -> Ends:
    """Play one process's share, and note each round in *progress*."""

    def report(line: str) -> None:
        note(progress, f"worker {worker}: {line}")
        if _stop and _stop[0].is_set():
            raise DifferenceError("stopped, because another worker found one")

    try:
        return work(job, report)
    except KernelError as error:
        # As text: it does not survive the way to another process.
        raise DifferenceError(str(error)) from None


def note(progress: Path, line: str) -> None:
    """Append a line, at once: several processes write."""
    with progress.open("a") as file:
        file.write(time.strftime("%H:%M:%S ", time.gmtime()) + line + "\n")


def summary(ends: Ends) -> str:
    """Return a table: a line for each hook and family, a column for each verdict."""
    heads = "".join(f"{verdict:>11}" for verdict in VERDICTS)
    lines = [f"{'hook':16}{'family':8}{heads}"]
    for hook, family in sorted({(hook, family) for hook, family, _ in ends}):
        counts = "".join(f"{ends[hook, family, v]:>11}" for v in VERDICTS)
        lines.append(f"{hook:16}{family:8}{counts}")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="fuzz the datapath against its model")
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--round", type=int, help="play this round only")
    parser.add_argument("--every", type=int, default=BETWEEN, help="compare tables")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--progress", type=Path, default=ROOT / "build" / "fuzz.log")
    return parser.parse_args()


def main() -> int:
    """Share the rounds among CPUs, and tell what was seen."""
    options = _options()
    progress: Path = options.progress
    progress.parent.mkdir(parents=True, exist_ok=True)
    rounds = range(-(-options.packets // ROUND))
    if options.round is not None:
        rounds = range(options.round, options.round + 1)
    workers = min(len(rounds), options.workers)
    shares = [
        Job(options.seed, rounds[i::workers], ROUND, options.every)
        for i in range(workers)
    ]
    note(progress, f"{len(rounds) * ROUND} frames, seed {options.seed}")
    ends, stop = Counter[tuple[Hook, str, str]](), new_event()
    start = time.monotonic()
    with ProcessPoolExecutor(
        workers, initializer=_stop.append, initargs=(stop,)
    ) as pool:
        jobs = [pool.submit(share, job, i, progress) for i, job in enumerate(shares)]
        try:
            for job in as_completed(jobs):
                ends += job.result()
        except DifferenceError as error:
            stop.set()
            note(progress, f"difference: {error}")
            print(f"fuzz: {error}", file=sys.stderr)
            return 1
    seconds = time.monotonic() - start
    told = (
        f"fuzz: {ends.total()} frames, seed {options.seed}, no difference, "
        f"{seconds:.0f} seconds, {ends.total() / seconds:.0f} a second\n{summary(ends)}"
    )
    note(progress, told)
    print(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
