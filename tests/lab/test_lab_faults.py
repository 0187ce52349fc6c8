"""What a killed or stopped part of the lab changes: nothing for pods and traffic."""

import json
import os
import signal

import pytest

from lab.egress import WORKER, agent_process
from lab.harness import POD_ADDRESSES, Lab, wait_until
from lab.test_lab_pods import pod

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab")]

DOWNLOAD_BYTES = 2_000_000_000


def running_pods(lab: Lab) -> dict[str, tuple[str, str, int]]:
    """Each pod with its container's id and start, and its restarts."""
    listed = json.loads(lab.kubectl("get", "pod", "-A", "-o", "json"))
    return {
        item["metadata"]["name"]: (
            status["containerID"],
            status["state"]["running"]["startedAt"],
            status["restartCount"],
        )
        for item in listed["items"]
        for status in item["status"]["containerStatuses"]
        if "running" in status["state"]
    }


def api_answers(lab: Lab) -> bool:
    return lab.try_kubectl("get", "nodes", "--request-timeout=1s").returncode == 0


def test_killed_control_plane_changes_nothing_for_a_running_download(lab: Lab) -> None:
    url = f"http://echo/download?bytes={DOWNLOAD_BYTES}"
    command = f"wget -qO- '{url}' | sha256sum; sleep 1000"
    lab.kubectl("apply -f -", text=pod("loader", command))
    lab.kubectl("wait pod/loader --for=condition=Ready --timeout=20s")
    before = running_pods(lab)

    os.kill(lab.service("control-plane"), signal.SIGKILL)
    wait_until(lambda: api_answers(lab))
    wait_until(lambda: lab.kubectl("logs loader") != "", seconds=60.0)

    after = running_pods(lab)
    digest = lab.kubectl("logs loader").split()[0]
    url = f"http://echo/sha256?bytes={DOWNLOAD_BYTES}"
    wanted = lab.kubectl("exec", "loader", "--", "wget", "-qO-", url)
    lab.kubectl("delete pod loader --timeout=20s")
    assert before == after
    assert digest == wanted.strip()


def test_stopped_control_plane_stops_no_traffic(lab: Lab) -> None:
    lab.kubectl(
        "apply",
        "-f",
        "-",
        text=pod("asker", "while :; do wget -T 2 -qO- echo; sleep 0.1; done"),
    )
    lab.kubectl("wait pod/asker --for=condition=Ready --timeout=20s")
    control_plane = lab.service("control-plane")
    os.kill(control_plane, signal.SIGSTOP)
    try:
        logs = next(lab.folder.pods.glob("*/containers/main/0/log"))
        size = logs.stat().st_size
        wait_until(lambda: logs.stat().st_size > size + 200)
    finally:
        os.kill(control_plane, signal.SIGCONT)
    wait_until(lambda: api_answers(lab))
    lab.kubectl("delete pod asker --timeout=20s")


def test_killed_agent_comes_back_by_itself(lab: Lab) -> None:
    agent = lab.agent_on(WORKER)
    form = "jsonpath={.status.containerStatuses[0].restartCount}"
    before = int(lab.kubectl("-n", "cilium", "get", "pod", agent, "-o", form))

    os.kill(agent_process(lab, WORKER), signal.SIGKILL)

    def restarts() -> int:
        return int(lab.kubectl("-n", "cilium", "get", "pod", agent, "-o", form))

    wait_until(lambda: restarts() == before + 1)
    ready = ("--for=condition=Ready", "--timeout=30s")
    lab.kubectl("-n", "cilium", "wait", f"pod/{agent}", *ready)


def test_deleted_agent_is_replaced(lab: Lab) -> None:
    former = lab.agent_on("k8s-guide-worker")
    lab.kubectl("-n", "cilium", "delete", "pod", former, "--timeout=20s")

    wait_until(lambda: lab.agent_on("k8s-guide-worker") not in ("", former))
    agent = lab.agent_on("k8s-guide-worker")
    ready = ("--for=condition=Ready", "--timeout=30s")
    lab.kubectl("-n", "cilium", "wait", f"pod/{agent}", *ready)


def test_agent_pod_is_on_its_node_with_its_bpffs(lab: Lab) -> None:
    agent = lab.agent_on("k8s-guide-worker2")
    command = "hostname; ls /sys/fs/bpf/tc/globals"
    text = lab.kubectl("-n", "cilium", "exec", agent, "--", "sh", "-c", command)

    assert text.split()[0] == "k8s-guide-worker2"
    assert "cilium_egress_v4" in text.split()


def test_deleted_node_is_registered_again_and_its_pods_live_on(lab: Lab) -> None:
    before = running_pods(lab)
    lab.kubectl("delete node", WORKER)

    lab.kubectl(f"wait node/{WORKER} --for=create --timeout=10s")
    lab.kubectl(f"wait node/{WORKER} --for=condition=Ready --timeout=10s")
    assert running_pods(lab) == before
    assert lab.outgate("status").returncode == 0


def test_net_tshoot_pods_still_stand(lab: Lab) -> None:
    assert POD_ADDRESSES.keys() <= running_pods(lab).keys()
