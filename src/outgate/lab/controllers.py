"""
The controller, which writes the policies' status, as a Deployment would keep it.

What this is: the Pod object of a controller, and which one is missing.  It is a pod of
the host's network on the control plane's node, beside the API.
What this is not: the controller; the pod runs ``outgate controller``.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from outgate.lab.keeper import is_of, is_staying, random_suffix
from outgate.lab.settings import StateFolder
from outgate.lab.topology import Topology
from outgate.lab.workload import DEFAULT_PATH, Json

NAMESPACE = "outgate-system"
LABEL, VALUE = "app.kubernetes.io/name", "outgate-controller"
GRACE_SECONDS = 5


def missing_controllers(
    topology: Topology, folder: StateFolder, pods: Iterable[Json]
) -> list[dict[str, Any]]:
    """The controller, when there is none or only one that is going."""
    if any(is_of(p, NAMESPACE, LABEL, VALUE) and is_staying(p) for p in pods):
        return []
    return [controller_pod(topology, folder, random_suffix())]


def controller_pod(
    topology: Topology, folder: StateFolder, suffix: str
) -> dict[str, Any]:
    """One controller."""
    kubeconfig = str(folder.agent_kubeconfig)
    path = f"{Path(sys.executable).parent}:{DEFAULT_PATH}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"outgate-controller-{suffix}",
            "namespace": NAMESPACE,
            "labels": {LABEL: VALUE},
        },
        "spec": {
            "nodeName": topology.control_plane.name,
            "hostNetwork": True,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "containers": [
                {
                    "name": "controller",
                    "image": "outgate",
                    "command": ["outgate", "controller", "--kubeconfig", kubeconfig],
                    "env": [{"name": "PATH", "value": path}],
                }
            ],
        },
    }
