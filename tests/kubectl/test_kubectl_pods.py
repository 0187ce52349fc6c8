"""What a user does with running pods: exec, logs, delete."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from kubectl.driver import WEB, Kubectl


def wait_until(is_true: Callable[[], bool]) -> bool:
    """Whether it came true within five seconds."""
    deadline = time.monotonic() + 5
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_true()


def test_delete_of_a_running_pod_waits_for_its_node(kubectl: Kubectl) -> None:
    deleting = kubectl.start("delete", "pod", "web")
    kubectl("wait", "--for=jsonpath={.metadata.deletionTimestamp}", "pod/web")

    assert "Terminating" in kubectl("get", "pod", "web")
    assert deleting.poll() is None
    kubectl("delete", "pod", "web", "--grace-period=0", "--force")
    assert deleting.wait(10) == 0


def test_wait_for_delete_sees_the_end(kubectl: Kubectl) -> None:
    waiting = kubectl.start("wait", "--for=delete", "pod/web", "--timeout=10s")
    kubectl("delete", "pod", "web", "--grace-period=0", "--force")

    assert waiting.wait(10) == 0


def test_delete_waits_for_finalizers(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "held")
    kubectl("patch", "cm", "held", "-p", '{"metadata":{"finalizers":["a.test/hold"]}}')
    kubectl("delete", "cm", "held", "--wait=false")

    assert "deletionTimestamp" in kubectl("get", "cm", "held", "-o", "yaml")
    kubectl(
        "patch", "cm", "held", "-p", '{"metadata":{"finalizers":null}}', "--type=merge"
    )
    assert kubectl.run("get", "cm", "held").code == 1


def test_delete_by_selector_and_by_file(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "a")
    kubectl("label", "cm", "a", "x=y")

    assert "deleted" in kubectl("delete", "cm", "-l", "x=y")
    force = ("--grace-period=0", "--force")
    assert "force deleted" in kubectl("delete", "-f", WEB, *force)


def test_delete_of_a_namespace_removes_what_is_in_it(kubectl: Kubectl) -> None:
    kubectl("delete", "pod", "web", "--grace-period=0", "--force")
    kubectl("create", "configmap", "inside")
    kubectl("delete", "namespace", kubectl.namespace)

    assert kubectl("get", "cm", "-o", "name") == ""


def test_exec_separates_the_streams(kubectl: Kubectl) -> None:
    answer = kubectl.run("exec", "web", "--", "sh", "-c", "echo out; echo err >&2")

    assert (answer.code, answer.out, answer.err) == (0, "out\n", "err\n")


def test_exec_passes_the_exit_code_on(kubectl: Kubectl) -> None:
    assert kubectl.run("exec", "web", "--", "sh", "-c", "exit 7").code == 7


def test_exec_reads_stdin_to_its_end(kubectl: Kubectl) -> None:
    text = "line\n" * 20_000
    answer = kubectl.run("exec", "-i", "web", "--", "wc", "-c", stdin=text)

    assert answer.out.strip() == str(len(text))


def test_exec_on_a_terminal_is_one(kubectl: Kubectl) -> None:
    """``script`` gives kubectl a terminal, whose size must arrive."""
    inner = " ".join([*kubectl.base, "exec", "-it", "web", "--", "sh", "-c"])
    probe = "'test -t 0 && sleep 0.3 && stty size'"
    done = subprocess.run(
        ["script", "-qec", f"stty rows 31 cols 99; {inner} {probe}", "/dev/null"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert "31 99" in done.stdout


def test_exec_ends_with_its_client(kubectl: Kubectl) -> None:
    client = kubectl.start("exec", "web", "--", "sh", "-c", "echo $$; exec sleep 60")
    assert client.stdout is not None
    command = Path("/proc", client.stdout.readline().strip())
    assert command.exists()
    client.kill()
    client.wait(5)

    assert wait_until(lambda: not command.exists())


def test_exec_ends_although_stdin_is_open(kubectl: Kubectl) -> None:
    words = [*kubectl.base, "exec", "-i", "web", "--", "sh", "-c", "exit 3"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as client:
        assert client.wait(5) == 3


def test_exec_of_a_missing_program_is_an_error(kubectl: Kubectl) -> None:
    answer = kubectl.run("exec", "web", "--", "no-such-program")

    assert answer.code == 1
    assert "not found in $PATH" in answer.err


def test_logs_tail_follow_by_container(kubectl: Kubectl) -> None:
    assert len(kubectl("logs", "web").splitlines()) == 10
    assert kubectl("logs", "web", "--tail=1") == "main line 10"
    followed = kubectl("logs", "-f", "web", "-c", "main", "--tail=1")
    assert followed.splitlines() == ["main line 10", "main line 11", "main line 12"]
    assert kubectl.run("logs", "web", "-c", "other").code == 1
