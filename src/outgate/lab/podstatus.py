"""
The status of a Pod, as a kubelet reports it.

What this is: pure; what a pod asks and what runs, in; the ``status`` object of the
Kubernetes API, out.  Conditions keep the time of their last change.
What this is not: the decision what to do (``lifecycle``).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from outgate.lab.lifecycle import (
    ContainerState,
    Exited,
    ObservedPod,
    Running,
    SandboxState,
    is_finished,
    restarts,
)
from outgate.lab.workload import Container, Json, Workload

RUNTIME = "outgate-lab"


def timestamp(seconds: float) -> str:
    """
    A time as the API writes it.

    >>> timestamp(0.0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod_status(
    workload: Workload,
    observed: ObservedPod,
    host_addresses: tuple[str, ...],
    previous: Json,
    now: float,
    not_ready: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """
    The whole ``status``; *previous* is the one that the API holds now.

    *not_ready* names the containers whose probe did not succeed.
    """
    phase = _phase(workload, observed)
    statuses = [
        _container_status(
            workload, container, observed, container.name not in not_ready
        )
        for container in workload.containers
    ]
    finished = phase in ("Succeeded", "Failed")
    ready = not finished and all(status["ready"] for status in statuses)
    cabled = observed.sandbox is SandboxState.READY
    status: dict[str, Any] = {
        "phase": phase,
        "hostIP": host_addresses[0],
        "hostIPs": [{"ip": address} for address in host_addresses],
        "startTime": previous.get("startTime") or timestamp(now),
        "conditions": _conditions(
            {
                "PodReadyToStartContainers": cabled,
                "Initialized": True,
                "Ready": ready,
                "ContainersReady": ready,
                "PodScheduled": True,
            },
            "PodCompleted" if finished else "ContainersNotReady",
            previous,
            now,
        ),
        "containerStatuses": statuses,
        "qosClass": previous.get("qosClass", "BestEffort"),
    }
    addresses = observed.addresses
    if workload.uses_host_network:
        addresses = host_addresses
    if addresses:
        status["podIP"] = addresses[0]
        status["podIPs"] = [{"ip": address} for address in addresses]
    return status


def _phase(workload: Workload, observed: ObservedPod) -> str:
    if is_finished(workload, observed):
        codes = [
            state.code
            for state in observed.containers.values()
            if isinstance(state, Exited)
        ]
        return "Failed" if any(codes) else "Succeeded"
    started = len(observed.containers) == len(workload.containers)
    return "Running" if started else "Pending"


def _conditions(
    wanted: Mapping[str, bool], reason: str, previous: Json, now: float
) -> list[dict[str, Any]]:
    former = {item["type"]: item for item in previous.get("conditions") or ()}
    conditions = []
    for kind, value in wanted.items():
        text = str(value)
        condition: dict[str, Any] = {"type": kind, "status": text}
        if not value and kind in ("Ready", "ContainersReady"):
            condition["reason"] = reason
        before = former.get(kind, {})
        unchanged = before.get("status") == text
        condition["lastTransitionTime"] = (
            before.get("lastTransitionTime") if unchanged else None
        ) or timestamp(now)
        conditions.append(condition)
    return conditions


def container_id(workload: Workload, name: str, attempt: int) -> str:
    """The name of one run of a container."""
    return f"{RUNTIME}://{workload.uid}/{name}/{attempt}"


def _container_status(
    workload: Workload, container: Container, observed: ObservedPod, passes: bool
) -> dict[str, Any]:
    state = observed.containers.get(container.name)
    attempt = state.attempt if state is not None else 0
    last = observed.previous.get(container.name)
    status: dict[str, Any] = {
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "restartCount": attempt,
        "ready": isinstance(state, Running) and passes,
        "started": isinstance(state, Running),
        "state": {},
        "lastState": {},
    }
    if state is None:
        status["state"] = {"waiting": {"reason": "ContainerCreating"}}
        return status
    status["containerID"] = container_id(workload, container.name, attempt)
    if isinstance(state, Exited) and restarts(workload.restart_policy, state):
        status["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
        last = state
    else:
        status["state"] = _state(workload, container.name, state)
    if last is not None:
        status["lastState"] = _state(workload, container.name, last)
    return status


def _state(workload: Workload, name: str, state: ContainerState) -> dict[str, Any]:
    match state:
        case Running():
            return {"running": {"startedAt": timestamp(state.started_at)}}
        case Exited():
            return {
                "terminated": {
                    "exitCode": state.code,
                    "reason": "Error" if state.code else "Completed",
                    "startedAt": timestamp(state.started_at),
                    "finishedAt": timestamp(state.finished_at),
                    "containerID": container_id(workload, name, state.attempt),
                }
            }
