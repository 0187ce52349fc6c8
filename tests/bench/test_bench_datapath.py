"""The measurements of the datapath work; what they measure is no test's business."""

import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from bench.courses import Course
from bench.datapath import PARTS, run
from bench.driver import PORT_FIRST, PORTS, Driver, Frames
from bench.endtoend import measure_once
from bench.hooks import QUICK, Case, Meter, taken_ports, xdp_gateway
from bench.needs import missing
from bench.network import Namespace
from bench.results import Result
from bench.stable import stable_median
from bench.tables import crowd_packet, put_rows, talk
from bench.targets import verdicts
from bench.traffic import PAYLOAD, Sent, Stream, Traffic, datagram
from bpf.harness import Node
from bpf.world import IPV4, IPV6, World, gateway_entries
from contract.isolation import skip_without_root
from outgate.state.entries import Family, Hook

EXPECTED_CASES = {
    "empty",
    "from_container/existing",
    "from_container/new",
    "from_container/uncovered",
    "from_overlay/gateway/existing",
    "from_overlay/gateway/new",
    "from_overlay/gateway/port_search_99",
    "from_overlay/gateway/port_search_99/ipv6",
    "from_overlay/pod/reply",
    "from_netdev/reply",
    "from_netdev/reply/ipv6",
    "node/tc",
    "node/nftables/reply",
    "node/plain/reply",
    "gateway/tc",
    "gateway/nftables",
    "gateway/plain/reply",
    "chain/tc",
    "chain/plain",
    "tcp/stream_4/tc",
    "tcp/connections/nftables",
    "tcp/ask_1/plain/p99",
    "xdp/gateway/existing",
    "xdp/gateway/reply",
    "xdp/gateway/reply/ipv6",
    "gateway/xdp",
    "gateway/xdp/reply",
    "gateway/xdp/new",
    "gateway/nftables/new",
    "gateway/tc-device",
    "gateway/nothing/xdp",
    "chain/xdp",
    "tcp/stream_4/xdp",
    "snat/collect",
    "snat/collect/longest_tick",
    "program/hash",
    "program/lpm",
    "program/delete/lpm",
    "program/policy_10k_pods",
}


@pytest.mark.kernel
def test_a_small_run_measures_every_case() -> None:
    """Each case checks verdicts, drops, and that packets arrive."""
    skip_without_root()

    results = run(tuple(PARTS), is_quick=True)

    assert EXPECTED_CASES <= {result.case for result in results}
    assert {result.part for result in results} == set(PARTS)


@pytest.mark.kernel
def test_every_flow_of_a_plan_is_opened() -> None:
    skip_without_root()
    flows = PORTS + 50  # one server has fewer ports
    with Node() as node:
        node.put(gateway_entries(IPV4))
        pods = put_rows(node, IPV4, 10)
        frames = Frames(crowd_packet(IPV4), pods=pods, tunnel=IPV4.worker)
        program = node.program(Hook.FROM_OVERLAY, Family.V4)

        Driver(node).run(program, frames.plan(flows), flows)

        opened = node.nats().keys()

    pod, server = ip_address("10.128.0.0"), ip_address(IPV4.SERVER)
    expected = {
        (pod + flow % pods, PORT_FIRST + flow % PORTS, server + flow // PORTS)
        for flow in range(flows)
    }
    sources = {(t.source, t.source_port, t.destination) for t in opened}
    assert expected <= sources


@pytest.mark.kernel
def test_a_program_that_drops_is_not_measured() -> None:
    """A number of packets that went nowhere would be a good one."""
    skip_without_root()

    with Node() as node:
        meter = Meter(node, IPV4, QUICK)
        meter.put_rows(10)
        frames = Frames(talk(IPV4.TUNNELLED_POD, IPV4.NO_GATEWAY_SERVER))
        case = Case("dropped", Hook.FROM_CONTAINER, frames)

        with pytest.raises(AssertionError, match="dropped: verdict 2"):
            meter.play(case, 1, 100)


def test_a_datagram_keeps_its_checksum_whatever_its_port() -> None:
    """What the generator does with port and payload, done by hand."""
    raw = datagram(IPV4.REMOTE_POD, IPV4.SERVER).build()
    port_at, sum_at = 34, len(raw) - len(PAYLOAD)
    for more in (0, 1, 20_000):
        frame = bytearray(raw)
        frame[port_at : port_at + 2] = (PORT_FIRST + more).to_bytes(2, "big")
        frame[sum_at : sum_at + 2] = (~more & 0xFFFF).to_bytes(2, "big")
        packet = Ether(bytes(frame))
        written = packet[UDP].chksum
        del packet[UDP].chksum

        assert Ether(bytes(packet))[UDP].chksum == written
        assert len(packet[IP]) == 46


@pytest.mark.kernel
@pytest.mark.parametrize("world", [IPV4, IPV6], ids=lambda world: world.name)
def test_xdp_is_not_measured_where_it_passes_packets_on(world: World) -> None:
    """What is left to tc costs XDP next to nothing."""
    skip_without_root()

    with Node() as node:
        meter = Meter(node, world, QUICK)
        pods = meter.put_rows(10)
        meter.use_xdp()
        unopened, _ = xdp_gateway(world, pods).existing

        with pytest.raises(AssertionError, match="existing: verdict 2"):
            meter.play(unopened, 1, 100)


@pytest.mark.parametrize(
    ("arrived", "taken", "why"),
    [(98, 100, "98 of 100 arrived"), (100, 98, "XDP left packets to tc")],
)
def test_a_path_that_loses_packets_is_not_measured(
    arrived: int, taken: int, why: str
) -> None:
    counts = iter([7, 7 + taken])
    nowhere = cast(Namespace, None)
    stream, end = Stream(b"", ""), (nowhere, "")
    course = Course(nowhere, stream, end, taken=lambda: next(counts))
    traffic = cast(Traffic, ThatArrives(arrived))

    with pytest.raises(AssertionError, match=why):
        measure_once(traffic, "gateway/xdp", course, 1, 100)


@dataclass(frozen=True, slots=True)
class ThatArrives:
    """Of ``Traffic`` what a course needs."""

    arrived: int

    def sink(self, at: Namespace, interface: str) -> AbstractContextManager[None]:
        return nullcontext()

    def send(self, at: Namespace, stream: Stream, flows: int, packets: int) -> Sent:
        return Sent(packets, self.arrived, 1)


@pytest.mark.kernel
def test_what_is_measured_ends_with_its_caller() -> None:
    """Also where that is killed: nothing of it stays behind."""
    skip_without_root()
    caller = subprocess.Popen(
        (sys.executable, "-c", CALLER), stdout=subprocess.PIPE, text=True
    )
    assert caller.stdout
    process = int(caller.stdout.readline())

    caller.kill()
    caller.wait()

    until_gone(process)


CALLER = """
import subprocess
from bench.isolation import WITH_CALLER
words = (*WITH_CALLER, "sh", "-c", "echo ready; exec sleep 60")
process = subprocess.Popen(words, stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
process.wait()
"""


def until_gone(process: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{process}").exists() and not is_zombie(process):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_zombie(process: int) -> bool:
    return ") Z " in Path(f"/proc/{process}/stat").read_text()


def test_all_that_is_missing_is_named_with_its_package() -> None:
    there = {"ip", "setpriv", "taskset", "unshare", "ethtool"}

    line = missing(True, lambda name: name in there, lambda name: None)

    assert line == (
        "bench: something is missing: apt-get install bpftool clang gcc nftables;"
        " .venv/bin/pip install -e '.[bench]' (matplotlib, for charts)"
    )


def test_nothing_is_missing_where_all_is_there() -> None:
    assert not missing(True, lambda name: True, lambda name: True)


@pytest.mark.parametrize("percent", [50, 90, 99])
def test_so_many_ports_are_taken(percent: int) -> None:
    taken = taken_ports(percent)

    assert len(set(taken)) == len(taken)
    assert abs(len(taken) / 64512 - percent / 100) < 0.001


def test_a_median_is_taken_until_it_stands_still() -> None:
    values = iter([90.0, 10.0, 90.0, 10.0, 90.0, 10.0, *[20.0] * 40])

    assert stable_median(lambda: next(values)) == 20.0
    assert next(values) == 20.0


def test_a_target_is_judged_by_the_worst_of_all_rows() -> None:
    results = [
        Result("empty", 20, "ns"),
        Result("from_container/existing", 60, "ns", 1, 10, "empty", 3.0),
        Result("from_container/existing", 90, "ns", 1, 1000, "empty", 4.5),
        Result("from_container/existing", 900, "ns", 100_000, 10, "empty", 45.0),
        Result("gateway/tc", 900, "kpps/core", 20_000),
        Result("gateway/nftables", 400, "kpps/core", 20_000),
    ]

    judged = {verdict.case: verdict.is_met for verdict in verdicts(results)}

    assert judged == {
        "from_container/existing": False,
        "from_container/existing, 1,000 rows": False,
        "gateway/tc": True,
    }


def test_rates_of_tables_have_to_reach_a_target_and_times_to_stay_below() -> None:
    results = [
        Result(
            "program/hash", 3e6, "entries/s", 0, 9, "target 2,000,000 entries/s", 1.5
        ),
        Result("program/policy_10k_pods", 15, "ms", 0, 9, "target 10 ms", 1.5),
        Result("program/delete/hash", 3e6, "entries/s", 0, 9),
    ]

    judged = [(v.case, v.wanted, v.is_met) for v in verdicts(results)]

    assert judged == [
        ("program/hash", "≥ 2,000,000 entries/s", True),
        ("program/policy_10k_pods", "≤ 10 ms", False),
    ]


def test_an_empty_program_that_the_kernel_timed_is_no_measure() -> None:
    """Its own clock would make every hook look three times as good."""
    results = [
        Result("kernel_statistics", 1, "on"),
        Result("empty", 60, "ns"),
        Result("from_container/existing", 90, "ns", 1, 10, "empty", 1.5),
    ]

    [verdict] = verdicts(results)

    assert (verdict.found, verdict.is_met) == ("4.5 × 20 ns", False)
