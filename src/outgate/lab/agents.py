"""
One agent pod per node, as a DaemonSet would keep them.

What this is: the Pod object of an agent, and the loop that makes one for each node
that has none.  They are pods of namespace ``cilium`` with label ``k8s-app=cilium``,
so that commands from guides of the field work as they stand.
What this is not: the agent; the pod runs ``outgate agent``.
"""

import asyncio
import secrets
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from outgate.errors import SourceError
from outgate.lab.informer import Informer
from outgate.lab.settings import LabSettings, StateFolder
from outgate.lab.topology import Node, Topology
from outgate.lab.workload import DEFAULT_PATH, Json
from outgate.source.client import Client

NAMESPACE = "cilium"
LABEL, VALUE = "k8s-app", "cilium"
METRICS_PORT = 9964
PIN_FOLDER = "/sys/fs/bpf/tc/globals"
NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
GRACE_SECONDS = 5
RETRY_SECONDS = 1.0


def agent_pod(
    node: Node, settings: LabSettings, folder: StateFolder, suffix: str
) -> dict[str, Any]:
    """The agent of *node*."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{DEFAULT_PATH}",
        "OUTGATE_PIN_DIR": PIN_FOLDER,
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


def random_suffix() -> str:
    """Five letters as the API's generateName makes them."""
    return "".join(secrets.choice(NAME_LETTERS) for _ in range(5))


def nodes_without_agent(topology: Topology, pods: Iterable[Json]) -> list[Node]:
    """The nodes that have no agent pod, or only one that is going."""
    served = {
        pod["spec"].get("nodeName")
        for pod in pods
        if is_agent(pod) and "deletionTimestamp" not in pod["metadata"]
    }
    return [node for node in topology.nodes if node.name not in served]


def is_agent(pod: Json) -> bool:
    """Whether *pod* is an agent of the lab."""
    metadata: Mapping[str, Any] = pod["metadata"]
    labels = metadata.get("labels") or {}
    return metadata.get("namespace") == NAMESPACE and labels.get(LABEL) == VALUE


async def keep_agents(
    client: Client,
    pods: Informer,
    topology: Topology,
    settings: LabSettings,
    folder: StateFolder,
) -> None:
    """Keep one agent on every node until cancelled."""
    changed = asyncio.Event()
    pods.on_change(lambda _: changed.set())
    while True:
        await changed.wait()
        changed.clear()
        if not pods.is_complete:
            continue
        try:
            for node in nodes_without_agent(topology, pods.objects.values()):
                pod = agent_pod(node, settings, folder, random_suffix())
                path = f"/api/v1/namespaces/{NAMESPACE}/pods"
                made = await client.request("POST", path, body=pod)
                pods.objects[made["metadata"]["uid"]] = made
        except SourceError as error:
            print(f"agents: {error}; trying again", flush=True)
            changed.set()
            await asyncio.sleep(RETRY_SECONDS)


async def make_namespace(client: Client) -> None:
    """Make the agents' namespace unless it is there."""
    body = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE},
    }
    try:
        await client.request("POST", "/api/v1/namespaces", body=body)
    except SourceError as error:
        if error.status != 409:
            raise
