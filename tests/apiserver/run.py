"""
Runs tests against a real kube-apiserver with etcd, on loopback, as long as they take.

``scripts/test-apiserver.sh`` runs ``python tests/apiserver/run.py PROGRAMS [pytest
arguments]``; PROGRAMS is the folder that ``scripts/apiserver.sh`` prints.  The tests
find the server by ``OUTGATE_TEST_APISERVER``, the kubeconfig of one who may do
everything; those that break it start their own from ``OUTGATE_TEST_PROGRAMS``.

Exit status: pytest's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from apiserver.control_plane import ControlPlane  # noqa: E402

SUITES = (
    ("tests/apiserver",),
    ("tests/faults",),
    ("tests/kubectl/test_kubectl.py", "tests/kubectl/test_kubectl_write.py"),
)
"""What is run where no test is named, each on a server of its own: all are full of
objects in the end.  Of tests/kubectl, what needs no pod that runs."""


def main(programs: Path, words: list[str]) -> int:
    are_named = any((ROOT / word.partition("::")[0]).exists() for word in words)
    suites = ((),) if are_named else SUITES
    return max([run(programs, [*words, *suite]) for suite in suites])


def run(programs: Path, words: list[str]) -> int:
    with TemporaryDirectory(prefix="outgate-apiserver-") as folder:
        plane = ControlPlane(programs, Path(folder))
        try:
            plane.start()
            return subprocess.call(
                [sys.executable, "-m", "pytest", *words],
                cwd=ROOT,
                env={
                    **os.environ,
                    "OUTGATE_TEST_APISERVER": str(plane.kubeconfig),
                    "OUTGATE_TEST_PROGRAMS": str(programs),
                },
            )
        finally:
            plane.stop()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
