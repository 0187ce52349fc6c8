"""The measurements of the datapath work; what they measure is no test's business."""

from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from bench.datapath import run
from bench.driver import PORT_FIRST, PORTS, Driver, Frames
from bench.hooks import QUICK, Case, Meter, taken_ports
from bench.results import Result
from bench.stable import stable_median
from bench.tables import crowd_packet, put_rows, talk
from bench.targets import verdicts
from bench.traffic import PAYLOAD, datagram
from bpf.harness import Node
from bpf.world import IPV4, gateway_entries
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
    "gateway/tc",
    "gateway/nftables",
    "gateway/plain/reply",
    "chain/tc",
    "chain/plain",
    "tcp/stream_4/tc",
    "tcp/connections/nftables",
    "tcp/ask_1/plain/p99",
}


@pytest.mark.kernel
def test_a_small_run_measures_every_case() -> None:
    """Each case checks verdicts, drops, and that packets arrive."""
    skip_without_root()

    results = run(is_quick=True)

    assert EXPECTED_CASES <= {result.case for result in results}


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

    assert judged == {"from_container/existing": False, "gateway/tc": True}


def test_an_empty_program_that_the_kernel_timed_is_no_measure() -> None:
    """Its own clock would make every hook look three times as good."""
    results = [
        Result("kernel_statistics", 1, "on"),
        Result("empty", 60, "ns"),
        Result("from_container/existing", 90, "ns", 1, 10, "empty", 1.5),
    ]

    [verdict] = verdicts(results)

    assert (verdict.found, verdict.is_met) == ("4.5 × 20 ns", False)
