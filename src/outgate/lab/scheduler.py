"""
The scheduler: a node for each pod that names none.

What this is: the node with the fewest pods, among those that are schedulable and
have the labels that the pod's ``nodeSelector`` asks for.
What this is not: Kubernetes' scheduler; affinity, taints and resources do not count.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable

from outgate.errors import SourceError
from outgate.lab.informer import Informer
from outgate.lab.workload import Json
from outgate.source.client import Client

RETRY_SECONDS = 1.0


def choose_node(pod: Json, nodes: Iterable[Json], pods: Iterable[Json]) -> str | None:
    """The node for *pod*, None when no node fits; ties go to the first name."""
    wanted = (pod["spec"].get("nodeSelector") or {}).items()
    load = Counter(other["spec"].get("nodeName") for other in pods)
    names = [
        node["metadata"]["name"]
        for node in nodes
        if not (node.get("spec") or {}).get("unschedulable")
        and wanted <= (node["metadata"].get("labels") or {}).items()
    ]
    return min(names, key=lambda name: (load[name], name), default=None)


def is_unbound(pod: Json) -> bool:
    """Whether *pod* waits for a node."""
    return (
        not pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]
    )


async def keep_scheduled(client: Client, pods: Informer, nodes: Informer) -> None:
    """Bind every unbound pod until cancelled."""
    changed = asyncio.Event()
    pods.on_change(lambda _: changed.set())
    nodes.on_change(lambda _: changed.set())
    while True:
        await changed.wait()
        changed.clear()
        for pod in [pod for pod in pods.objects.values() if is_unbound(pod)]:
            name = choose_node(pod, nodes.objects.values(), pods.objects.values())
            if name is not None and not await _bind(client, pod, name):
                changed.set()
                await asyncio.sleep(RETRY_SECONDS)


async def _bind(client: Client, pod: Json, node: str) -> bool:
    """Bind *pod*, and note it in the list at hand, which the watch would do later."""
    metadata = pod["metadata"]
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/binding"
    body = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": metadata["name"], "uid": metadata["uid"]},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
    try:
        await client.request("POST", path, body=body)
    except SourceError as error:
        return error.status in (404, 409)
    pod["spec"]["nodeName"] = node
    return True
