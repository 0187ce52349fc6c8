"""
The real API server that ``run`` started, and clients of it.

Without ``run`` there is none: all tests here are skipped, with what to do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver.control_plane import ControlPlane
from kubectl.driver import Kubectl


@pytest.fixture(scope="session")
def kubeconfig() -> Path:
    """Return the kubeconfig of one who may do everything."""
    found = os.environ.get("OUTGATE_TEST_APISERVER")
    if not found:
        pytest.skip("no kube-apiserver: `make test-apiserver` starts one")
    return Path(found)


@pytest.fixture(scope="session")
def admin(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Return a kubectl that may do everything."""
    binary = shutil.which(os.environ.get("OUTGATE_KUBECTL", "kubectl"))
    if binary is None:
        pytest.skip("no kubectl on PATH and OUTGATE_KUBECTL is not set")
    cache = tmp_path_factory.mktemp("kubectl")
    return Kubectl(binary, "", cache, kubeconfig=str(kubeconfig))


@pytest.fixture(scope="module")
def own_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Start a control plane for one module, which may break it."""
    programs = os.environ.get("OUTGATE_TEST_PROGRAMS")
    if not programs:
        pytest.skip("no kube-apiserver to break: `make test-apiserver` builds one")
    plane = ControlPlane(Path(programs), tmp_path_factory.mktemp("plane"))
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
