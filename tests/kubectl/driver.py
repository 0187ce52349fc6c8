"""
A real kubectl and a server for it, as the tests see them.

What it is: start the server, run kubectl, give back what it said.
What it is not: assertions beyond the exit code.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Answer:
    """What one run of kubectl said, and how it ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Kubectl:
    """
    One kubectl, pointed at one server and one namespace.

    Shape: an empty *url* leaves it to *kubeconfig* to name the server; an empty
    *namespace* leaves it to each object, or to flags, to name one.
    """

    binary: str
    url: str
    folder: Path
    namespace: str = "default"
    kubeconfig: str = "/dev/null"

    @property
    def base(self) -> list[str]:
        return [
            self.binary,
            f"--kubeconfig={self.kubeconfig}",
            *([f"--server={self.url}"] if self.url else []),
            f"--cache-dir={self.folder}",
            *([f"--namespace={self.namespace}"] if self.namespace else []),
        ]

    def run(self, *words: str, stdin: str = "", timeout: float = 20) -> Answer:
        """Run it, whatever the exit code."""
        done = subprocess.run(
            [*self.base, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def __call__(self, *words: str, stdin: str = "") -> str:
        """Run it and expect success; gives its output."""
        answer = self.run(*words, stdin=stdin)
        assert answer.code == 0, f"kubectl {' '.join(words)}: {answer}"
        return answer.out.strip()

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Run it beside the test, for what does not end by itself."""
        return subprocess.Popen(
            [*self.base, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@dataclass(frozen=True, slots=True)
class Server:
    """A server process and its URL."""

    process: subprocess.Popen[str]
    url: str

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def start_server(journal: Path | None = None) -> Server:
    words = [sys.executable, "-m", "kubectl.serve"]
    if journal is not None:
        words.append(str(journal))
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, cwd=HERE.parent
    )
    assert process.stdout is not None
    return Server(process, process.stdout.readline().strip())


ROUTE = """
apiVersion: example.test/v1
kind: Route
metadata: {{name: {name}}}
spec: {{via: {via}, networks: [10.0.0.0/8]}}
"""
WEB = str(HERE / "web.yaml")
READY = {"type": "Ready", "status": "True"}


def apply_route(kubectl: Kubectl, name: str, via: str, *flags: str) -> str:
    """Apply one custom object under a name that no other test uses."""
    text = ROUTE.format(name=name, via=via)
    return kubectl("apply", *flags, "-f", "-", stdin=text)


def words(line: str) -> list[str]:
    return line.split()
