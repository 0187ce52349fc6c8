"""
Which node carries an egress IP, and what that means for a row.

What it is: deterministic, from the cluster alone, so that every agent agrees; only
the gateway node itself also looks at the addresses it really has.

What it is not: health checks or load sharing; a later resource with node selectors
gets its choice here too.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from outgate.policy.addresses import is_never_routed
from outgate.policy.model import EgressPolicy, Node, Problem
from outgate.state.entries import (
    Address,
    Family,
    NodeName,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    ViaGateway,
    family_of,
)


@dataclass(frozen=True, slots=True)
class Decision:
    """
    What the rows of a policy say, as seen from one node.

    Shape: *entries* is by the family of a row.  *gateway_node* is None when no node
    can be it; *problems* tell the user why selected pods are dropped.
    """

    entries: Mapping[Family, PolicyEntry]
    gateway_node: NodeName | None
    problems: tuple[Problem, ...] = ()


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
        no_gateway = dict.fromkeys(Family, NoGateway(policy.id))
        return Decision(no_gateway, None, (problem,))
    endpoint = _endpoint(owner, egress_ip)
    entry: PolicyEntry = ViaGateway(egress_ip, endpoint, policy.id)
    problems = _without_egress_ip(policy)
    if owner.name == node and egress_ip not in own_addresses:
        problem = Problem(
            policy.reference,
            "spec.egressSourceIP",
            f"node {node} should have {egress_ip}, but none of its interfaces"
            " carries it, so what this policy covers is dropped; add the address",
        )
        entry, problems = NoEgressIP(endpoint, policy.id), (problem, *problems)
    entries = {family: _lacking(policy, endpoint, family) for family in Family}
    return Decision(
        {**entries, family_of(egress_ip): entry}, owner.name, tuple(problems)
    )


def _endpoint(owner: Node, egress_ip: Address) -> Address:
    """Return where packets for *egress_ip* are tunnelled: an IPv4 one is both."""
    if family_of(egress_ip) is Family.V4:
        return egress_ip
    return owner.tunnel_endpoint or egress_ip


def _lacking(policy: EgressPolicy, endpoint: Address, family: Family) -> PolicyEntry:
    """Return the rows of a family in which *policy* has no egress IP."""
    if family is Family.V4 and family_of(endpoint) is Family.V6:
        # Rows of IPv4 have no room for the address of such a gateway.
        return NoGateway(policy.id)
    return NoEgressIP(endpoint, policy.id)


def _without_egress_ip(policy: EgressPolicy) -> tuple[Problem, ...]:
    egress_ip = policy.gateway.egress_ip
    return tuple(
        Problem(
            policy.reference,
            f"spec.destinationCIDRs[{index}]",
            f"{network}: no pod can leave to an IPv{network.version} network under"
            f" {egress_ip}, so what this policy covers there is dropped; put the"
            f" network into a policy with an IPv{network.version} egressSourceIP",
        )
        for index, network in enumerate(policy.destinations)
        if network.version != egress_ip.version and not is_never_routed(network)
    )
