"""
Cases ``tcp/…``: what programs see of a path: throughput, connections, round trips.

Client in the pod, server outside, paths of ``endtoend`` in turns.  ``stream``:
GSO carries 64 KiB at once, and one stream is bound by its ends more than by any path.
``connections``: each is opened, asked one byte, and reset.  ``ask``: one byte there and
back on kept connections; with one connection, both ends on one CPU, so that no
wake-up of the other CPU is in it.
"""

import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median

from bench.compiled import executable
from bench.isolation import WITH_CALLER
from bench.network import SERVER, Namespace, Network
from bench.paths import PATHS
from bench.results import Result
from bench.stable import is_stable

PORTS = {False: 5001, True: 5002}
"""Of the server on the other CPU, and of the one beside the client."""


STALLED = 0.001
"""Gbit/s below which a path loses large packets: no figure at all."""

SHOWN = ("tc", "xdp", "nftables", "plain")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    seconds: float = 1.0
    rounds: int = 5
    most: int = 7
    """Rounds, until every median of a case stands still."""


QUICK = Sizes(0.2, 1, 1)


@dataclass(frozen=True, slots=True)
class Case:
    """A client's words; *on_one_cpu* puts both ends on CPU 0."""

    name: str
    kind: str
    number: int
    on_one_cpu: bool = False


CASES = (
    Case("stream_1", "stream", 1),
    Case("stream_4", "stream", 4),
    Case("connections", "connect", 64),
    Case("ask_1", "ask", 1, on_one_cpu=True),
    Case("ask_32", "ask", 32),
)


def _on(cpu: int) -> tuple[str, ...]:
    return ("taskset", "--cpu-list", str(cpu % (os.cpu_count() or 1)))


@contextmanager
def _servers(at: Namespace) -> Iterator[None]:
    with ExitStack() as stack:
        for on_one_cpu, port in PORTS.items():
            words = (*_on(0 if on_one_cpu else 1), str(executable("conversations")))
            command = (*WITH_CALLER, *words, "serve", str(port))
            process = at.inside(
                partial(subprocess.Popen, command, stdout=subprocess.PIPE)
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout
            process.stdout.readline()
        yield


def _converse(at: Namespace, case: Case, path: str, seconds: float) -> dict[str, float]:
    """Return the numbers of one run, by what the result is called and its unit."""
    words = (*_on(0), str(executable("conversations")), case.kind, SERVER)
    of_case = (str(PORTS[case.on_one_cpu]), str(case.number), str(seconds))
    done = at.inside(
        lambda: subprocess.run(
            (*words, *of_case), check=True, capture_output=True, text=True, timeout=60
        )
    )
    count, spent, middle, late = map(float, done.stdout.split())
    if case.kind == "stream":
        rate = count * 8 / spent / 1e9
        if rate < STALLED:
            where = f"tcp/{case.name}/{path}"
            raise AssertionError(f"{where}: {rate:.5f} Gbit/s: it stands still")
        return {"Gbit/s": rate}
    unit = "connections/s" if case.kind == "connect" else "answers/s"
    return {unit: count / spent, "p50 µs": middle / 1e3, "p99 µs": late / 1e3}


Found = dict[tuple[str, str, str], list[float]]
"""A figure for each round, by case, path and unit."""


def _rounds(nets: dict[str, Network], case: Case, sizes: Sizes) -> Found:
    """Repeat until all medians stand still, or for so many rounds."""
    found: Found = defaultdict(list)
    for number in range(sizes.most):
        for path, net in nets.items():
            numbers = _converse(net.pod, case, path, sizes.seconds)
            for unit, value in numbers.items():
                found[case.name, path, unit].append(value)
        if number + 1 >= sizes.rounds and all(map(is_stable, found.values())):
            break
    return found


def run(sizes: Sizes) -> list[Result]:
    """Measure all cases on all paths."""
    found: Found = {}
    with ExitStack() as stack:
        nets: dict[str, Network] = {}
        for path in SHOWN:
            nets[path] = stack.enter_context(PATHS[path]())
            stack.enter_context(_servers(nets[path].server))
        for case in CASES:
            found |= _rounds(nets, case, sizes)
    medians = {key: median(values) for key, values in found.items()}
    return [_result(key, value, medians) for key, value in medians.items()]


def _result(
    key: tuple[str, str, str], value: float, medians: dict[tuple[str, str, str], float]
) -> Result:
    name, path, unit = key
    percentile, _, of = unit.rpartition(" ")
    suffix = f"/{percentile}" if percentile else ""
    number = round(value, 2)
    if path == "nftables":
        return Result(f"tcp/{name}/{path}{suffix}", number, of, rows=1)
    base = medians[name, "nftables", unit]
    other = f"tcp/{name}/nftables{suffix}"
    ratio = round(value / base, 2)
    return Result(f"tcp/{name}/{path}{suffix}", number, of, 0, 1, other, ratio)
