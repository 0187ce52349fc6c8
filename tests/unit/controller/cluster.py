"""A small cluster in an API on loopback, and agents that report from it."""

from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

from outgate.agent.reporter import Reporter
from outgate.policy.reports import NodeReport, PolicyReport
from outgate.source.client import Client
from outgate.state.entries import InterfaceIndex, NodeName
from outgate.state.facts import Link, NodeFacts

GATEWAYS = "/apis/cilium.io/v2/ciliumegressgatewaypolicies"
NAT = "/apis/cilium.io/v2alpha1/ciliumegressnatpolicies"
EGRESS = {"egress": "yes"}


@dataclass
class Agent:
    """What stands for the agent of one node: it says that all is in its kernel."""

    client: Client
    node: str
    address: str
    policies: dict[str, PolicyReport] = field(default_factory=dict)
    is_ready: bool = True
    is_alive: bool = True

    def __post_init__(self) -> None:
        self.reporter = Reporter(self.client, self.report, lambda: True)

    def report(self) -> NodeReport:
        eth0 = Link("eth0", InterfaceIndex(2), addresses=(ip_address(self.address),))
        return NodeReport(
            node=NodeName(self.node),
            is_ready=self.is_ready,
            message="" if self.is_ready else "the last round failed",
            facts=NodeFacts((eth0,), "eth0"),
            policies=dict(self.policies),
        )

    async def look(self) -> None:
        if self.is_alive:
            await self.reporter.look()

    def program(self, policy: Any, **changes: Any) -> None:
        """Say that *policy*, as the API gave it, has its rows in the kernel."""
        metadata = policy["metadata"]
        done = PolicyReport(
            policy["kind"], metadata["name"], metadata["generation"], True
        )
        self.policies[metadata["uid"]] = replace(done, **changes)


async def make_node(
    client: Client, name: str, address: str, labels: dict[str, str] | None = None
) -> None:
    body: dict[str, Any] = {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"podCIDR": f"10.0.{address.rpartition('.')[2]}.0/24"},
    }
    made = await client.request("POST", "/api/v1/nodes", body=body)
    made["status"] = {"addresses": [{"type": "InternalIP", "address": address}]}
    await client.request("PUT", f"/api/v1/nodes/{name}/status", body=made)


async def make_pod(client: Client, name: str, node: str, address: str) -> None:
    path = "/api/v1/namespaces/default/pods"
    body: dict[str, Any] = {
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    }
    made = await client.request("POST", path, body=body)
    made["status"] = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
    }
    await client.request("PUT", f"{path}/{name}/status", body=made)


def gateway_policy(name: str = "web", **gateway: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumEgressGatewayPolicy",
        "metadata": {"name": name},
        "spec": {
            "selectors": [{"podSelector": {"matchLabels": {"app": "web"}}}],
            "destinationCIDRs": ["203.0.113.0/24"],
            "egressGateway": {"nodeSelector": {"matchLabels": EGRESS}, **gateway},
        },
    }
