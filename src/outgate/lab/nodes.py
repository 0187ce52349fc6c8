"""
The Node objects and their leases: made once, kept Ready, as ``kubectl`` shows them.

What this is: the part of a kubelet that reports its node.
What this is not: a judge of nodes; in the lab a node is there as long as the lab is.

Heartbeats are a status patch every five minutes, as a real kubelet sends when
nothing changes, because each one wakes every agent.
"""

import asyncio
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from outgate.errors import SourceError
from outgate.lab.informer import Informer
from outgate.lab.podstatus import RUNTIME, timestamp
from outgate.lab.topology import Node, Topology
from outgate.source.client import MERGE_PATCH, Client
from outgate.telemetry.version import product_version

HEARTBEAT_SECONDS = 300.0
RETRY_SECONDS = 1.0
MAX_PODS = 110
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def node_object(node: Node) -> dict[str, Any]:
    """What is registered; the status follows separately."""
    labels = {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": _architecture(),
    }
    if node.is_control_plane:
        labels["node-role.kubernetes.io/control-plane"] = ""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": labels},
        "spec": {
            "podCIDR": str(node.pod_networks[0]),
            "podCIDRs": [str(network) for network in node.pod_networks],
            "providerID": f"{RUNTIME}://{node.name}",
        },
    }


def node_status(node: Node, now: float, previous: Mapping[str, Any]) -> dict[str, Any]:
    """The status of a node that is there; *previous* keeps the time of the change."""
    former = {item["type"]: item for item in previous.get("conditions") or ()}
    changed = former.get("Ready", {}).get("lastTransitionTime", timestamp(now))
    memory = _memory_kib()
    resources = {"pods": str(MAX_PODS), "memory": f"{memory}Ki", "cpu": _processors()}
    return {
        "addresses": [
            *(
                {"type": "InternalIP", "address": str(address)}
                for address in node.addresses
            ),
            {"type": "Hostname", "address": node.name},
        ],
        "capacity": resources,
        "allocatable": resources,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "the lab's kubelet is posting ready status",
                "lastHeartbeatTime": timestamp(now),
                "lastTransitionTime": changed,
            }
        ],
        "nodeInfo": {
            "architecture": _architecture(),
            "operatingSystem": "linux",
            "kernelVersion": platform.release(),
            "osImage": _system_name(),
            "containerRuntimeVersion": f"{RUNTIME}://{product_version()}",
            "kubeletVersion": f"v{product_version()}",
            "kubeProxyVersion": "",
            "machineID": "",
            "systemUUID": "",
            "bootID": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        },
    }


def _architecture() -> str:
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    return names.get(platform.machine(), platform.machine())


def _system_name() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")


def _memory_kib() -> int:
    return int(Path("/proc/meminfo").read_text().split()[1])


def _processors() -> str:
    return str(Path("/proc/cpuinfo").read_text().count("processor\t:"))


async def keep_nodes(client: Client, nodes: Informer, topology: Topology) -> None:
    """Register every node, also one that a user deleted, and keep it Ready."""
    changed = asyncio.Event()
    nodes.on_change(lambda _: changed.set())
    heartbeat_at = 0.0
    while True:
        changed.clear()
        due = time.monotonic() >= heartbeat_at
        known = {item["metadata"]["name"] for item in nodes.objects.values()}
        try:
            for node in topology.nodes:
                if due or node.name not in known:
                    await _keep_node(client, node)
        except SourceError as error:
            print(f"nodes: {error}; trying again", flush=True)
            await asyncio.sleep(RETRY_SECONDS)
            continue
        if due:
            heartbeat_at = time.monotonic() + HEARTBEAT_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(heartbeat_at - time.monotonic()):
                await changed.wait()


async def _keep_node(client: Client, node: Node) -> None:
    path = f"/api/v1/nodes/{node.name}"
    try:
        known = await client.request("GET", path)
    except SourceError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        known = await client.request("POST", "/api/v1/nodes", body=node_object(node))
    status = node_status(node, time.time(), known.get("status") or {})
    await client.request(
        "PATCH", f"{path}/status", body={"status": status}, content_type=MERGE_PATCH
    )
    await _renew_lease(client, lease_object(node, time.time()))


def lease_object(node: Node, now: float) -> dict[str, Any]:
    """The lease that ``kubectl describe node`` shows."""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": node.name, "namespace": "kube-node-lease"},
        "spec": {
            "holderIdentity": node.name,
            "leaseDurationSeconds": int(2 * HEARTBEAT_SECONDS),
            "renewTime": moment,
        },
    }


async def _renew_lease(client: Client, lease: dict[str, Any]) -> None:
    path = f"{LEASES}/{lease['metadata']['name']}"
    change = {"spec": lease["spec"]}
    try:
        await client.request("PATCH", path, body=change, content_type=MERGE_PATCH)
    except SourceError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        await client.request("POST", LEASES, body=lease)
