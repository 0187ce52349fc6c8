"""``outgate lab up`` and ``down``: repeatable, and without a trace."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab.harness import Lab, new_name, processes_of, wait_until
from outgate.lab.process import lock_owner

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab")]

FORMER = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "work", "cluster": {"server": "https://192.0.2.1"}}],
    "users": [{"name": "me", "user": {"token": "abc"}}],
    "contexts": [{"name": "work", "context": {"cluster": "work", "user": "me"}}],
    "current-context": "work",
}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Lab]:
    """A lab that was never started, with a kubeconfig that has another cluster."""
    if os.geteuid() != 0:
        pytest.skip("the lab makes namespaces: needs root")
    config = tmp_path / "config"
    config.write_text(yaml.safe_dump(FORMER))
    made = Lab(new_name(), config)
    yield made
    made.outgate("down")


def machine() -> tuple[str, ...]:
    """What the machine's own namespace has: links, addresses, routes."""
    commands = ("ip -o link", "ip -o addr", "ip route", "ip -6 route")
    texts = [
        subprocess.run(c.split(), capture_output=True, text=True, check=True).stdout
        for c in commands
    ]
    return tuple(re.sub(r"_lft \d+sec|expires \d+sec", "", text) for text in texts)


def start(lab: Lab) -> subprocess.Popen[bytes]:
    """``lab up``, not waited for."""
    program = str(Path(sys.executable).with_name("outgate"))
    own = ["--name", lab.name, "--kubeconfig", str(lab.kubeconfig)]
    return subprocess.Popen(
        [program, "lab", "up", *own],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def assert_no_trace(lab: Lab, processes: set[int]) -> None:
    assert not lab.folder.root.exists()
    assert not lab.folder.lock.exists()
    assert lab.name not in Path("/proc/self/mountinfo").read_text()
    wait_until(lambda: not [p for p in processes if Path(f"/proc/{p}").exists()])
    assert yaml.safe_load(lab.kubeconfig.read_text()) == FORMER


@pytest.mark.parametrize("family", ["ipv4", "dual", "ipv6"])
def test_down_after_a_killed_first_process_leaves_no_trace(
    own: Lab, family: str
) -> None:
    before = machine()
    own.outgate("up", "--ip-family", family)
    assert machine() == before
    processes = set(processes_of(own.first_process()))
    assert len(processes) > 10

    os.kill(own.first_process(), signal.SIGKILL)
    wait_until(lambda: lock_owner(own.folder.lock) is None)
    said = own.outgate("down").stdout

    assert "what it left is removed" in said
    assert_no_trace(own, processes)
    assert machine() == before


def test_up_on_a_running_lab_changes_nothing(own: Lab) -> None:
    own.outgate("up")
    before = processes_of(own.first_process())
    own.outgate("up")

    assert processes_of(own.first_process()) == before
    assert own.outgate("status").returncode == 0


@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.6, 1.0])
def test_down_works_however_early_the_lab_was_killed(own: Lab, seconds: float) -> None:
    starter = start(own)
    wait_until(lambda: lock_owner(own.folder.lock) is not None)
    time.sleep(seconds)
    first = own.first_process()
    processes = set(processes_of(first))
    os.kill(first, signal.SIGKILL)
    starter.wait(20)

    own.outgate("down")

    assert_no_trace(own, processes)


def test_down_twice_says_that_nothing_runs(own: Lab) -> None:
    own.outgate("down")
    text = own.outgate("down").stdout

    assert "no lab" in text


@pytest.mark.parametrize(
    ("option", "value", "runs"),
    [("--network", "bridge", "ptp"), ("--ip-family", "dual", "ipv4")],
)
def test_up_with_another_wish_is_refused_while_it_runs(
    own: Lab, option: str, value: str, runs: str
) -> None:
    starter = start(own)
    wait_until(lambda: lock_owner(own.folder.lock) is not None)
    done = own.outgate("up", option, value, check=False)
    own.outgate("down")
    starter.wait(20)

    assert done.returncode == 1
    assert f"{option}: the lab runs with {runs}, not {value}" in done.stderr


def test_up_with_another_family_is_refused_over_the_objects_of_before(
    own: Lab,
) -> None:
    own.outgate("up", "--ip-family", "ipv6")
    os.kill(own.first_process(), signal.SIGKILL)
    wait_until(lambda: lock_owner(own.folder.lock) is None)
    done = own.outgate("up", check=False)

    assert done.returncode == 1
    assert "--ip-family: the lab that ended had ipv6" in done.stderr


def test_bridge_network_cables_pods(own: Lab) -> None:
    own.outgate("up", "--network", "bridge")
    pods = Path(__file__).parents[2] / "deploy/lab/net-tshoot.yaml"
    own.kubectl("apply", "-f", str(pods))
    own.kubectl("wait pod --for=condition=Ready -l name=net-tshoot")

    assert own.seen_by_echo("net-tshoot-worker") == "172.18.0.4"
