"""
A small cluster in a real API: two nodes, a namespace, pods, a policy of each kind.

What it is: objects made through the API, so that the lab's and a kube-apiserver serve
as well; their names are new in each test, and they are removed after it.
"""

import asyncio
import secrets
from pathlib import Path
from typing import Any

import yaml

from outgate.errors import SourceError
from outgate.source.client import Client
from outgate.state.entries import NodeName

CRDS = Path(__file__).parents[2] / "deploy" / "crds"
MERGE = "application/merge-patch+json"
POLICIES = "/apis/cilium.io/v2alpha1/ciliumegressnatpolicies"
NETWORKS = "203.0.113.0/24"


class World:
    """The objects of one test behind *client*."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.tag = f"f{secrets.token_hex(3)}"
        self.node = NodeName(f"{self.tag}-n1")
        self.namespace = f"{self.tag}-ns"
        self.policy = f"{self.tag}-p"
        self.policy_key = f"CiliumEgressNATPolicy/{self.policy}"
        self._pods = 0

    async def make(self) -> None:
        """Make everything."""
        for file in sorted(CRDS.glob("*.yaml")):
            for document in yaml.safe_load_all(file.read_text()):
                await self._make_crd(document)
        await self._create("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        for number in (1, 2):
            name, network = f"{self.tag}-n{number}", f"10.0.{number}.0/24"
            spec = {"podCIDR": network, "podCIDRs": [network]}
            await self._create(
                "/api/v1/nodes", {"metadata": {"name": name}, "spec": spec}
            )
            addresses = [{"type": "InternalIP", "address": f"192.0.2.{number}"}]
            await self._patch(
                f"/api/v1/nodes/{name}/status", {"status": {"addresses": addresses}}
            )
        await self.add_pod("web-0")
        await self.add_pod("web-1")
        await self.put_policy(NETWORKS)

    async def remove(self) -> None:
        """Remove everything that the test made."""
        for path in (
            f"{POLICIES}/{self.policy}",
            f"/api/v1/namespaces/{self.namespace}",
            f"/api/v1/nodes/{self.tag}-n1",
            f"/api/v1/nodes/{self.tag}-n2",
        ):
            await self._delete(path)

    def key(self, pod: str) -> str:
        """Return the key of a pod."""
        return f"{self.namespace}/{pod}"

    async def add_pod(self, name: str) -> str:
        """Make a pod that has an address; return its key."""
        self._pods += 1
        spec = {
            "nodeName": self.node,
            "containers": [{"name": "web", "image": "web"}],
            "terminationGracePeriodSeconds": 0,
        }
        labels = {"app": "web"}
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        await self._create(
            path, {"metadata": {"name": name, "labels": labels}, "spec": spec}
        )
        address = f"10.0.1.{self._pods}"
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        await self._patch(f"{path}/{name}/status", {"status": status})
        return self.key(name)

    async def remove_pod(self, name: str) -> None:
        """Remove a pod at once."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}"
        await self._delete(path, {"gracePeriodSeconds": 0})

    async def label_pod(self, name: str, **labels: str) -> None:
        """Change a pod's labels."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}"
        await self._patch(path, {"metadata": {"labels": labels}})

    async def put_policy(self, network: str) -> None:
        """Make the policy, or change where it leads."""
        spec = {
            "destinationCIDRs": [network],
            "egress": [{"podSelector": {"matchLabels": {"app": "web"}}}],
            "egressSourceIP": "192.0.2.2",
        }
        path = f"{POLICIES}/{self.policy}"
        try:
            await self._patch(path, {"spec": spec})
        except SourceError as e:
            if e.status != 404:
                raise
            await self._create(
                POLICIES,
                {
                    "apiVersion": "cilium.io/v2alpha1",
                    "kind": "CiliumEgressNATPolicy",
                    "metadata": {"name": self.policy},
                    "spec": spec,
                },
            )

    async def _make_crd(self, document: Any) -> None:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        try:
            await self.client.request("POST", path, body=document)
        except SourceError as e:
            if e.status != 409:
                raise
        spec = document["spec"]
        served = spec["versions"][0]["name"]
        plural = f"/apis/{spec['group']}/{served}/{spec['names']['plural']}"
        for _ in range(400):
            if await self._is_served(plural):
                return
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{plural} is not served")

    async def _is_served(self, path: str) -> bool:
        try:
            await self.client.request("GET", path)
        except SourceError as e:
            if e.status not in (404, 429, 503):
                raise
            return False
        return True

    async def _create(self, path: str, body: Any) -> None:
        await self.client.request("POST", path, body=body)

    async def _patch(self, path: str, body: Any) -> None:
        await self.client.request("PATCH", path, body=body, content_type=MERGE)

    async def _delete(self, path: str, body: Any = None) -> None:
        try:
            await self.client.request("DELETE", path, body=body)
        except SourceError as e:
            if e.status != 404:
                raise
