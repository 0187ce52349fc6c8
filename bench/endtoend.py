"""
Cases ``gateway/…`` and ``chain/…``: packets per second and core of whole paths.

All paths stand at the same time, and take turns in every round.  *gateway*: tunnelled
packets (plain ones on the plain path) arrive at the gateway and leave to the server, or
replies the other way; *chain*: from the pod's veth to the server's NIC.  The generator
and the sink are in the figure of every path alike; ``gateway/nothing`` is they alone.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.driver import PORT_FIRST
from bench.network import GATEWAY, MACS, NODE, POD, SERVER, Namespace, Network
from bench.paths import PATHS, VXLAN_MAC
from bench.results import Result
from bench.traffic import Stream, Traffic, datagram
from bpf.packets import Packet
from bpf.tunnel import into_tunnel
from bpf.uplink import command

KEPT = 0.99
"""Share of the packets that must arrive: a path that drops is not fast."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    flows: tuple[int, ...] = (1, 20_000)
    packets: int = 100_000
    rounds: int = 7


QUICK = Sizes((1, 64), 2000, 1)


@dataclass(frozen=True, slots=True)
class Course:
    """From where to where packets go."""

    at: Namespace
    stream: Stream
    end: tuple[Namespace, str]


def courses(path: str, net: Network) -> dict[str, Course]:
    """Return what is measured on one path, by case name."""
    end = (net.server, "eth0")
    reply = datagram(
        SERVER,
        POD if path == "plain" else GATEWAY,
        source_mac=MACS["server.eth0"],
        destination_mac=MACS["gateway.out0"],
        source_port=80,
        destination_port=PORT_FIRST,
    ).build()
    back = Stream(reply, "eth0", is_reply=True)
    return {
        f"gateway/{path}": Course(net.node, _at_gateway(path), end),
        f"gateway/{path}/reply": Course(net.server, back, (net.node, "up0")),
        f"chain/{path}": Course(net.pod, Stream(_of_pod().build(), "eth0"), end),
        f"chain/{path}/reply": Course(net.server, back, (net.pod, "eth0")),
    }


def _of_pod() -> Packet:
    return datagram(
        POD,
        SERVER,
        source_mac=MACS["pod.eth0"],
        destination_mac=MACS["node.pod0"],
    )


def _at_gateway(path: str) -> Stream:
    """Return what arrives at the gateway from the pod's node."""
    macs = {"source_mac": MACS["node.up0"], "destination_mac": MACS["gateway.in0"]}
    if path == "plain":
        return Stream(_of_pod().but(ttl=63, **macs).build(), "up0")
    inner = _of_pod()
    if path == "nftables":
        # There a VXLAN device receives it, which has a MAC address.
        inner = inner.but(
            ttl=63,
            source_mac=VXLAN_MAC["node"],
            destination_mac=VXLAN_MAC["gateway"],
        )
    frame = into_tunnel(inner.build(), ip_address(NODE))
    return Stream(frame, "up0", is_tunnelled=True)


def _figures(
    traffic: Traffic, nets: dict[str, Network], sizes: Sizes
) -> Iterator[Result]:
    spent: dict[tuple[str, int], list[float]] = defaultdict(list)
    runs = {
        name: course
        for path, net in nets.items()
        for name, course in courses(path, net).items()
    }
    for flows in sizes.flows:
        _open(traffic, runs, flows)
        for _ in range(sizes.rounds):
            for name, course in runs.items():
                spent[name, flows].append(_once(traffic, name, course, flows, sizes))
            with traffic.sink(nets["plain"].gateway, "in0"):
                at, stream = nets["plain"].node, _at_gateway("tc")
                done = traffic.send(at, stream, flows, sizes.packets)
                spent["gateway/nothing", flows].append(done.nanoseconds)
    rates = {key: 1e6 / median(values) for key, values in spent.items()}
    for (name, flows), rate in rates.items():
        to = "/".join((name.split("/")[0], "nftables", *name.split("/")[2:]))
        base = rates.get((to, flows))
        ratio = round(rate / base, 2) if base and to != name else None
        named = to if ratio else ""
        yield Result(name, round(rate, 1), "kpps/core", flows, 1, named, ratio)


def _once(
    traffic: Traffic, name: str, course: Course, flows: int, sizes: Sizes
) -> float:
    with traffic.sink(*course.end):
        done = traffic.send(course.at, course.stream, flows, sizes.packets)
    if done.arrived < KEPT * done.packets:
        raise AssertionError(f"{name}: {done.arrived} of {done.packets} arrived")
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
