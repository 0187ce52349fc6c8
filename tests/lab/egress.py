"""What the stories about egress share: a lab seen from one family, and its pods."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.harness import (
    SIDE4,
    SIDE6,
    Lab,
    Side,
    processes_of,
    started_lab,
    wait_until,
)

GATEWAY, WORKER = "k8s-guide-worker2", "k8s-guide-worker"
CONTROL_PLANE = "k8s-guide-control-plane"
PODS = tuple(SIDE4.pods)
SIDES = {"ipv4": (SIDE4,), "dual": (SIDE4, SIDE6), "ipv6": (SIDE6,)}


@dataclass(frozen=True, slots=True)
class Scene:
    """
    A lab, seen from one IP family.

    *outer* is the family of the nodes' tunnel, which is IPv4 where nodes have it.
    """

    lab: Lab
    side: Side
    outer: Side

    def all_seen(self) -> list[str]:
        """The address that the server outside sees, for each of the three pods."""
        return self.side.all_seen(self.lab)

    def apply_policy(self) -> None:
        """Apply the family's policy, and wait until every node has it."""
        self.lab.kubectl("apply", "-f", str(self.side.policy))
        wait_until(lambda: self.all_seen() == [self.side.egress_ip] * 3)

    def delete_policy(self) -> None:
        """Delete it, and wait until each pod leaves under its own node."""
        self.lab.kubectl("delete", "-f", str(self.side.policy), "--ignore-not-found")
        wait_until(lambda: self.all_seen() == self.side.nodes)

    def start(self, pod: str, script: str, *words: str) -> "subprocess.Popen[str]":
        """Start a Python *script* in *pod* with the server's name and *words*."""
        command = ("python3", "-c", script, self.side.server, *words)
        return start_in(self.lab, pod, *command)

    def run(self, pod: str, script: str, *words: str) -> list[str]:
        """Run a script in *pod*; returns the lines that it printed."""
        return list(finish(self.start(pod, script, *words)))

    def run_in_all(self, script: str, *words: str) -> list[list[str]]:
        """Run a script in each of the three pods, one after the other."""
        return [self.run(pod, script, *words) for pod in PODS]

    def ping(self, pod: str) -> str:
        """What ping prints about three requests to the server."""
        ping = f"exec {pod} -- ping -c 3 -i 0.2 -W 2 {self.side.server}"
        return self.lab.kubectl(ping)

    def download_is_whole(self, pod: str, size: int) -> bool:
        """Download *size* bytes into *pod*; compare the digest with the server's."""
        server = self.side.server
        command = digest_of_download(server, size)
        got = self.lab.kubectl(f"exec {pod} -- sh -c", command)
        url = f"http://{server}/sha256?bytes={size}"
        return got == self.lab.kubectl(f"exec {pod} -- wget -q -O - {url}")


def digest_of_download(server: str, size: int, options: str = "") -> str:
    """Return a shell command that downloads *size* bytes and prints their digest."""
    url = f"http://{server}/download?bytes={size}"
    return f"wget -q {options} -O - '{url}' | sha256sum | cut -d' ' -f1"


@contextmanager
def covered_scenes(
    kubeconfig: Path, family: str, *options: str
) -> Iterator[tuple[Scene, ...]]:
    """A lab of *family* with the policies of its families in force; one scene each."""
    with started_lab(kubeconfig, "--ip-family", family, *options) as lab:
        scenes = scenes_of(lab, family)
        for scene in scenes:
            scene.apply_policy()
        yield scenes
        for scene in scenes:
            scene.delete_policy()


def scenes_of(lab: Lab, family: str) -> tuple[Scene, ...]:
    """A scene for each IP family of a lab that was started with *family*."""
    sides = SIDES[family]
    return tuple(Scene(lab, side, outer=sides[0]) for side in sides)


def address_in(line: str) -> str:
    """The address in an ``address:port`` of the server's."""
    return line.rpartition(":")[0].strip("[]")


def start_in(lab: Lab, pod: str, *command: str) -> "subprocess.Popen[str]":
    """Start *command* in *pod*; the caller waits for it."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        ["kubectl", "exec", "-i", *pod.split(), "--", *command],
        env={**os.environ, "KUBECONFIG": str(lab.kubeconfig)},
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )


def finish(process: "subprocess.Popen[str]", text: str = "") -> Sequence[str]:
    """Give *text* to a started command; return its output's lines."""
    out, errors = process.communicate(text, timeout=60)
    assert process.returncode == 0, errors
    return out.splitlines()


def container_folder(lab: Lab, pod: str, container: str) -> Path:
    """Return the folder of a container's last run; *pod* may begin with ``-n NS``."""
    form = "jsonpath={.metadata.uid}"
    uid = lab.kubectl(f"get pod {pod} -o {form}")
    attempts = (lab.folder.pods / uid / "containers" / container).iterdir()
    return max(attempts, key=lambda folder: int(folder.name))


def agent_process(lab: Lab, node: str) -> int:
    """Return the pid, outside, of the agent of *node*."""
    last = container_folder(lab, f"-n cilium {lab.agent_on(node)}", "cilium-agent")
    inside = json.loads((last / "run.json").read_text())["container"]["pid"]
    processes = processes_of(lab.first_process())
    return next(pid for pid, inner in processes.items() if inner == str(inside))
