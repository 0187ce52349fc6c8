"""
Rounds of the fuzzer: each starts with empty tables, and ends with comparing them.

A round has a seed of its own, so that a difference is repeated by its number alone.
Both families are in each; IPv6's tunnel has an outer header of either family, in turns.
Even rounds are played with the settings that nodes have unless told otherwise, odd ones
with all others; four rounds each with tc, with the kernel's tunnel device, and with XDP
before tc, which path ``stack`` has not.  Time only passes where the round says so.
:mod:`bpf.fuzz.run` is the command.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from random import Random

from bpf.fuzz.traffic import Traffic, all_entries
from bpf.harness import Node, Setup
from bpf.model.check import Checker, DifferenceError, Ends
from bpf.model.datapath import Datapath
from bpf.model.rules import Rules
from bpf.model.runner import Runner
from bpf.model.table import Mode, Table
from bpf.world import IPV4, IPV6, IPV6_OVER_IPV4, Rows, World
from outgate.kernel.settings import (
    ExistingFlows,
    GatewayPath,
    OtherFamily,
    TunnelWay,
)

PORTS = (1024, 65535)
SLOW = 250_000
"""Jiffies in a second of the datapath: a real second is nothing to it."""

AGES = (7, 14, 63, 301, 7441)
"""Seconds; no sum of them is a lifetime, so that it is never a matter of luck."""

BETWEEN = 2000
"""Frames between two leaps of time, and two looks at all tables."""

ALL_OTHERS = Setup(GatewayPath.STACK, ExistingFlows.REDECIDE, OtherFamily.DROP)
SETUPS = (
    *(Setup(), ALL_OTHERS),
    *(replace(at, tunnel_way=TunnelWay.DEVICE) for at in (Setup(), ALL_OTHERS)),
    *(
        replace(at, has_xdp=True, gateway_path=GatewayPath.DIRECT)
        for at in (Setup(), ALL_OTHERS)
    ),
)
WORLDS = ((IPV4, IPV6), (IPV4, IPV6_OVER_IPV4))


@dataclass(frozen=True, slots=True)
class Job:
    """
    *packets* frames a round, each of *rounds*, all derived from *seed*.

    All tables are compared after every so many frames.
    """

    seed: int
    rounds: Sequence[int]
    packets: int
    every: int = BETWEEN


def play(checker: Checker, worlds: Sequence[World], seed: str, job: Job) -> None:
    """Play one round; DifferenceError where kernel and model differ."""
    chance = Random(seed)
    spoiled = chance.choice((0.3, 0.6, 0.9))
    streams = [Traffic(chance, world, spoiled) for world in worlds]
    checker.reset()
    for number in range(1, job.packets + 1):
        traffic = streams[int(chance.random() * len(streams))]
        arrival = traffic.next()
        try:
            verdict, frame = checker.step(arrival)
            if number % job.every == 0 or number == job.packets:
                checker.compare_tables()
        except (DifferenceError, OSError) as error:
            raise DifferenceError(f"frame {number}: {error}") from error
        traffic.learn(arrival, verdict, frame)
        if number % BETWEEN == 0:
            checker.age(chance.choice(AGES))
            if chance.random() < 0.3:
                checker.renew_policies()


@dataclass(frozen=True, slots=True)
class Seat:
    """A node, and what compares it with the model."""

    node: Node
    checker: Checker

    def prepare(self, worlds: Sequence[World]) -> None:
        """Give both sides the rows of *worlds*."""
        entries: Rows = {}
        for world in worlds:
            entries |= all_entries(world)
        self.node.reset()
        self.node.put(entries)
        self.checker.datapath.rules.replace(entries)
        self.node.inside(self.checker.renew_policies)


@contextmanager
def seat(setup: Setup) -> Iterator[Seat]:
    """Have a node with the settings of *setup*, and time that stands still."""
    setup = replace(setup, ports=PORTS, jiffies_per_second=SLOW)
    mode = Mode(
        setup.gateway_path is GatewayPath.STACK,
        setup.existing_flows is ExistingFlows.REDECIDE,
        setup.other_family is OtherFamily.DROP,
    )
    with Node(setup) as node, Runner(node, SLOW, setup.tunnel_way) as runner:
        datapath = Datapath(Rules({}), Table(PORTS, mode), runner.port_of)
        yield Seat(node, Checker(runner, datapath))


def work(job: Job, report: Callable[[str], None]) -> Ends:
    """Play all rounds of *job* in nodes of their own; return how the frames ended."""
    start, done = time.monotonic(), 0
    with ExitStack() as stack:
        seats = [stack.enter_context(seat(setup)) for setup in SETUPS]
        for number in job.rounds:
            try:
                _round(job, number, seats[number % 2 + number // 4 % 3 * 2])
            except DifferenceError as error:
                again = f"--seed {job.seed} --round {number}"
                raise DifferenceError(f"{again}: {error}") from error
            done += 1
            rate = done * job.packets / (time.monotonic() - start)
            report(f"{done} of {len(job.rounds)} rounds, {rate:.0f} frames a second")
        return sum((at.checker.ends for at in seats), Counter())


def _round(job: Job, number: int, at: Seat) -> None:
    worlds = WORLDS[number // 2 % 2]
    seed = f"{job.seed}/{number}"
    at.prepare(worlds)
    at.node.inside(lambda: play(at.checker, worlds, seed, job))
