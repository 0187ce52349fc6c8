"""
Kubernetes Events about pods: what the lab could not do, shown by ``describe``.

What this is: one function that posts an Event.
What this is not: a log, or a place where errors end; the kubelet keeps trying.
"""

import secrets
import time

from outgate.errors import SourceError
from outgate.lab.podstatus import timestamp
from outgate.lab.workload import Workload
from outgate.source.client import Client


async def post_event(
    client: Client,
    workload: Workload,
    reason: str,
    message: str,
    component: str = "kubelet",
) -> None:
    """Warn about *workload* as *component* does; an API that is away loses it."""
    now = timestamp(time.time())
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{workload.name}.{secrets.token_hex(8)}",
            "namespace": workload.namespace,
        },
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": workload.namespace,
            "name": workload.name,
            "uid": workload.uid,
        },
        "type": "Warning",
        "reason": reason,
        "message": message,
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": component, "host": workload.node},
        "reportingComponent": component,
        "reportingInstance": workload.node,
    }
    path = f"/api/v1/namespaces/{workload.namespace}/events"
    try:
        await client.request("POST", path, body=event)
    except SourceError as error:
        print(f"event {reason} about {workload.name} is lost: {error}", flush=True)
