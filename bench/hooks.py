"""
Cases of single hooks: nanoseconds per packet, net of the empty program.

A node of each family holds 10, 1,000 or 100,000 policy rows; at each, 1, 1,000 and
100,000 flows are opened (first packet, and first reply), then packets of known
flows are measured over all of them, and at last flows that are new.  What a program
did is checked: its verdict, and that the node counted no drop.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address

from bench.driver import Driver, Frames
from bench.results import Result
from bench.stable import stable_median
from bench.tables import (
    crowd_packet,
    end_translations,
    forget_flows,
    put_rows,
    talk,
)
from bpf.harness import MARK_TRANSLATED, PASS, REDIRECT, Node, Setup
from bpf.world import IPV4, IPV6, World, gateway_entries
from outgate.kernel.reasons import Reason
from outgate.kernel.settings import TunnelWay
from outgate.state.entries import Family, Hook

BY_DEVICE = Setup(tunnel_way=TunnelWay.DEVICE)
"""BPF_PROG_TEST_RUN repeats one packet: no outer header may be put on it each time."""

NO_DROPS = {Reason.FORWARDED, Reason.OTHER_FAMILY}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    flows: tuple[int, ...] = (1, 1000, 100_000)
    rows: tuple[int, ...] = (10, 1000, 100_000)
    rows_of_ipv6: tuple[int, ...] = (1000,)
    packets: int = 100_000
    """In one round; with more flows than that, all of them."""
    new: int = 4096
    """New flows in one round; what is told of them fits the events' ring."""
    searches: int = 128
    learning: int = 16
    """Rounds of four times as many searches before, which find out what is taken."""
    taken: tuple[int, ...] = (50, 90, 99)
    rounds: int = 24


QUICK = Sizes((1, 50), (10,), (10,), 500, 64, 16, 1, (99,), 2)


@dataclass(frozen=True, slots=True)
class Case:
    """A program, and the packets that it gets; *name* as in the table of results."""

    name: str
    hook: Hook
    frames: Frames
    verdict: int = REDIRECT


@dataclass(frozen=True, slots=True)
class Part:
    """What a node is in these cases: how flows open, and what is measured then."""

    opening: tuple[Case, Case]
    existing: tuple[Case, ...]
    new: Case


def pod_node(world: World, pods: int) -> Part:
    """Return the cases of a pod's own node, whose gateway is another node."""
    del pods
    there = talk(world.TUNNELLED_POD, world.SERVER)
    out = Case("from_container/existing", Hook.FROM_CONTAINER, Frames(there))
    reply = Case(
        "from_overlay/pod/reply",
        Hook.FROM_OVERLAY,
        Frames(there.reply(), is_reply=True, tunnel=world.worker),
    )
    free = Frames(talk(world.FREE_POD, world.OTHER_SERVER))
    other = Frames(talk(world.TUNNELLED_POD, world.OTHER_SERVER))
    back = Frames(talk(world.FREE_POD, world.OTHER_SERVER).reply(), is_reply=True)
    return Part(
        opening=(out, reply),
        existing=(
            *(out, reply),
            Case("from_container/uncovered", Hook.FROM_CONTAINER, free, PASS),
            Case("from_container/other_network", Hook.FROM_CONTAINER, other, PASS),
            Case("to_container/uncovered", Hook.TO_CONTAINER, back, PASS),
        ),
        new=replace(out, name="from_container/new"),
    )


def gateway(world: World, pods: int) -> Part:
    """Return the cases of a gateway that serves *pods* pods of another node."""
    there = crowd_packet(world)
    out = Case(
        "from_overlay/gateway/existing",
        Hook.FROM_OVERLAY,
        Frames(there, pods=pods, tunnel=world.worker),
    )
    reply = Case(
        "from_netdev/reply",
        Hook.FROM_NETDEV,
        Frames(there.but(source=world.HERE).reply(), is_reply=True),
    )
    host = talk(world.HERE, world.OTHER_SERVER)
    own = Frames(host.reply(), is_reply=True)
    marked = Frames(host, mark=MARK_TRANSLATED)
    return Part(
        opening=(out, reply),
        existing=(
            *(out, reply),
            Case("from_netdev/host", Hook.FROM_NETDEV, own, PASS),
            Case("to_netdev/translated", Hook.TO_NETDEV, marked, PASS),
        ),
        new=replace(out, name="from_overlay/gateway/new"),
    )


class Meter:
    """One node, its driver, and what the empty program takes there."""

    def __init__(self, node: Node, world: World, sizes: Sizes) -> None:
        self.node, self.world, self.sizes = node, world, sizes
        self.driver = Driver(node)
        bare = partial(self.driver.run_bare, 10 * sizes.packets)
        self.empty = stable_median(lambda: bare().nanoseconds, sizes.rounds)
        self._rows = 0

    def put_rows(self, rows: int) -> int:
        """Begin anew with *rows* policy rows; return how many pods have them."""
        self.node.reset()
        self.node.put(gateway_entries(self.world))
        self._rows = rows
        return put_rows(self.node, self.world, rows)

    def play(self, case: Case, flows: int, packets: int, first: int = 0) -> float:
        """Return nanoseconds per packet, net; each round one after the other."""
        family, frames = self.world.family, case.frames
        program = self.node.program(case.hook, family)
        plan = frames.plan(flows, first)
        nothing = self.driver.run(self.driver.empty, plan, packets)
        done = self.driver.run(program, plan, packets)
        if done.verdict != case.verdict:
            raise AssertionError(
                f"{case.name}: verdict {done.verdict}, {self._drops()}"
            )
        return done.nanoseconds - nothing.nanoseconds

    def _drops(self) -> set[Reason]:
        return {reason for reason, _, _ in self.node.counts()} - NO_DROPS

    def result(self, name: str, flows: int, nanoseconds: float) -> Result:
        """Return a number as it is kept; RuntimeError where packets were dropped."""
        if drops := self._drops():
            raise AssertionError(f"{name}: packets were dropped: {drops}")
        family = "" if self.world.family is Family.V4 else "/ipv6"
        ratio = round(nanoseconds / self.empty, 2)
        value = round(nanoseconds, 1)
        return Result(f"{name}{family}", value, "ns", flows, self._rows, "empty", ratio)

    def measure(self, part: Part, flows: int) -> Iterator[Result]:
        """Open *flows* flows, and measure all cases of *part*."""
        for case in part.opening:
            self.play(case, flows, flows)
        packets = max(self.sizes.packets, flows)
        for case in part.existing:
            once = partial(self.play, case, flows, packets)
            yield self.result(case.name, flows, stable_median(once, self.sizes.rounds))
        yield self._measure_new(part.new, flows)
        forget_flows(self.node, self.world.family)

    def _measure_new(self, case: Case, flows: int) -> Result:
        new, opened = self.sizes.new, 0

        def once() -> float:
            nonlocal opened
            self.node.events()
            first, opened = flows + opened, opened + new
            return self.play(case, new, new, first)

        return self.result(case.name, flows, stable_median(once, self.sizes.rounds))

    def measure_search(self, taken: int) -> Result:
        """Measure new flows of a gateway while *taken* per cent of ports are taken."""
        self.put_rows(self.sizes.rows[0])
        self.node.take_ports(ip_address(self.world.SERVER), taken_ports(taken))
        case = gateway(self.world, 0).new
        flows = 0

        def once(searches: int) -> float:
            nonlocal flows
            self.node.events()
            first, flows = flows, flows + searches
            spent = self.play(case, searches, searches, first)
            these = range(first, flows)
            end_translations(self.node, case.frames.packet, self.world.HERE, these)
            return spent

        for _ in range(self.sizes.learning):
            once(4 * self.sizes.searches)
        name = f"from_overlay/gateway/port_search_{taken}"
        search = partial(once, self.sizes.searches)
        return self.result(name, 0, stable_median(search, self.sizes.rounds))


def taken_ports(percent: int) -> list[int]:
    """Return so many per cent of all ports that flows may get, evenly spread."""
    first, last = Setup().ports
    return [port for port in range(first, last + 1) if port * percent % 100 < percent]


def run(sizes: Sizes) -> list[Result]:
    """
    Measure all cases of all hooks.

    On a fresh node for each number of rows: entries of a table that was filled and
    emptied before lie scattered, and cost more, which rows have no part in.
    """
    results: list[Result] = []
    for world, counts in ((IPV4, sizes.rows), (IPV6, sizes.rows_of_ipv6)):
        for rows in counts:
            with Node(BY_DEVICE) as node:
                meter = Meter(node, world, sizes)
                if not results:
                    results.append(Result("empty", round(meter.empty, 1), "ns"))
                pods = meter.put_rows(rows)
                for part in (pod_node(world, pods), gateway(world, pods)):
                    for flows in sizes.flows:
                        results += meter.measure(part, flows)
        with Node(BY_DEVICE) as node:
            meter = Meter(node, world, sizes)
            results += [meter.measure_search(taken) for taken in sizes.taken]
    return results
