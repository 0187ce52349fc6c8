"""Pods of the lab: their addresses, their life, and what kubectl can do with them."""

import json

import pytest

from lab.harness import POD_ADDRESSES, PROJECT, Lab, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab")]


def pod(name: str, command: str = "", **spec: object) -> str:
    """A Pod as JSON for ``kubectl apply``; *command* runs in a shell."""
    container: dict[str, object] = {"name": "main", "image": "any"}
    if command:
        container["command"] = ["sh", "-c", command]
    annotations = spec.pop("annotations", {})
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [container],
                **spec,
            },
        }
    )


def test_nodes_are_ready(lab: Lab) -> None:
    text = lab.kubectl("get nodes --no-headers")

    assert [line.split()[:2] for line in text.splitlines()] == [
        ["k8s-guide-control-plane", "Ready"],
        ["k8s-guide-worker", "Ready"],
        ["k8s-guide-worker2", "Ready"],
    ]


def test_pods_have_the_addresses_of_the_guide(lab: Lab) -> None:
    fields = "{.metadata.name} {.status.podIP} {.status.hostIP}"
    form = f'jsonpath={{range .items[*]}}{fields}{{"\\n"}}{{end}}'
    text = lab.kubectl("get pod -l name=net-tshoot -o", form)

    seen = {line.split()[0]: tuple(line.split()[1:]) for line in text.splitlines()}
    assert seen == POD_ADDRESSES


@pytest.mark.parametrize("name", POD_ADDRESSES)
def test_pod_without_a_policy_leaves_under_its_node_address(
    lab: Lab, name: str
) -> None:
    assert lab.seen_by_echo(name) == POD_ADDRESSES[name][1]


LISTENER = """
import socket
server = socket.create_server(("", 80))
print("listens", flush=True)
print(server.accept()[1][0])
"""


def test_pods_reach_each_other_under_their_own_addresses(lab: Lab) -> None:
    text = pod("listener", f"python3 -c '{LISTENER}'", restartPolicy="Never")
    lab.kubectl("apply -f -", text=text)
    lab.kubectl("wait pod/listener --for=condition=Ready --timeout=20s")
    wait_until(lambda: "listens" in lab.kubectl("logs listener"))
    address = lab.kubectl("get pod listener -o jsonpath={.status.podIP}")

    lab.try_kubectl(f"exec net-tshoot-worker -- wget -t 1 -qO- {address}")
    wait_until(lambda: len(lab.kubectl("logs listener").split()) > 1)
    seen = lab.kubectl("logs listener").split()[1]
    lab.kubectl("delete pod listener --timeout=20s")
    assert seen == POD_ADDRESSES["net-tshoot-worker"][0]


@pytest.mark.parametrize("code", [0, 7, 130])
def test_exec_exits_with_the_code_of_its_command(lab: Lab, code: int) -> None:
    done = lab.try_kubectl("exec net-tshoot-worker -- sh -c", f"exit {code}")

    assert done.returncode == code


def test_exec_passes_standard_input_on(lab: Lab) -> None:
    text = "many words\n" * 20_000
    done = lab.kubectl("exec", "-i", "net-tshoot-worker", "--", "cat", text=text)

    assert done == text


def test_exec_of_a_missing_program_says_so(lab: Lab) -> None:
    done = lab.try_kubectl("exec", "net-tshoot-worker", "--", "no-such-program")

    assert done.returncode == 127
    assert "no-such-program" in done.stderr


def test_pod_writes_do_not_reach_the_machine(lab: Lab) -> None:
    mark = PROJECT / f"written-by-{lab.name}"
    lab.kubectl("exec", "net-tshoot-worker", "--", "touch", str(mark))

    assert not mark.exists()


def test_applied_pod_runs_on_a_node_of_the_schedulers_choice(lab: Lab) -> None:
    lab.kubectl("apply -f -", text=pod("fresh"))
    lab.kubectl("wait pod/fresh --for=condition=Ready --timeout=20s")

    address = lab.seen_by_echo("fresh")
    host = lab.kubectl("get pod fresh -o jsonpath={.status.hostIP}")
    lab.kubectl("delete pod fresh --timeout=20s")
    assert address == host


def test_deleted_pod_gives_its_address_back(lab: Lab) -> None:
    wish = {"lab.outgate.io/ip": "10.0.1.200"}
    for _ in range(2):
        text = pod("held", annotations=wish, nodeName="k8s-guide-worker")
        lab.kubectl("apply -f -", text=text)
        lab.kubectl("wait pod/held --for=condition=Ready --timeout=20s")
        lab.kubectl("delete pod held --timeout=20s")

    assert not list(lab.folder.networks.rglob("10.0.1.200"))


def test_pod_whose_address_is_taken_says_why_it_waits(lab: Lab) -> None:
    wish = {"lab.outgate.io/ip": "10.0.1.42"}
    text = pod("late", annotations=wish, nodeName="k8s-guide-worker")
    lab.kubectl("apply -f -", text=text)

    def events() -> str:
        return lab.kubectl("get events --field-selector=involvedObject.name=late")

    wait_until(lambda: "FailedCreatePodSandBox" in events())
    message = events()
    lab.kubectl("delete pod late --timeout=20s")
    assert "10.0.1.42" in message


def test_pod_that_ends_well_is_completed(lab: Lab) -> None:
    text = pod("task", "echo done; echo bad >&2", restartPolicy="Never")
    lab.kubectl("apply -f -", text=text)
    path = "jsonpath={.status.phase}=Succeeded"
    lab.kubectl("wait", "pod/task", f"--for={path}", "--timeout=20s")

    printed = lab.kubectl("logs task")
    lab.kubectl("delete pod task --timeout=20s")
    assert sorted(printed.split()) == ["bad", "done"]


def test_crashing_container_is_restarted_with_its_former_log_kept(lab: Lab) -> None:
    lab.kubectl("apply -f -", text=pod("crash", "echo run; sleep 0.3; exit 3"))

    def restarts() -> int:
        form = "jsonpath={.status.containerStatuses[0].restartCount}"
        return int(lab.kubectl("get", "pod", "crash", "-o", form) or 0)

    wait_until(lambda: restarts() >= 2)
    form = "jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}"
    code = lab.kubectl("get", "pod", "crash", "-o", form)
    former = lab.kubectl("logs crash --previous")
    lab.kubectl("delete pod crash --timeout=20s")
    assert (code, former) == ("3", "run\n")


def test_deleted_container_gets_its_time_to_end(lab: Lab) -> None:
    command = "trap 'echo goodbye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    lab.kubectl("apply -f -", text=pod("polite", command))
    lab.kubectl("wait pod/polite --for=condition=Ready --timeout=20s")
    wait_until(lambda: "up" in lab.kubectl("logs polite"))
    lab.kubectl("delete", "pod", "polite", "--wait=false")

    def is_gone() -> bool:
        return lab.try_kubectl("get", "pod", "polite").returncode != 0

    wait_until(is_gone, seconds=5.0)


def events_about(lab: Lab, name: str) -> str:
    """The messages of the events about pod *name*."""
    form = "jsonpath={.items[*].message}"
    selected = f"--field-selector=involvedObject.name={name}"
    return lab.kubectl("get events", selected, "-o", form)


def test_pod_on_an_unknown_node_is_told_so_and_can_be_deleted(lab: Lab) -> None:
    lab.kubectl("apply -f -", text=pod("stray", nodeName="nowhere"))
    wait_until(lambda: "has no node nowhere" in events_about(lab, "stray"))

    lab.kubectl("delete pod stray --timeout=10s")


def test_pod_that_fits_no_node_is_told_so(lab: Lab) -> None:
    lab.kubectl("apply -f -", text=pod("unfit", nodeSelector={"disk": "ssd"}))
    wait_until(lambda: "with disk=ssd" in events_about(lab, "unfit"))

    lab.kubectl("delete pod unfit --timeout=10s")


def test_logs_of_a_run_that_never_was_are_a_bad_request(lab: Lab) -> None:
    done = lab.try_kubectl("logs net-tshoot-worker --previous")

    assert "BadRequest" in done.stderr
    assert 'previous terminated container "net-tshoot"' in done.stderr
