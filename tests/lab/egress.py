"""What the stories about egress share: the policy, and questions to pods."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.harness import POD_ADDRESSES, PROJECT, Lab, processes_of, wait_until

POLICY = str(PROJECT / "deploy/lab/egress-all.yaml")
EGRESS_IP = "172.18.0.5"
GATEWAY, WORKER = "k8s-guide-worker2", "k8s-guide-worker"
PODS = tuple(POD_ADDRESSES)

HOLD_CONNECTIONS = """
import socket, sys
server = socket.gethostbyname("echo")
held = []
for port in range(int(sys.argv[1]), int(sys.argv[2])):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    connection.bind(("0.0.0.0", port))
    connection.settimeout(20)
    connection.connect((server, 80))
    held.append(connection)
print("all connected", file=sys.stderr, flush=True)
sys.stdin.readline()
for connection in held:
    connection.sendall(b"GET /tuple HTTP/1.1\\r\\nHost: echo\\r\\n\\r\\n")
for connection in held:
    answer = b""
    while b"\\r\\n\\r\\n" not in answer or not answer.endswith(b"\\n"):
        answer += connection.recv(4096)
    print(answer.decode().split()[-1])
"""
"""Opens a connection from each port, waits for a line, then asks on all of them."""

ASK_UDP = """
import socket, sys
port, server = int(sys.argv[1]), sys.argv[2]
family, kind, _, _, peer = socket.getaddrinfo(server, 7, type=socket.SOCK_DGRAM)[0]
asker = socket.socket(family, kind)
asker.bind(("", port))
asker.settimeout(5)
asker.sendto(b"?", peer)
print(asker.recv(100).decode())
"""
"""Asks the server named from the port given."""

ASK_CLOSED_PORT = """
import socket
asker = socket.socket(type=socket.SOCK_DGRAM)
asker.settimeout(5)
asker.connect(("echo", 9))
asker.send(b"?")
try:
    asker.recv(100)
except OSError as error:
    print(type(error).__name__)
"""
"""Nobody listens there: the server's ICMP error ends the wait."""


DIGEST_OF_DOWNLOAD = "wget -q -O - '{0}/download?bytes={1}' | sha256sum | cut -d' ' -f1"


def all_seen(lab: Lab) -> list[str]:
    """The address that the server outside sees, for each of the three pods."""
    return [lab.seen_by_echo(name) for name in PODS]


def apply_policy(lab: Lab) -> None:
    """Apply the policy, and wait until every node has it."""
    lab.kubectl("apply", "-f", POLICY)
    wait_until(lambda: all_seen(lab) == [EGRESS_IP] * 3)


def delete_policy(lab: Lab) -> None:
    """Delete the policy, and wait until each pod leaves under its own node."""
    lab.kubectl("delete", "-f", POLICY, "--ignore-not-found")
    own = [node for _, node in POD_ADDRESSES.values()]
    wait_until(lambda: all_seen(lab) == own)


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


def download_is_whole(lab: Lab, pod: str, size: int) -> bool:
    """Download *size* bytes into *pod* and compare their digest with the server's."""
    command = DIGEST_OF_DOWNLOAD.format("http://echo", size)
    got = lab.kubectl(f"exec {pod} -- sh -c", command)
    url = f"http://echo/sha256?bytes={size}"
    return got.strip() == lab.kubectl(f"exec {pod} -- wget -q -O - {url}").strip()


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
