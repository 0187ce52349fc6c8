"""
The fuzzer: millions of frames through every hook, each compared with the model.

``make fuzz`` runs ``python tests/bpf/fuzz/run.py --packets N --seed S``, one process
for each CPU; tests run a slice.  A process works in rounds: a round starts with empty
tables, ends with comparing all tables, and has a seed of its own, so that a difference
is repeated by ``--round`` alone.  Time only passes where the fuzzer says so.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from bpf.fuzz.traffic import Traffic  # noqa: E402
from bpf.harness import Node, Setup  # noqa: E402
from bpf.model.check import Checker, DifferenceError  # noqa: E402
from bpf.model.datapath import Datapath  # noqa: E402
from bpf.model.rules import Rules  # noqa: E402
from bpf.model.runner import Runner  # noqa: E402
from bpf.model.table import Table  # noqa: E402
from bpf.world import gateway_entries  # noqa: E402

ROUND = 20_000
PORTS = (1024, 65535)
SLOW = 250_000
"""Jiffies in a second of the datapath: a real second is nothing to it."""

AGES = (7, 14, 63, 301, 7441)
"""Seconds; no sum of them is a lifetime, so that it is never a matter of luck."""


def play(checker: Checker, seed: str, packets: int) -> None:
    """Play one round; DifferenceError where kernel and model differ."""
    chance = Random(seed)
    traffic = Traffic(chance, spoiled=chance.choice((0.3, 0.6, 0.9)))
    checker.reset()
    for number in range(packets):
        arrival = traffic.next()
        try:
            verdict, frame = checker.step(arrival)
        except (DifferenceError, OSError) as error:
            raise DifferenceError(f"packet {number}: {error}") from error
        traffic.learn(arrival, verdict, frame)
        if number % 2000 == 1999:
            checker.compare_tables()
            seconds = chance.choice(AGES)
            checker.runner.age(seconds)
            checker.datapath.table.now += seconds
    checker.compare_tables()


def work(seed: int, rounds: Sequence[int], packets: int) -> Counter[str]:
    """Play *rounds* in a node of their own; return how many had which verdict."""
    rules = Rules(gateway_entries())
    with Node(Setup(ports=PORTS, jiffies_per_second=SLOW)) as node:
        node.put(rules.entries)
        with Runner(node, SLOW) as runner:
            checker = Checker(runner, Datapath(rules, Table(PORTS), runner.port_of))

            def all_rounds() -> Counter[str]:
                for number in rounds:
                    try:
                        play(checker, f"{seed}/{number}", packets)
                    except DifferenceError as error:
                        again = f"--seed {seed} --round {number}"
                        raise DifferenceError(f"{again}: {error}") from error
                return checker.verdicts

            return node.inside(all_rounds)


def main() -> int:
    """Parse the command line, share the rounds among CPUs, and print what was seen."""
    parser = argparse.ArgumentParser(description="fuzz the datapath against its model")
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--round", type=int, help="play this round only")
    options = parser.parse_args()
    rounds: Sequence[int] = range(-(-options.packets // ROUND))
    if options.round is not None:
        rounds = [options.round]
    workers = min(len(rounds), os.cpu_count() or 1)
    start = time.monotonic()
    with ProcessPoolExecutor(workers) as pool:
        shares = [rounds[i::workers] for i in range(workers)]
        jobs = [pool.submit(work, options.seed, share, ROUND) for share in shares]
        try:
            verdicts = sum((job.result() for job in jobs), Counter[str]())
        except DifferenceError as error:
            print(f"fuzz: {error}", file=sys.stderr)
            return 1
    seconds = time.monotonic() - start
    total = sum(verdicts.values())
    print(
        f"fuzz: {total} packets, seed {options.seed}, "
        f"{dict(sorted(verdicts.items()))}, "
        f"{total / seconds:.0f} a second, no difference"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
