"""
One agent pod per node, as a DaemonSet would keep them.

What this is: the Pod object of an agent, and which nodes have none.  They are pods of
namespace ``cilium`` with label ``k8s-app=cilium``, so that commands from guides of the
field work as they stand.
What this is not: the agent; the pod runs ``outgate agent``.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from outgate.lab.keeper import is_of, is_staying, random_suffix
from outgate.lab.settings import LabSettings, StateFolder
from outgate.lab.topology import Node, Topology
from outgate.lab.workload import DEFAULT_PATH, Json

NAMESPACE = "cilium"
LABEL, VALUE = "k8s-app", "cilium"
METRICS_PORT = 9964
PIN_FOLDER = "/sys/fs/bpf/tc/globals"
GRACE_SECONDS = 5


def agent_pod(
    node: Node, settings: LabSettings, folder: StateFolder, suffix: str
) -> dict[str, Any]:
    """The agent of *node*."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{DEFAULT_PATH}",
        "OUTGATE_PIN_DIR": PIN_FOLDER,
        "OUTGATE_CONFIG": str(folder.agent_settings),
        "OUTGATE_GATEWAY_PATH": settings.gateway_path.value,
        "OUTGATE_METRICS_ADDRESS": f"127.0.0.1:{METRICS_PORT}",
        **settings.agent_environment,
    }
    command = [
        "outgate",
        "agent",
        *("--node", node.name),
        *("--kubeconfig", str(folder.agent_kubeconfig)),
        *("--pin-dir", PIN_FOLDER),
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"cilium-{suffix}",
            "namespace": NAMESPACE,
            "labels": {LABEL: VALUE},
        },
        "spec": {
            "nodeName": node.name,
            "hostNetwork": True,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "containers": [
                {
                    "name": "cilium-agent",
                    "image": "outgate",
                    "command": command,
                    "readinessProbe": {
                        "httpGet": {
                            "host": "127.0.0.1",
                            "port": METRICS_PORT,
                            "path": "/readyz",
                        },
                        "periodSeconds": 1,
                    },
                    "env": [
                        {"name": name, "value": value}
                        for name, value in sorted(environment.items())
                    ],
                }
            ],
        },
    }


def missing_agents(
    topology: Topology,
    settings: LabSettings,
    folder: StateFolder,
    pods: Iterable[Json],
) -> list[dict[str, Any]]:
    """An agent for each node that has none."""
    return [
        agent_pod(node, settings, folder, random_suffix())
        for node in nodes_without_agent(topology, pods)
    ]


def nodes_without_agent(topology: Topology, pods: Iterable[Json]) -> list[Node]:
    """The nodes that have no agent pod, or only one that is going."""
    served = {
        pod["spec"].get("nodeName") for pod in pods if is_agent(pod) and is_staying(pod)
    }
    return [node for node in topology.nodes if node.name not in served]


def is_agent(pod: Json) -> bool:
    """Whether *pod* is an agent of the lab."""
    return is_of(pod, NAMESPACE, LABEL, VALUE)
