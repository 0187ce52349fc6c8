"""
Cases ``node/…``, ``gateway/…`` and ``chain/…``: packets per second and core of paths.

All paths stand at the same time, and take turns in every round; ``courses`` says from
where to where packets go.  *new*: each packet of another flow.  Generator and sink are
in every figure.  A sink is where packets arrive: in XDP where they come as frames, in
tc where they come as an skb; ``gateway/nothing/xdp`` and ``gateway/nothing`` are a
generator and such a sink alone.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.courses import Course, at_gateway, courses
from bench.network import Network
from bench.paths import PATHS
from bench.results import Result
from bench.stable import is_stable
from bench.traffic import Traffic
from bpf.uplink import command

KEPT = 0.99
"""Share of the packets that must arrive: a path that drops is not fast."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    flows: tuple[int, ...] = (1, 20_000)
    packets: int = 100_000
    new: int = 8192
    """New flows in one round."""
    rounds: int = 5
    most: int = 9
    """Rounds, until every median stands still."""


QUICK = Sizes((1, 64), 2000, 64, 1, 1)


Spent = dict[tuple[str, int], list[float]]
"""Nanoseconds of a packet, a figure for each round, by case and flows."""

NEW = ("tc", "xdp", "nftables")
"""Paths on which flows are something that begins."""


def _figures(
    traffic: Traffic, nets: dict[str, Network], sizes: Sizes
) -> Iterator[Result]:
    runs = {
        name: course
        for path, net in nets.items()
        for name, course in courses(path, net).items()
    }
    spent: Spent = {}
    for flows in sizes.flows:
        _open(traffic, runs, flows)
        spent |= _rounds(sizes, partial(_known, traffic, nets, runs, flows, sizes))
    spent |= _rounds(sizes, partial(_new, traffic, nets, sizes))
    rates = {key: 1e6 / median(values) for key, values in spent.items()}
    for (name, flows), rate in rates.items():
        to = "/".join((name.split("/")[0], "nftables", *name.split("/")[2:]))
        base = rates.get((to, flows))
        ratio = round(rate / base, 2) if base and to != name else None
        unit = "kpps/core" if flows else "kflows/core"
        named = to if ratio else ""
        yield Result(name, round(rate, 1), unit, flows, 1, named, ratio)


def _rounds(sizes: Sizes, once: Callable[[int], dict[tuple[str, int], float]]) -> Spent:
    """Repeat until all medians stand still, or for so many rounds."""
    spent: Spent = defaultdict(list)
    for number in range(sizes.most):
        for key, value in once(number).items():
            spent[key].append(value)
        if number + 1 >= sizes.rounds and all(map(is_stable, spent.values())):
            break
    return spent


def _known(
    traffic: Traffic,
    nets: dict[str, Network],
    runs: dict[str, Course],
    flows: int,
    sizes: Sizes,
    number: int,
) -> dict[tuple[str, int], float]:
    """
    Let packets of known flows take all courses once, and none.

    Each flow has had a packet within the last second, as it has at so many packets a
    second: once a second its entry is written, and its neighbour looked up.
    """
    del number
    plain = nets["plain"]
    nothing = Course(plain.node, at_gateway("tc"), (plain.gateway, "in0"))
    all_runs = {
        **runs,
        "gateway/nothing": nothing,
        "gateway/nothing/xdp": replace(nothing, in_xdp=True),
    }
    return {
        (name, flows): measure_once(traffic, name, course, flows, sizes.packets, flows)
        for name, course in all_runs.items()
    }


def _new(
    traffic: Traffic, nets: dict[str, Network], sizes: Sizes, number: int
) -> dict[tuple[str, int], float]:
    """Let flows begin at the gateway, in each round to another port of the server."""
    spent = {}
    for path in NEW:
        net, stream = nets[path], at_gateway(path, 81 + number)
        net.rest()
        course = Course(net.node, stream, (net.server, "eth0"))
        name = f"gateway/{path}/new"
        spent[name, 0] = measure_once(traffic, name, course, sizes.new, sizes.new)
    return spent


def measure_once(
    traffic: Traffic,
    name: str,
    course: Course,
    flows: int,
    packets: int,
    before: int = 0,
) -> float:
    """Return nanoseconds of a packet; *before* more of them are in no figure."""
    sink = traffic.xdp_sink if course.in_xdp else traffic.sink
    with sink(*course.end):
        if before:
            traffic.send(course.at, course.stream, flows, before)
        taken = course.taken() if course.taken else 0
        done = traffic.send(course.at, course.stream, flows, packets)
    if done.arrived < KEPT * done.packets:
        raise AssertionError(f"{name}: {done.arrived} of {done.packets} arrived")
    if course.taken and course.taken() - taken < KEPT * done.packets:
        raise AssertionError(f"{name}: XDP left packets to tc")
    return done.nanoseconds


def _open(traffic: Traffic, runs: dict[str, Course], flows: int) -> None:
    """Let every flow begin, and be answered, on the whole way."""
    for name, course in runs.items():
        if name.startswith("chain/"):
            with traffic.sink(*course.end):
                traffic.send(course.at, course.stream, flows, 2 * flows + 64)


def run(sizes: Sizes) -> list[Result]:
    """Measure all paths."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="outgate-bench-")))
        command("mount", "-t", "bpf", "bpf", str(folder))
        stack.callback(command, "umount", "-l", str(folder))
        nets = {path: stack.enter_context(build()) for path, build in PATHS.items()}
        return list(_figures(Traffic(folder), nets, sizes))
