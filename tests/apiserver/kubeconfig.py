"""
Kubeconfig files for tests: who asks which server.

What it is: one file with one context, written, and the same file for another bearer.
Who calls it: ``control_plane`` and tests that act as service accounts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml


def write_kubeconfig(
    path: Path, cluster: Mapping[str, str], user: Mapping[str, str]
) -> Path:
    """Write the kubeconfig of *user* at *cluster* to *path*."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "clusters": [{"name": "tests", "cluster": dict(cluster)}],
        "users": [{"name": "tester", "user": dict(user)}],
        "contexts": [
            {"name": "tests", "context": {"cluster": "tests", "user": "tester"}}
        ],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def for_bearer(kubeconfig: Path, token: str, path: Path) -> Path:
    """Write to *path* what *kubeconfig* says, but for the bearer of *token*."""
    return write_kubeconfig(path, read_cluster(kubeconfig), {"token": token})


def read_cluster(kubeconfig: Path) -> dict[str, str]:
    """Return the one cluster that *kubeconfig* names."""
    document = yaml.safe_load(kubeconfig.read_text())
    cluster: dict[str, str] = document["clusters"][0]["cluster"]
    return cluster
