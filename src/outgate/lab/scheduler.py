"""
The scheduler: a node for each pod that names none.

What this is: the node with the fewest pods, among those that are Ready, schedulable
and have the labels that the pod's ``nodeSelector`` asks for.  A pod that no node
fits is told so by an event.
What this is not: Kubernetes' scheduler; affinity, taints and resources do not count.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable

from outgate.errors import SourceError
from outgate.lab.events import post_event
from outgate.lab.informer import Informer
from outgate.lab.workload import Json, parse_workload
from outgate.source.client import Client

RETRY_SECONDS = 1.0


def choose_node(pod: Json, nodes: Iterable[Json], pods: Iterable[Json]) -> str | None:
    """The node for *pod*, None when no node fits; ties go to the first name."""
    wanted = (pod["spec"].get("nodeSelector") or {}).items()
    load = Counter(other["spec"].get("nodeName") for other in pods)
    names = [
        node["metadata"]["name"]
        for node in nodes
        if is_ready(node)
        and not (node.get("spec") or {}).get("unschedulable")
        and wanted <= (node["metadata"].get("labels") or {}).items()
    ]
    return min(names, key=lambda name: (load[name], name), default=None)


def is_ready(node: Json) -> bool:
    """Whether a kubelet reports for *node*; a Node that a user made has none."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def is_unbound(pod: Json) -> bool:
    """Whether *pod* waits for a node."""
    return (
        not pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]
    )


async def keep_scheduled(client: Client, pods: Informer, nodes: Informer) -> None:
    """Bind every unbound pod until cancelled."""
    told: set[str] = set()
    changed = asyncio.Event()
    pods.on_change(lambda _: changed.set())
    nodes.on_change(lambda _: changed.set())
    while True:
        await changed.wait()
        changed.clear()
        for pod in [pod for pod in pods.objects.values() if is_unbound(pod)]:
            name = choose_node(pod, nodes.objects.values(), pods.objects.values())
            if name is None:
                if nodes.is_complete and pod["metadata"]["uid"] not in told:
                    told.add(pod["metadata"]["uid"])
                    await _tell_unfit(client, pod)
            elif not await _bind(client, pod, name):
                changed.set()
                await asyncio.sleep(RETRY_SECONDS)


async def _tell_unfit(client: Client, pod: Json) -> None:
    wanted = pod["spec"].get("nodeSelector") or {}
    labels = ", ".join(f"{key}={value}" for key, value in wanted.items())
    message = "no node is Ready and schedulable" + (f" with {labels}" if labels else "")
    workload = parse_workload(pod)
    await post_event(client, workload, "FailedScheduling", message, "default-scheduler")


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
