"""The kubelet's decision: the table of ``lifecycle``, row by row."""

from dataclasses import replace
from typing import Any

import pytest

from outgate.lab.lifecycle import (
    ContainerState,
    Exited,
    MakeSandbox,
    ObservedPod,
    Remove,
    Running,
    SandboxState,
    StartContainer,
    Step,
    TearDown,
    Wait,
    next_step,
)
from outgate.lab.workload import Workload, parse_workload

NOW = 1000.0


def workload(**spec: Any) -> Workload:
    return parse_workload(
        {
            "metadata": {"name": "a", "namespace": "default", "uid": "u1"},
            "spec": {"nodeName": "n", "containers": [{"name": "main"}], **spec},
        }
    )


def observed(
    state: SandboxState = SandboxState.READY, **containers: ContainerState
) -> ObservedPod:
    return ObservedPod(state, ("10.0.0.2",), NOW, containers, {})


def exited(code: int, attempt: int = 0, finished: float = NOW) -> Exited:
    return Exited(attempt, code, finished - 1, finished)


READY, ABSENT, BROKEN = SandboxState.READY, SandboxState.ABSENT, SandboxState.BROKEN


@pytest.mark.parametrize(
    ("policy", "seen", "step"),
    [
        ("Always", observed(ABSENT), MakeSandbox()),
        ("Always", observed(BROKEN), TearDown()),
        ("Always", observed(READY), StartContainer("main", 0)),
        ("Always", observed(READY, main=Running(0, NOW)), Wait()),
        ("Always", observed(BROKEN, main=exited(137)), TearDown()),
        ("Always", observed(ABSENT, main=exited(137)), MakeSandbox()),
        ("Always", observed(READY, main=exited(0)), StartContainer("main", 1)),
        ("Always", observed(READY, main=exited(1, attempt=3)), Wait(NOW + 4)),
        ("OnFailure", observed(READY, main=exited(1)), StartContainer("main", 1)),
        ("OnFailure", observed(READY, main=exited(0)), TearDown()),
        ("Never", observed(READY, main=exited(1)), TearDown()),
        ("Never", observed(ABSENT, main=exited(1)), Wait()),
    ],
)
def test_next_step_follows_the_table(
    policy: str, seen: ObservedPod, step: Step
) -> None:
    assert next_step(workload(restartPolicy=policy), seen, NOW) == step


def test_next_step_removes_a_deleted_pod_whatever_runs() -> None:
    pod = replace(workload(), is_deleting=True)

    assert next_step(pod, observed(READY, main=Running(0, NOW)), NOW) == Remove()


def test_next_step_starts_the_second_container_while_the_first_waits() -> None:
    pod = workload(containers=[{"name": "main"}, {"name": "side"}])
    seen = observed(READY, main=exited(1, attempt=5))

    assert next_step(pod, seen, NOW) == StartContainer("side", 0)


def test_next_step_restarts_at_once_after_a_healthy_run() -> None:
    healthy = Exited(9, 1, NOW - 3600, NOW)

    assert next_step(workload(), observed(main=healthy), NOW) == StartContainer(
        "main", 10
    )
