"""The status that the lab's kubelet reports."""

from typing import Any

from outgate.lab.lifecycle import Exited, ObservedPod, Running, SandboxState
from outgate.lab.podstatus import pod_status
from outgate.lab.workload import Workload, parse_workload

HOST = ("172.18.0.4", "fc00:f853:ccd:e793::4")


def workload(**spec: Any) -> Workload:
    return parse_workload(
        {
            "metadata": {"name": "a", "namespace": "default", "uid": "u1"},
            "spec": {"nodeName": "n", "containers": [{"name": "main"}], **spec},
        }
    )


def seen(
    state: Running | Exited | None, *, previous: Exited | None = None
) -> ObservedPod:
    return ObservedPod(
        SandboxState.READY,
        ("10.0.1.42",),
        0.0,
        {} if state is None else {"main": state},
        {} if previous is None else {"main": previous},
    )


def conditions(status: dict[str, Any]) -> dict[str, str]:
    return {item["type"]: item["status"] for item in status["conditions"]}


def test_pod_status_of_a_running_pod_is_ready() -> None:
    status = pod_status(workload(), seen(Running(0, 5.0)), HOST, {}, 10.0)

    assert status["phase"] == "Running"
    assert (status["podIP"], status["hostIP"]) == ("10.0.1.42", HOST[0])
    assert set(conditions(status).values()) == {"True"}


def test_pod_status_before_the_first_start_is_pending() -> None:
    status = pod_status(workload(), seen(None), HOST, {}, 10.0)

    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"] == {
        "waiting": {"reason": "ContainerCreating"}
    }


def test_pod_status_of_a_failing_probe_is_running_and_not_ready() -> None:
    running = seen(Running(0, 5.0))
    status = pod_status(workload(), running, HOST, {}, 10.0, frozenset({"main"}))

    assert status["phase"] == "Running"
    assert conditions(status)["Ready"] == "False"


def test_pod_status_between_restarts_shows_the_last_exit() -> None:
    status = pod_status(workload(), seen(Exited(2, 3, 5.0, 6.0)), HOST, {}, 10.0)

    container = status["containerStatuses"][0]
    assert container["restartCount"] == 2
    assert container["state"] == {"waiting": {"reason": "CrashLoopBackOff"}}
    assert container["lastState"]["terminated"]["exitCode"] == 3


def test_pod_status_of_a_finished_pod_tells_how_it_ended() -> None:
    for code, phase in ((0, "Succeeded"), (1, "Failed")):
        ended = seen(Exited(0, code, 5.0, 6.0))
        status = pod_status(workload(restartPolicy="Never"), ended, HOST, {}, 10.0)

        assert status["phase"] == phase
        assert conditions(status)["Ready"] == "False"


def test_pod_status_keeps_the_time_of_an_unchanged_condition() -> None:
    first = pod_status(workload(), seen(Running(0, 5.0)), HOST, {}, 10.0)
    again = pod_status(workload(), seen(Running(0, 5.0)), HOST, first, 99.0)

    assert again == first


def test_pod_status_of_a_host_network_pod_has_the_nodes_addresses() -> None:
    status = pod_status(workload(hostNetwork=True), seen(None), HOST, {}, 10.0)

    assert status["podIP"] == HOST[0]
    assert [item["ip"] for item in status["podIPs"]] == list(HOST)
