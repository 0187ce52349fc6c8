"""
Which node carries an egress IP, and what that means for a row.

What it is: deterministic, from the cluster alone, so that every agent agrees; only
the gateway node itself also looks at the addresses it really has.

What it is not: health checks or load sharing; a later resource with node selectors
gets its choice here too.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from outgate.policy.model import EgressPolicy, Node, Problem
from outgate.state.entries import (
    Address,
    NodeName,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    ViaGateway,
)


@dataclass(frozen=True, slots=True)
class Decision:
    """
    What the rows of a policy say, as seen from one node.

    *gateway_node* is None when no node can be it; *problem* tells the user why
    selected pods are dropped, None when they are not.
    """

    entry: PolicyEntry
    gateway_node: NodeName | None
    problem: Problem | None = None


def nodes_by_address(nodes: Iterable[Node]) -> Mapping[Address, Node]:
    """Return which node has each address; of two that claim one, the first by name."""
    owners: dict[Address, Node] = {}
    for node in sorted(nodes, key=lambda node: node.name):
        for address in node.addresses:
            owners.setdefault(address, node)
    return owners


def decide(
    policy: EgressPolicy,
    owners: Mapping[Address, Node],
    node: NodeName,
    own_addresses: Set[Address],
) -> Decision:
    """
    Return the gateway of *policy* as *node* must program it.

    *own_addresses* are what links of *node* carry: an egress IP that the gateway
    lacks is a drop there, never another source address.
    """
    egress_ip = policy.gateway.egress_ip
    owner = owners.get(egress_ip)
    if owner is None:
        problem = Problem(
            policy.reference,
            "spec.egressSourceIP",
            f"no node has the address {egress_ip}, so what this policy covers is"
            " dropped; use an address of a node, as `kubectl get nodes -o wide`"
            " shows it",
        )
        return Decision(NoGateway(policy.id), None, problem)
    if owner.name == node and egress_ip not in own_addresses:
        problem = Problem(
            policy.reference,
            "spec.egressSourceIP",
            f"node {node} should have {egress_ip}, but none of its interfaces"
            " carries it, so what this policy covers is dropped; add the address",
        )
        return Decision(NoEgressIP(egress_ip, policy.id), owner.name, problem)
    return Decision(ViaGateway(egress_ip, egress_ip, policy.id), owner.name)
