"""
What users should know, in their words: of a policy's gateways, of a node's networks.

What it is: pure; each problem names the field, the value and the mend.
What it is not: all problems.  What a policy gets wrong by itself is told by ``parse``,
what it loses to others by ``rows``.
"""

from collections.abc import Collection, Iterator, Sequence

from outgate.policy.gateways import Chosen, Resolved
from outgate.policy.model import EgressPolicy, GatewayAtAddress, GatewayOnNodes, Problem
from outgate.policy.never import is_never_routed
from outgate.state.entries import Address, Family, NodeName, family_of

POD_NETWORKS = "spec.podCIDRs"
"""The field of a Node that tells where its pods are."""


def missing_node(node: NodeName) -> Problem:
    """Tell that the cluster lacks *node*."""
    message = (
        "the cluster has no such node, so no pod is known here and covered traffic is"
        " dropped; is the agent's setting node the name of a Node?"
    )
    return Problem(f"Node {node}", "metadata.name", message)


def unknown_networks(
    node: NodeName, strangers: Sequence[Address], covered: Collection[Family]
) -> Iterator[Problem]:
    """
    Tell of pods in networks where a new pod would not be taken for one.

    One for each family in which policies have destinations (*covered*).
    """
    first: dict[Family, Address] = {}
    for address in strangers:
        first.setdefault(family_of(address), address)
    for family, address in first.items():
        if family in covered:
            yield Problem(
                f"Node {node}",
                POD_NETWORKS,
                f"{address} lies in no pod network of any node, so a new pod like it"
                " may leave under its own address until its agent knows it; name the"
                f" IPv{family} pod networks in the agents' setting cluster-networks",
            )


def unusable_gateway(policy: EgressPolicy, choice: Chosen) -> list[Problem]:
    """Tell of a gateway that has no node, or only a bad one."""
    gateway = choice.gateway
    if choice.node is None:
        return [Problem(policy.reference, *_no_gateway(choice))]
    if choice.is_usable or isinstance(gateway, GatewayAtAddress):
        return []
    becomes = (
        "it is used because no node is better; make it ready or label another one"
        if choice.is_selected
        else "its pods leave through the other gateways until then"
    )
    return [Problem(policy.reference, gateway.path, f"{choice.reason}; {becomes}")]


def _no_gateway(choice: Chosen) -> tuple[str, str]:
    gateway = choice.gateway
    if isinstance(gateway, GatewayAtAddress):
        return gateway.path, (
            f"{choice.reason}, so what this policy covers is"
            " dropped; use an address of a node, as `kubectl get nodes -o wide`"
            " shows it"
        )
    return f"{gateway.path}.nodeSelector", (
        f"{choice.reason}, so it carries no pods, and without another gateway what this"
        " policy covers is dropped; label a node with what the selector asks for"
        " (`kubectl label node NODE KEY=VALUE`)"
    )


def lacking_egress_ip(
    policy: EgressPolicy, choice: Chosen, resolved: Resolved
) -> Problem:
    """Tell that the gateway lacks addresses; it is on this node, which knows."""
    gateway = choice.gateway
    if isinstance(gateway, GatewayAtAddress):
        return Problem(
            policy.reference,
            gateway.path,
            f"node {choice.node} should have {gateway.egress_ip}, but none of its"
            " interfaces carries it, so what this policy covers is dropped; add the"
            " address",
        )
    path = gateway.path
    path += ".interface" if gateway.interface else ""
    path += ".egressIP" if gateway.egress_ip is not None else ""
    return Problem(
        policy.reference,
        path,
        f"node {choice.node} is the gateway, but {resolved.reason}; until then what has"
        " no egress IP is dropped there",
    )


def without_egress_ip(
    policy: EgressPolicy, gateway: GatewayAtAddress, families: frozenset[Family]
) -> list[Problem]:
    """Tell of networks of the family in which an egressSourceIP has no address."""
    egress_ip = gateway.egress_ip
    if families <= {family_of(egress_ip)}:
        return []
    return [
        Problem(
            policy.reference,
            f"spec.destinationCIDRs[{index}]",
            f"{network}: no pod can leave to an IPv{network.version} network under"
            f" {egress_ip}, so what this policy covers there is dropped; put the"
            f" network into a policy with an IPv{network.version} egressSourceIP",
        )
        for index, network in enumerate(policy.destinations)
        if network.version != egress_ip.version and not is_never_routed(network)
    ]


def without_tunnel(
    policy: EgressPolicy, choice: Chosen, families: frozenset[Family]
) -> list[Problem]:
    """Tell that IPv4 packets cannot be tunnelled to the gateway."""
    endpoint = choice.tunnel_endpoint
    assert endpoint is not None
    assert isinstance(choice.gateway, GatewayOnNodes)
    if family_of(endpoint) is Family.V4 or Family.V4 not in families:
        return []
    message = (
        f"node {choice.node} has no IPv4 address to tunnel IPv4 packets to, so what"
        " this policy covers in IPv4 is dropped; choose a node with an IPv4 address"
    )
    return [Problem(policy.reference, f"{choice.gateway.path}.nodeSelector", message)]


def never_routed(policy: EgressPolicy) -> list[Problem]:
    """Tell of networks that are in no row, whatever a policy says."""
    return [
        Problem(
            policy.reference,
            f"spec.{field}[{index}]",
            f"{network}: link-local, multicast and loopback addresses are never sent"
            " to a gateway, so this has no effect; remove it",
        )
        for field, networks in (
            ("destinationCIDRs", policy.destinations),
            ("excludedCIDRs", policy.excluded),
        )
        for index, network in enumerate(networks)
        if is_never_routed(network)
    ]
