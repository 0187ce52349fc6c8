"""``outgate monitor`` on the ring of real programs, without an agent."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from bpf.harness import Node
from bpf.packets import TCP_NAME, UDP_NAME, outbound
from bpf.world import IPV4, IPV6, World, gateway_entries
from contract.isolation import skip_without_root
from outgate.cli.main import app
from outgate.state.entries import Hook

pytestmark = [pytest.mark.kernel]

PROGRAM = "from outgate.cli.main import run; run()"
NO_AGENT = "/nonexistent/agent.sock"
DEADLINE_SECONDS = 20.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    skip_without_root()
    with Node() as node:
        for world in (IPV4, IPV6):
            node.put(gateway_entries(world))
        yield node


@pytest.fixture
def node(shared: Node) -> Node:
    shared.events()
    return shared


def monitor(node: Node, *arguments: str) -> list[str]:
    command = ("monitor", "--pin", str(node.pins), "--socket", NO_AGENT, *arguments)
    done = node.inside(lambda: CliRunner().invoke(app, command))

    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def send(node: Node, world: World, port: int, protocol: str = UDP_NAME) -> None:
    """Open a flow through this gateway: two events."""
    packet = outbound(protocol, world.LOCAL_POD, world.SERVER, port)
    node.run(Hook.FROM_CONTAINER, packet.build())


@contextmanager
def running(node: Node, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command in the node's namespaces, from when it holds the ring."""
    options = ("--pin", str(node.pins), "--socket", NO_AGENT, *arguments)
    command = (sys.executable, "-c", PROGRAM, "monitor", *options)
    pipe = subprocess.PIPE
    with node.inside(
        lambda: subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> int:
    return process.wait(DEADLINE_SECONDS)


def until_read(node: Node, process: subprocess.Popen[str], port: int) -> None:
    """Open flows until the process printed one: it is following then."""
    assert process.stdout
    os.set_blocking(process.stdout.fileno(), False)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not process.stdout.readline():
        assert time.monotonic() < deadline
        send(node, IPV4, port)
        port += 1
        time.sleep(0.02)


@pytest.mark.parametrize("world", [IPV4, IPV6], ids=lambda world: world.name)
def test_a_flow_is_told_from_its_opening_to_its_release(
    node: Node, world: World
) -> None:
    send(node, world, 1500)
    node.age(301)
    node.collect()
    told = [
        json.loads(line)
        for line in monitor(node, "--history", "--count", "4", "-o", "json")
    ]

    assert ["flow-closed", "flow-opened", "nat-made", "nat-released"] == sorted(
        event["kind"] for event in told
    )
    assert {world.LOCAL_POD} == {event["source"] for event in told}
    assert {world.HERE} == {event["translated"] for event in told}
    assert {1500, None} == {event["translatedPort"] for event in told}


def test_a_drop_is_printed_with_its_reason(node: Node) -> None:
    send(node, IPV4, 1600)
    packet = outbound(TCP_NAME, IPV4.LOCAL_POD, IPV4.NO_GATEWAY_SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    (line,) = monitor(node, "--history", "--drops", "--count", "1")

    assert line.endswith(
        "drop         tcp 10.0.2.86:40000 -> 198.51.100.1:80 drop_no_gateway to_world"
        " policy 0x0000004d"
    )


def test_it_begins_with_what_happens_from_now_on(node: Node) -> None:
    send(node, IPV4, 1700)
    with running(node, "--count", "1", "-o", "json") as process:
        deadline, port = time.monotonic() + DEADLINE_SECONDS, 1701
        while process.poll() is None:
            assert time.monotonic() < deadline
            send(node, IPV4, port)
            port += 1
            time.sleep(0.02)
        told = json.loads(process.communicate()[0])

    assert told["sourcePort"] > 1700


def test_an_interrupt_ends_it_in_peace(node: Node) -> None:
    with running(node) as process:
        until_read(node, process, 2000)
        process.send_signal(signal.SIGINT)

        assert 0 == ended(process)
        assert process.stderr
        assert "" == process.stderr.read()


def test_a_reader_that_went_away_ends_it_in_peace(node: Node) -> None:
    with running(node) as process:
        until_read(node, process, 3000)
        assert process.stdout
        process.stdout.close()
        send(node, IPV4, 3999)

        assert 0 == ended(process)
        assert process.stderr
        assert "" == process.stderr.read()


def test_a_second_reader_is_refused(node: Node) -> None:
    with running(node) as first:
        until_read(node, first, 4000)
        with running(node) as second:
            assert 1 == ended(second)
            assert second.stderr
            assert "another reader has them" in second.stderr.read()


def test_a_full_ring_is_told(node: Node) -> None:
    """A mebibyte holds 13,107 events; two a flow."""
    for port in range(6600):
        send(node, IPV4, 10000 + port)
    with running(node, "--history", "--count", "1") as process:
        assert 0 == ended(process)
        assert process.stderr
        assert "some may be lost" in process.stderr.read()


def test_without_a_ring_it_says_what_to_do(node: Node) -> None:
    command = ("monitor", "--pin", "/sys/fs/bpf/none", "--socket", NO_AGENT)
    done = node.inside(lambda: CliRunner().invoke(app, command))

    assert "no events are pinned in /sys/fs/bpf/none" in str(done.exception)
