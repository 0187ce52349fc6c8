"""
Made-up stories of one node, in kernel and model; the same ones each time.

Each setting is played in one world, and XDP in all.  ``make stories STORIES=500``
plays each in all, and tells other stories each time.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from bpf.fuzz.rounds import SLOW
from bpf.harness import MakeNode, Node, Setup, needs_root
from bpf.model.check import Checker
from bpf.model.datapath import Datapath
from bpf.model.rules import Rules
from bpf.model.runner import Runner
from bpf.model.table import Mode, Table
from bpf.stories.machine import PORTS, StoryMachine
from bpf.world import WORLDS, World
from outgate.kernel.settings import ExistingFlows, GatewayPath

pytestmark = [needs_root, pytest.mark.kernel]

MANY = int(os.environ.get("OUTGATE_STORIES", "0"))
FEW, STEPS = 50, 50
SETTINGS = {
    "direct": Setup(),
    "stack": Setup(GatewayPath.STACK),
    "redecide": Setup(existing_flows=ExistingFlows.REDECIDE),
    "xdp": Setup(has_xdp=True),
}
FEW_PLAYS = [
    *zip(("direct", "stack", "redecide"), WORLDS, strict=True),
    *(("xdp", world) for world in WORLDS),
]
PLAYS = list(product(SETTINGS, WORLDS)) if MANY else FEW_PLAYS


def _name(play: tuple[str, World]) -> str:
    return f"{play[0]}-{play[1].name}"


@pytest.fixture(params=PLAYS, ids=_name)
def machine(
    request: pytest.FixtureRequest, shared_node: MakeNode
) -> Iterator[type[StoryMachine]]:
    """What makes up stories of one node in one world."""
    setting, world = request.param
    setup = replace(SETTINGS[setting], ports=PORTS, jiffies_per_second=SLOW)
    mode = Mode(
        setup.gateway_path is GatewayPath.STACK,
        setup.existing_flows is ExistingFlows.REDECIDE,
    )
    node = shared_node(setup)
    node.reset()
    with Runner(node, SLOW) as runner:
        datapath = Datapath(Rules({}), Table(PORTS, mode), runner.port_of)
        yield _machine(node, Checker(runner, datapath), world)


def _machine(node: Node, checker: Checker, world: World) -> type[StoryMachine]:
    class Machine(StoryMachine):
        pass

    Machine.seat = staticmethod(lambda: (node, checker))
    Machine.world = world
    return Machine


def test_every_story_ends_alike_in_kernel_and_model(
    machine: type[StoryMachine],
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=MANY or FEW,
            stateful_step_count=STEPS,
            derandomize=not MANY,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        ),
    )
