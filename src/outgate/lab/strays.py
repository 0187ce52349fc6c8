"""
Pods that name a node which the lab does not have.

What this is: what a cluster's pod garbage collector does for them.  Nobody would
start such a pod, or confirm its end: it is told so by an event, and it goes at once
when the user deletes it.
What this is not: the scheduler; these pods have their node already.
"""

import asyncio
from collections.abc import Iterable

from outgate.errors import SourceError
from outgate.lab.events import post_event
from outgate.lab.informer import Informer
from outgate.lab.kubelet import delete_for_good
from outgate.lab.topology import Topology
from outgate.lab.workload import Json, Workload, parse_workload
from outgate.source.client import Client

RETRY_SECONDS = 1.0


def find_strays(topology: Topology, pods: Iterable[Json]) -> list[Workload]:
    """The pods that are bound to a node that is not of *topology*."""
    known = {"", *(node.name for node in topology.nodes)}
    return [
        parse_workload(pod)
        for pod in pods
        if (pod["spec"].get("nodeName") or "") not in known
    ]


async def keep_strays(client: Client, pods: Informer, topology: Topology) -> None:
    """Tell and remove strays until cancelled."""
    names = ", ".join(node.name for node in topology.nodes)
    told: set[str] = set()
    changed = asyncio.Event()
    pods.on_change(lambda _: changed.set())
    while True:
        await changed.wait()
        changed.clear()
        for stray in find_strays(topology, pods.objects.values()):
            if stray.uid not in told:
                told.add(stray.uid)
                message = f"the lab has no node {stray.node}; it has {names}"
                await post_event(client, stray, "NodeNotFound", message, "lab")
            if stray.is_deleting:
                try:
                    await delete_for_good(client, stray)
                except SourceError as error:
                    print(f"strays: {error}; trying again", flush=True)
                    changed.set()
                    await asyncio.sleep(RETRY_SECONDS)
