"""
One API server, one agent, and the rows that there should be.

Run as a program (by ``scale``, through ``isolation.run_inside``) with a ``Plan`` as
JSON, it measures the first sync and then the plan's steps, and prints what was found
as JSON.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bench import isolation
from bench.agent import Agent, Server, row, running, until
from bench.objects import policy_number
from bench.plan import Plan
from bench.world import (
    PODS_PER_NODE,
    Pod,
    Policy,
    Rows,
    node_address,
    rows_of,
    rows_on,
)
from outgate.kernel.pinned import PinnedMap

T = TypeVar("T")

SETTLE_SECONDS = 180.0
CHANGE_SECONDS = 30.0
POLL_SECONDS = 0.0001
SAMPLES = 400


class Stage:
    """The running pair; *found* is what has been measured so far, by name."""

    def __init__(self, plan: Plan, server: Server, agent: Agent) -> None:
        self.plan = plan
        self.world = plan.world
        self.server = server
        self.agent = agent
        self.found: dict[str, Any] = {}
        self.expected = self.rows_on(self.world.all_pods())
        self.map: PinnedMap = agent.map()

    @property
    def is_gateway(self) -> bool:
        return self.plan.node < self.world.gateways

    @property
    def apps(self) -> Sequence[int]:
        """Return the applications whose pods have rows here."""
        if self.is_gateway:
            return self.world.apps_of(self.plan.node)
        first = self.plan.node * PODS_PER_NODE
        numbers = range(first, first + PODS_PER_NODE)
        return sorted({self.world.pod(number).app for number in numbers})

    def rows_on(self, pods: Iterable[Pod]) -> Rows:
        """Return what the map must hold when the cluster has *pods*."""
        policies = list(self.world.all_policies())
        numbers = {p.number: policy_number(p, self.world.kind) for p in policies}
        return rows_on(self.plan.node, pods, policies, numbers)

    def rows_of(self, pod: Pod, policy: Policy | None = None) -> Rows:
        """Return the rows of *pod* by *policy*, else by that of its application."""
        policy = policy or self.world.policy(pod.app)
        return rows_of(pod, policy, policy_number(policy, self.world.kind))

    def pods_of(self, app: int) -> list[Pod]:
        """Return the pods of *app* that have rows here, as the cluster started."""
        numbers = range(app, self.world.pods, self.world.policies)
        pods = map(self.world.pod, numbers)
        return [p for p in pods if self.is_gateway or p.node == self.plan.node]

    def wait_for(
        self,
        wanted: Rows,
        gone: Iterable[bytes] = (),
        seconds: float = CHANGE_SECONDS,
    ) -> int:
        """Return when (CLOCK_MONOTONIC, ns) *wanted* were there and *gone* not."""
        present: list[tuple[bytes, bytes | None]] = list(wanted.items())
        absent = [(key, None) for key in gone if key not in wanted]
        for key, value in (*spread(present), *spread(absent)):
            self._wait_for_row(key, value, seconds)
        return time.monotonic_ns()

    def _wait_for_row(self, key: bytes, value: bytes | None, seconds: float) -> None:
        process = self.agent.process
        until(lambda: row(self.map, key) == value, seconds, process, POLL_SECONDS)

    def settle(self) -> None:
        """Wait until the map holds exactly the expected rows."""
        until(
            lambda: dict(self.map.rows()) == self.expected,
            SETTLE_SECONDS,
            self.agent.process,
            0.02,
        )


def spread(items: list[T]) -> list[T]:
    """Return up to ``SAMPLES`` of *items* from end to end, the last among them."""
    step = max(-(-len(items) // SAMPLES), 1)
    return items[::-step]


def first_sync(stage: Stage) -> None:
    """Measure from the start of the process to the last row."""
    stage.wait_for(stage.expected, seconds=SETTLE_SECONDS)
    stage.settle()
    cost = stage.agent.cost
    stage.found |= {
        "rows": len(stage.expected),
        "first_sync_seconds": time.monotonic() - stage.agent.started,
        "first_sync_cpu_seconds": cost.cpu_seconds(),
        "peak_memory_mb": cost.memory("VmHWM"),
        "server_cpu_seconds": stage.server.cost.cpu_seconds(),
    }


def measure(plan: Plan, log: Path) -> dict[str, Any]:
    """Return what was found on one fresh node."""
    # Here, because steps need a Stage.
    from bench.steps import STEPS

    isolation.enter(str(node_address(plan.node)))
    with (
        tempfile.TemporaryDirectory() as folder,
        isolation.pod_cables(PODS_PER_NODE),
        running(Server(plan.world, Path(folder))) as server,
        running(Agent(plan.node, server.kubeconfig, log)) as agent,
    ):
        stage = Stage(plan, server, agent)
        first_sync(stage)
        for step in plan.steps:
            STEPS[step](stage)
        stage.found["memory_mb"] = agent.cost.memory("VmRSS")
        stage.found["peak_memory_mb"] = agent.cost.memory("VmHWM")
        return stage.found


if __name__ == "__main__":
    print(json.dumps(measure(Plan.from_json(sys.argv[1]), Path(sys.argv[2]))))
