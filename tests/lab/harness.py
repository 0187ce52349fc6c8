"""
A lab of the tests' own, driven as users drive one: ``outgate lab`` and ``kubectl``.

What it is: the two commands with the lab's name and kubeconfig filled in, and a few
questions that stories ask often.
What it is not: a way around the product; nothing here reads the lab's memory, apart
from the pids that a story kills.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from outgate.lab.process import lock_owner
from outgate.lab.settings import BASE, StateFolder

PROJECT = Path(__file__).parents[2]
PREFIX = "test-"
POD_ADDRESSES = {
    "net-tshoot-control-plane": ("10.0.0.174", "172.18.0.3"),
    "net-tshoot-worker": ("10.0.1.42", "172.18.0.4"),
    "net-tshoot-worker2": ("10.0.2.86", "172.18.0.5"),
}


@dataclass(frozen=True, slots=True)
class Side:
    """
    What labs have of one IP family.

    *server* is the name by which pods ask the server outside over this family;
    *network* is that of the nodes and the server, which the policy covers;
    *pods* maps the net-tshoot pods to their own and their node's address.
    """

    version: int
    network: str
    server: str
    server_address: str
    egress_ip: str
    policy: Path
    pods: Mapping[str, tuple[str, str]]

    def all_seen(self, lab: "Lab") -> list[str]:
        """The address that the server outside sees, for each of the three pods."""
        return [lab.seen_by_echo(name, self.server) for name in self.pods]

    @property
    def nodes(self) -> list[str]:
        """The address of each pod's node."""
        return [node for _, node in self.pods.values()]


SIDE4 = Side(
    version=4,
    network="172.18.0.0/16",
    server="echo",
    server_address="172.18.0.100",
    egress_ip="172.18.0.5",
    policy=PROJECT / "deploy/lab/egress-all.yaml",
    pods=POD_ADDRESSES,
)
SIDE6 = Side(
    version=6,
    network="fc00:f853:ccd:e793::/64",
    server="echo6",
    server_address="fc00:f853:ccd:e793::100",
    egress_ip="fc00:f853:ccd:e793::5",
    policy=PROJECT / "deploy/lab/egress-all-ipv6.yaml",
    pods={
        "net-tshoot-control-plane": ("fd00:10::174", "fc00:f853:ccd:e793::3"),
        "net-tshoot-worker": ("fd00:10:0:1::42", "fc00:f853:ccd:e793::4"),
        "net-tshoot-worker2": ("fd00:10:0:2::86", "fc00:f853:ccd:e793::5"),
    },
)


@dataclass(frozen=True, slots=True)
class Lab:
    """One lab with its kubeconfig."""

    name: str
    kubeconfig: Path

    @property
    def folder(self) -> StateFolder:
        return StateFolder.of(self.name)

    def outgate(
        self, *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``outgate lab <arguments>`` for this lab."""
        program = str(Path(sys.executable).with_name("outgate"))
        own = ("--name", self.name, "--kubeconfig", str(self.kubeconfig))
        return self._run([program, "lab", *arguments, *own], check=check)

    def try_kubectl(
        self, line: str, *more: str, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl with the words of *line*, then *more*; look at the exit code."""
        return self._run(["kubectl", *line.split(), *more], text=text, check=False)

    def kubectl(self, line: str, *more: str, text: str = "") -> str:
        """Run kubectl, which must succeed; returns what it printed."""
        done = self.try_kubectl(line, *more, text=text)
        assert done.returncode == 0, f"kubectl {line} {more}: {done.stderr}"
        return done.stdout

    def _run(
        self, command: list[str], *, text: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            input=text,
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def seen_by_echo(self, pod: str, server: str = "echo") -> str:
        """The address under which the server outside sees *pod*."""
        return self.kubectl(f"exec {pod} -- wget -T 5 -q -O - {server}").strip()

    def explain(self, *arguments: str) -> str:
        """What ``outgate explain`` prints about this lab."""
        program = str(Path(sys.executable).with_name("outgate"))
        return self._run([program, "explain", *arguments]).stdout

    def agent_on(self, node: str) -> str:
        """The name of the agent pod that serves *node* and is not going away."""
        listed = json.loads(
            self.kubectl(
                "-n cilium get pod -l k8s-app=cilium -o json",
                f"--field-selector=spec.nodeName={node}",
            )
        )
        names = [
            pod["metadata"]["name"]
            for pod in listed["items"]
            if "deletionTimestamp" not in pod["metadata"]
        ]
        return names[0] if names else ""

    def first_process(self) -> int:
        """The pid of the lab's first process, outside."""
        owner = lock_owner(self.folder.lock)
        assert owner is not None
        return owner

    def service(self, name: str) -> int:
        """The pid, outside, of a supervised process of the lab."""
        record = json.loads((self.folder.services / f"{name}.json").read_text())
        inside = str(record["pid"])
        for pid, inner in processes_of(self.first_process()).items():
            if inner == inside:
                return pid
        raise AssertionError(f"{name} does not run")


def new_name() -> str:
    """A lab name that tells which test run made it."""
    return f"{PREFIX}{os.getpid()}-{uuid.uuid4().hex[:6]}"


def left_behind() -> list[str]:
    """The names of labs whose test run has ended without taking them down."""
    locks = BASE.glob(f"{PREFIX}*.lock") if BASE.exists() else ()
    names = [lock.stem for lock in locks]
    return [name for name in names if not Path("/proc", name.split("-")[1]).exists()]


@contextlib.contextmanager
def started_lab(kubeconfig: Path, *options: str) -> Iterator[Lab]:
    """Start a lab with the definitions and the three pods; take it down afterwards."""
    for name in left_behind():
        Lab(name, kubeconfig).outgate("down")
    lab = Lab(new_name(), kubeconfig)
    lab.outgate("down")
    try:
        lab.outgate("up", *options)
        lab.kubectl("apply", "-f", str(PROJECT / "deploy/crds"))
        lab.kubectl("apply", "-f", str(PROJECT / "deploy/lab/net-tshoot.yaml"))
        lab.kubectl("wait pod --for=condition=Ready -l name=net-tshoot")
        yield lab
    finally:
        lab.outgate("down")


def processes_of(first: int) -> dict[int, str]:
    """The descendants of *first*, a lab's first process: pid outside, pid inside."""
    depth = len(_field(first, "NSpid"))
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parents[int(entry.name)] = int(_field(int(entry.name), "PPid")[0])
    found = {first}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    inside = {}
    for pid in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            inside[pid] = _field(pid, "NSpid")[depth - 1]
    return inside


def _field(pid: int, name: str) -> list[str]:
    """The words of one line of a process's status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.split()[1:]
    raise AssertionError(f"/proc/{pid}/status has no {name}")


def wait_until(question: Callable[[], bool], seconds: float = 20.0) -> None:
    """Ask until the answer is yes."""
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
