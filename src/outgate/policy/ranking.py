"""
Which node does a gateway's job best, as far as all agents know.

What it is: the order among the nodes that a gateway's selector matches, by their
objects and by what the controller wrote into the policy's status.
What it is not: the sharing of pods among several gateways (``gateways``).
"""

from outgate.policy.model import (
    EgressPolicy,
    Gateway,
    GatewayHealth,
    GatewayOnNodes,
    Node,
)
from outgate.policy.nodes import NodeIndex
from outgate.state.entries import NodeName

KNOWN, UNKNOWN, LACKING = range(3)
"""What is known of a node and the egress IP that it should have."""


def health_of(
    policy: EgressPolicy, gateway: Gateway, node: NodeName
) -> GatewayHealth | None:
    """
    Return what the controller last said of *gateway* on *node*.

    Several gateways of a policy may sit on one node: what names the egress IP or the
    interface comes first, then what says that the node is unusable.
    """
    of_node = [health for health in policy.health if health.node == node]
    if isinstance(gateway, GatewayOnNodes):
        for health in of_node:
            if gateway.egress_ip in health.egress_ips or (
                gateway.interface and gateway.interface == health.interface
            ):
                return health
    return min(of_node, key=lambda health: health.is_usable, default=None)


def best_node(
    policy: EgressPolicy, gateway: GatewayOnNodes, nodes: NodeIndex
) -> Node | None:
    """
    Return the best candidate; looks at no more of them than it must.

    Only nodes of which something special is known can be better than the first good
    one by name.
    """
    special = {health.node for health in policy.health}
    if gateway.egress_ip is not None:
        special.update(nodes.claimants(gateway.egress_ip))
    ranked = [
        (*_rank(policy, gateway, node), node.name, node)
        for node in map(nodes.get, special)
        if node is not None
        and node.tunnel_endpoint is not None
        and nodes.is_matching(node.name, gateway.nodes)
    ]
    best = min(ranked, key=lambda found: found[:3], default=None)
    enough = (False, UNKNOWN if gateway.egress_ip is not None else KNOWN)
    if best is not None and best[:2] < enough:
        return best[3]
    for name in nodes.matching(gateway.nodes):
        node = nodes.get(name)
        if node is None or node.tunnel_endpoint is None:
            continue
        found = (*_rank(policy, gateway, node), name, node)
        if best is None or found[:3] < best[:3]:
            best = found
        if found[:2] == enough:
            break
    return None if best is None else best[3]


def _rank(
    policy: EgressPolicy, gateway: GatewayOnNodes, node: Node
) -> tuple[bool, int]:
    health = health_of(policy, gateway, node.name) if policy.health else None
    return bool(why_bad(node, health)), knowledge(gateway, node, health)


def why_bad(node: Node, health: GatewayHealth | None) -> str:
    """Return why *node* should carry no pods, empty when nothing is known."""
    if node.is_deleted:
        return f"node {node.name} is being deleted"
    if not node.is_ready:
        return f"node {node.name} is not ready"
    if health is not None and not health.is_usable:
        return f"node {node.name} cannot do it now, as the policy's status says"
    return ""


def knowledge(gateway: Gateway, node: Node, health: GatewayHealth | None) -> int:
    """Return what is known of *node* and the egress IP of *gateway*."""
    wanted = gateway.egress_ip
    if wanted is None or wanted in node.addresses:
        return KNOWN
    if health is None:
        return UNKNOWN
    if wanted in health.egress_ips:
        return KNOWN
    return UNKNOWN if health.is_usable else LACKING
