"""
The records that pods leave on disk: what was started, and how it ended.

What this is: the shapes and places of the files under a lab's ``pods`` folder, which
let a new control plane adopt what an earlier one started.

=========================================  ==========================================
file                                       holds
=========================================  ==========================================
``<uid>/pod.json``                         ``PodRecord``, written before anything else
``<uid>/sandbox.json``                     ``SandboxRecord``
``<uid>/containers/<name>/<n>/spec.json``  ``RunSpec`` of the n-th restart
``<uid>/containers/<name>/<n>/run.json``   ``RunRecord``, once it runs
``<uid>/containers/<name>/<n>/exit.json``  ``ExitRecord``, once it ended
``<uid>/containers/<name>/<n>/log``        its output, lines as the CRI writes them
=========================================  ==========================================

What this is not: the starting and the stopping (``runtime``, ``shim``).
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outgate.lab.process import ProcessId

KEPT_RUNS = 2


@dataclass(frozen=True, slots=True)
class PodRecord:
    """Whose folder this is; enough to take the pod away without its API object."""

    namespace: str
    name: str
    uid: str
    node: str
    uses_host_network: bool


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """The pod's namespaces; *cni_result* is None until the pod is cabled."""

    process: ProcessId
    created_at: float
    cni_result: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a shim starts: a command inside the namespaces of process *holder*."""

    holder: int
    command: tuple[str, ...]
    environment: Mapping[str, str]
    working_folder: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The processes of a run; a container without a command is its holder itself."""

    shim: ProcessId
    container: ProcessId
    started_at: float


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """How a run ended; *code* is 128 plus the signal when one ended it."""

    code: int
    finished_at: float


@dataclass(frozen=True, slots=True)
class PodFolder:
    """The files of one pod."""

    root: Path

    @property
    def pod(self) -> Path:
        return self.root / "pod.json"

    @property
    def sandbox(self) -> Path:
        return self.root / "sandbox.json"

    def run(self, container: str, attempt: int) -> "RunFolder":
        return RunFolder(self.root / "containers" / container / str(attempt))

    def attempts(self, container: str) -> list[int]:
        """The numbers of the runs that are still on disk, in order."""
        folder = self.root / "containers" / container
        if not folder.is_dir():
            return []
        return sorted(int(entry.name) for entry in folder.iterdir())

    def containers(self) -> list[str]:
        """The names of the containers that were ever started."""
        folder = self.root / "containers"
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir())

    def forget_old_runs(self, container: str) -> None:
        """Keep the last runs: the present one and the one before it."""
        for attempt in self.attempts(container)[:-KEPT_RUNS]:
            shutil.rmtree(self.run(container, attempt).root, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run of one container."""

    root: Path

    @property
    def spec(self) -> Path:
        return self.root / "spec.json"

    @property
    def run(self) -> Path:
        return self.root / "run.json"

    @property
    def exit(self) -> Path:
        return self.root / "exit.json"

    @property
    def log(self) -> Path:
        return self.root / "log"
