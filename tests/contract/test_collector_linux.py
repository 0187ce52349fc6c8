"""The collector's timer is the kernel's: it needs no agent, and obeys the newest."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from os import pathsep
from pathlib import Path

import pytest

from bpf.collecting import put_garbage, take_garbage
from bpf.harness import Node, Setup
from bpf.packets import UDP_NAME, outbound
from bpf.world import IPV4, IPV6, World, gateway_entries
from contract.isolation import skip_without_root
from contract.kernel_sides import PIN_DIR, SETTINGS, isolated, start
from outgate.kernel.collector import (
    COLLECTORS,
    read_collectors,
    start_collectors,
    stop_collectors,
)
from outgate.kernel.maps import MapName
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.settings import QUEUE_SIZE, DatapathSettings
from outgate.state.entries import Family, Hook

pytestmark = [pytest.mark.kernel]

DEADLINE_SECONDS = 20.0

WORLDS = pytest.mark.parametrize("world", [IPV4, IPV6], ids=lambda world: world.name)

DYING_AGENT = """
import os, signal
from pathlib import Path
from bpf.harness import Setup
from outgate.kernel.collector import start_collectors
assert not start_collectors(Path({pins!r}), Setup().datapath)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def node() -> Iterator[Node]:
    skip_without_root()
    with Node() as node:
        for world in (IPV4, IPV6):
            node.put(gateway_entries(world))
        yield node


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("flows", "items"),
    [(None, QUEUE_SIZE), (1000, QUEUE_SIZE), (QUEUE_SIZE + 1000, QUEUE_SIZE + 1000)],
)
def test_the_queue_has_room_for_every_flow(flows: int | None, items: int) -> None:
    """A flow without an item would not be collected."""
    skip_without_root()

    with Node(Setup(flow_table_size=flows)) as node:
        for name in (MapName.GARBAGE_V4, MapName.GARBAGE_V6):
            with node.table(name) as queue:
                assert items == queue.shape.entries


def ticks(node: Node) -> int:
    records = node.inside(lambda: read_collectors(node.pins))
    return min(record.ticks for record in records.values())


def collect_by(node: Node, settings: DatapathSettings) -> None:
    """Start the collectors as an agent with *settings* does, and let all be due."""
    assert "" == node.inside(lambda: start_collectors(node.pins, settings))
    items = node.inside(lambda: take_garbage(node.pins))
    node.inside(lambda: put_garbage(node.pins, items))
    # The second tick from now cannot have begun before the items were there.
    wanted = ticks(node) + 2
    until(lambda: ticks(node) >= wanted)


def open_flow(node: Node, world: World) -> None:
    packet = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())


@WORLDS
def test_the_timer_goes_on_after_the_agent_was_killed(node: Node, world: World) -> None:
    program = DYING_AGENT.format(pins=str(node.pins))
    environment = {"PYTHONPATH": pathsep.join(sys.path)}
    command = (sys.executable, "-c", program)
    died = node.inside(lambda: subprocess.run(command, env=environment, check=False))
    assert -9 == died.returncode
    open_flow(node, world)
    node.age(301)
    items = node.inside(lambda: take_garbage(node.pins))
    node.inside(lambda: put_garbage(node.pins, items))
    until(lambda: not node.flows() and not node.nats())


@WORLDS
def test_a_new_agents_program_takes_the_timer_over(node: Node, world: World) -> None:
    """It has other settings: to it, the same flow is over."""
    open_flow(node, world)
    node.age(100)
    collect_by(node, Setup().datapath)
    assert (1, 2) == (len(node.flows()), len(node.nats()))
    before = ticks(node)
    collect_by(node, Setup(jiffies_per_second=1).datapath)

    assert (0, 0) == (len(node.flows()), len(node.nats()))
    assert ticks(node) > before


def test_a_flow_is_looked_at_every_ten_seconds(node: Node) -> None:
    """Of 100 jiffies each, here."""
    open_flow(node, IPV4)
    settings = Setup(jiffies_per_second=10).datapath
    assert "" == node.inside(lambda: start_collectors(node.pins, settings))
    items = node.inside(lambda: take_garbage(node.pins))
    node.inside(lambda: put_garbage(node.pins, items))
    begun = time.monotonic()
    until(lambda: released_and_checked(node)[1] >= 2 * 5)
    seconds = time.monotonic() - begun

    # The first look is at once; a jiffy is 4 ms with HZ=250, and a tick 20 ms.
    assert 4 * 0.4 * 0.9 < seconds < 4 * 0.4 * 5


def released_and_checked(node: Node) -> tuple[int, int]:
    records = node.inside(lambda: read_collectors(node.pins)).values()
    return sum(r.released for r in records), sum(r.checked for r in records)


def test_a_stopped_timer_looks_at_nothing(node: Node) -> None:
    assert "" == node.inside(lambda: start_collectors(node.pins, Setup().datapath))
    until(lambda: ticks(node) > 0)
    node.inside(lambda: stop_collectors(node.pins))
    time.sleep(0.1)

    assert 0 == ticks(node)


def test_a_node_without_a_collector_works_and_says_so(
    tiny_objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in tiny_objects.glob("*.bpf.o"):
        if not path.name.startswith("collect"):
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.setenv("OUTGATE_BPF_OBJECTS", str(tmp_path))

    async def body() -> None:
        kernel = await start()
        await kernel.observe()
        collection = kernel.collection()
        kernel.close()

        assert collection.error.startswith("load collect_v4")
        assert {} == collection.records
        assert not any((PIN_DIR / name).exists() for name in COLLECTORS.values())

    isolated(body)


def test_an_agent_with_another_flow_table_size_begins_with_empty_tables(
    tiny_datapath: None,
) -> None:
    async def body() -> None:
        (await start()).close()
        (await start(settings=replace(SETTINGS, flow_table_size=128))).close()
        names = (MapName.FLOW_V4, MapName.FLOW_V6, MapName.SNAT_V4, MapName.SNAT_V6)

        assert [128, 128, 256, 256] == [entries(name) for name in names]

    isolated(body)


def entries(name: MapName) -> int:
    with PinnedMap(PIN_DIR / name) as opened:
        return opened.shape.entries


def test_a_timer_of_another_layout_is_replaced(tiny_datapath: None) -> None:
    async def body() -> None:
        pin_former_timers()
        kernel = await start()
        collection = kernel.collection()
        kernel.close()

        assert "" == collection.error
        assert set(Family) == set(collection.records)

    isolated(body)


def pin_former_timers() -> None:
    PIN_DIR.mkdir()
    for name in COLLECTORS.values():
        shape = ("type", "array", "key", "4", "value", "8", "entries", "1")
        create = ("bpftool", "map", "create", str(PIN_DIR / name))
        subprocess.run((*create, *shape, "name", "former"), check=True)
