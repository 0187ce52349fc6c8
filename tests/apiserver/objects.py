"""
Objects that tests make on an API server without kubelets or schedulers.
"""

from __future__ import annotations

from apiserver.wire import Object, Wire

NAMESPACES = "/api/v1/namespaces"
NODES = "/api/v1/nodes"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
EVENTS = "/api/v1/namespaces/default/events"
NOW = {"gracePeriodSeconds": "0"}
"""Deletes a pod for good: no kubelet will say that it has ended."""


def tells_of_programmed(events: Object) -> bool:
    """Is a policy's event there?  Events are written behind the status."""
    return "Programmed" in {event["reason"] for event in events["items"]}


def pod(name: str, node: str = "", finalizer: str = "", **labels: str) -> Object:
    """Return a pod that no kubelet has seen; *node* is where it is bound to."""
    metadata: Object = {"name": name, "labels": labels}
    if finalizer:
        metadata["finalizers"] = [finalizer]
    spec: Object = {"containers": [{"name": "main", "image": "none"}]}
    return {"metadata": metadata, "spec": spec | ({"nodeName": node} if node else {})}


async def run_pod(
    wire: Wire, namespace: str, name: str, node: str, address: str, **labels: str
) -> Object:
    """Make a pod on *node* and say what its kubelet would: it runs at *address*."""
    path = f"{NAMESPACES}/{namespace}/pods"
    await wire.done("POST", path, pod(name, node, **labels))
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    return await wire.done("PATCH", f"{path}/{name}/status", {"status": status})


async def add_namespace(wire: Wire, name: str, **labels: str) -> None:
    metadata = {"name": name, "labels": labels}
    await wire.done("POST", NAMESPACES, {"metadata": metadata})


async def add_node(wire: Wire, name: str, address: str, **labels: str) -> None:
    """Make a node and say what its kubelet would: it is ready, at *address*."""
    metadata = {"name": name, "labels": labels}
    await wire.done("POST", NODES, {"metadata": metadata})
    status = {
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    await wire.done("PATCH", f"{NODES}/{name}/status", {"status": status})
