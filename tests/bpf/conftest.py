"""
A clean node per test, with the rows of the guide's gateway, in each world.

Nodes are dear: their programs and maps take half a second.  A node is shared by the
tests of one process that want the same settings, and forgets its rows between them.
Of many settings the nodes used last are kept: each one holds some 300 MB of maps.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum

import pytest

from bpf.harness import MakeNode, Node, Setup
from bpf.world import WORLDS, World, gateway_entries
from outgate.kernel.settings import GatewayPath, TunnelWay


@pytest.fixture(params=WORLDS, ids=lambda world: world.name)
def world(request: pytest.FixtureRequest) -> World:
    """The cluster, in one IP family after the other."""
    world: World = request.param
    return world


MOST_NODES = 12
"""Two processes of so many leave half of 24 GiB to everything else."""


@pytest.fixture(scope="session")
def shared_node() -> Iterator[MakeNode]:
    """Nodes by their settings, with whatever rows the last test left."""
    nodes: OrderedDict[Setup, Node] = OrderedDict()

    def share(setup: Setup) -> Node:
        if setup not in nodes:
            if len(nodes) == MOST_NODES:
                _, oldest = nodes.popitem(last=False)
                oldest.__exit__()
            nodes[setup] = Node(setup)
        nodes.move_to_end(setup)
        return nodes[setup]

    with ExitStack() as stack:
        yield share
        for node in nodes.values():
            stack.push(node)


class Way(StrEnum):
    """Who does a gateway's work: what becomes of packets must be the same."""

    XDP = "xdp"
    """Where it can; else tc."""
    TC = "tc"
    DEVICE = "device"
    """The kernel's VXLAN device handles outer headers, not tc."""


@pytest.fixture(params=Way)
def way(request: pytest.FixtureRequest) -> Way:
    """Who does the work, one after the other."""
    who: Way = request.param
    return who


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave XDP before path stack out: it passes everything on there (test_xdp.py)."""
    idle = [item for item in items if _is_idle(item)]
    if idle:
        config.hook.pytest_deselected(items=idle)
        items[:] = [item for item in items if not _is_idle(item)]


def _is_idle(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    given = call.params.values() if call else ()
    return Way.XDP in given and GatewayPath.STACK in given


@pytest.fixture
def tunnel_way(way: Way) -> TunnelWay:
    """Who handles outer headers."""
    return TunnelWay.DEVICE if way is Way.DEVICE else TunnelWay.AUTO


@pytest.fixture
def make_node(
    shared_node: MakeNode, world: World, tunnel_way: TunnelWay, way: Way
) -> MakeNode:
    """The node that is the gateway, with settings of the test's choice."""
    has_xdp = way is Way.XDP

    def make(setup: Setup) -> Node:
        node = shared_node(replace(setup, tunnel_way=tunnel_way, has_xdp=has_xdp))
        node.reset()
        node.put(gateway_entries(world))
        return node

    return make


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    """The node that is the gateway."""
    return make_node(Setup())


@pytest.fixture
def own_node(world: World, tunnel_way: TunnelWay, way: Way) -> Iterator[Node]:
    """The same, for a test that changes more than rows."""
    has_xdp = way is Way.XDP
    with Node(Setup(tunnel_way=tunnel_way, has_xdp=has_xdp)) as node:
        node.put(gateway_entries(world))
        yield node
