"""
The kubelet's decision: what to do next for one pod.

What this is: pure.  ``next_step`` looks at what a pod asks and what runs, and names
one step; the kubelet takes it and asks again.  A lost or repeated event, or a crash
between two steps, changes nothing: the next look decides anew.
What this is not: effects (``runtime``) or reports (``podstatus``).

====================================  ==============================================
situation                             next step
====================================  ==============================================
deleted by the user                   ``Remove``
finished for good                     ``TearDown``, then ``Wait``
sandbox half made, or its holder died ``TearDown``
no sandbox                            ``MakeSandbox``
a container to start or restart       ``StartContainer``
a container to restart later          ``Wait`` until then
all as it should be                   ``Wait``
====================================  ==============================================

Units: times are seconds since the epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from outgate.lab.workload import Workload

MAX_RESTART_SECONDS = 30.0
HEALTHY_SECONDS = 60.0


class SandboxState(Enum):
    """The namespaces of a pod."""

    ABSENT = "absent"
    BROKEN = "broken"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Running:
    """A container that runs; *attempt* counts restarts."""

    attempt: int
    started_at: float


@dataclass(frozen=True, slots=True)
class Exited:
    """A container that ended; *code* is 128 plus the signal when one killed it."""

    attempt: int
    code: int
    started_at: float
    finished_at: float


ContainerState = Running | Exited


@dataclass(frozen=True, slots=True)
class ObservedPod:
    """What runs of a pod; a container that was never started is not listed."""

    sandbox: SandboxState
    addresses: tuple[str, ...]
    created_at: float
    containers: Mapping[str, ContainerState]
    previous: Mapping[str, Exited]


@dataclass(frozen=True, slots=True)
class MakeSandbox:
    """Make the pod's namespaces and cable them."""


@dataclass(frozen=True, slots=True)
class TearDown:
    """End what runs of the pod and take its namespaces away."""


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Start container *name* for the *attempt*-th time, counted from 0."""

    name: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Remove:
    """End the pod gracefully, forget it, and tell the API so."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before *until*, or before something changes when None."""

    until: float | None = None


Step = MakeSandbox | TearDown | StartContainer | Remove | Wait


def restart_at(exited: Exited) -> float:
    """
    When an ended container may start again.

    At once the first time and after a healthy run, then after 1, 2, 4 ... 30 s.

    >>> [restart_at(Exited(n, 1, 0.0, 10.0)) for n in (0, 1, 2, 9)]
    [10.0, 11.0, 12.0, 40.0]
    """
    if exited.attempt == 0 or exited.finished_at - exited.started_at > HEALTHY_SECONDS:
        return exited.finished_at
    pause = 2.0 ** min(exited.attempt - 1, 10)
    return exited.finished_at + min(pause, MAX_RESTART_SECONDS)


def restarts(policy: str, exited: Exited) -> bool:
    """Whether a pod's restart policy starts an ended container again."""
    return policy == "Always" or (policy == "OnFailure" and exited.code != 0)


def is_finished(workload: Workload, observed: ObservedPod) -> bool:
    """Whether every container has ended and none will start again."""
    states = [observed.containers.get(item.name) for item in workload.containers]
    return all(
        isinstance(state, Exited) and not restarts(workload.restart_policy, state)
        for state in states
    )


def next_step(workload: Workload, observed: ObservedPod, now: float) -> Step:
    """Decide one step; the table above is its meaning."""
    if workload.is_deleting:
        return Remove()
    if is_finished(workload, observed):
        absent = observed.sandbox is SandboxState.ABSENT
        return Wait() if absent else TearDown()
    if observed.sandbox is SandboxState.BROKEN:
        return TearDown()
    if observed.sandbox is SandboxState.ABSENT:
        return MakeSandbox()
    return _container_step(workload, observed, now)


def _container_step(workload: Workload, observed: ObservedPod, now: float) -> Step:
    later: list[float] = []
    for container in workload.containers:
        match observed.containers.get(container.name):
            case None:
                return StartContainer(container.name, 0)
            case Exited() as exited if restarts(workload.restart_policy, exited):
                if restart_at(exited) <= now:
                    return StartContainer(container.name, exited.attempt + 1)
                later.append(restart_at(exited))
    return Wait(min(later, default=None))
