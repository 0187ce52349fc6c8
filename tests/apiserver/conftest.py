"""
The real API server that ``run`` started, and clients of it.

Without ``run`` there is none: all tests here are skipped, with what to do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from apiserver.control_plane import ControlPlane
from apiserver.wire import Wire, open_kubeconfig
from kubectl.driver import Kubectl, Server, start_server

DEFINITIONS = Path(__file__).parents[2] / "deploy" / "crds"


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
    cache = tmp_path_factory.mktemp("kubectl")
    return kubectl_of(kubeconfig, cache)


def kubectl_of(kubeconfig: Path, cache: Path) -> Kubectl:
    """Return a kubectl for the bearer of *kubeconfig*."""
    return Kubectl(_kubectl(), "", cache, "", str(kubeconfig))


def _kubectl() -> str:
    binary = shutil.which(os.environ.get("OUTGATE_KUBECTL", "kubectl"))
    if binary is None:
        pytest.skip("no kubectl on PATH and OUTGATE_KUBECTL is not set")
    return binary


@pytest.fixture(scope="session")
def definitions(admin: Kubectl) -> None:
    """Install our definitions, as a user does."""
    install_definitions(admin)


def install_definitions(kubectl: Kubectl) -> None:
    kubectl("apply", "--server-side", "-f", str(DEFINITIONS))
    wait = ("wait", "--for=condition=Established", "--timeout=20s")
    kubectl(*wait, "-f", str(DEFINITIONS))


@pytest.fixture(scope="module")
def labs_server() -> Iterator[Server]:
    """Start the lab's server, which shall do what the real one does."""
    server = start_server()
    yield server
    server.stop()


@pytest.fixture
async def wire(kubeconfig: Path) -> AsyncIterator[Wire]:
    """Open a session with the real server, as one who may do everything."""
    async with open_kubeconfig(kubeconfig) as wire:
        yield wire


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
