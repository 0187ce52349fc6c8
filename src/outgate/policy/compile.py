"""
The heart of the project: a cluster and a node's facts -> what its kernel must hold.

What it is: pure and deterministic.  The order of objects does not matter, and every
agent that sees the same cluster agrees on gateways and winners.

What it is not: it changes nothing; ``state.plan`` compares its snapshot with what
the kernel holds, ``reconcile`` applies the difference.

Who calls it: the agent each round, and ``outgate policy plan`` without a cluster.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from outgate.policy.addresses import (
    endpoint_entries,
    held_node_addresses,
    ipcache_entries,
    is_never_routed,
    link_addresses,
    local_pods,
    node_entries,
    strangers,
)
from outgate.policy.attachments import attachment_entries
from outgate.policy.endpoints import DoubtfulPod, address_holders, find_doubtful_pods
from outgate.policy.gateways import decide, nodes_by_address
from outgate.policy.model import Cluster, EgressPolicy, Problem
from outgate.policy.rows import DecidedPolicy, compile_rows
from outgate.state.entries import (
    Address,
    CoveredEntry,
    CoveredKey,
    Key,
    NodeName,
    PolicyId,
    TunnelDevice,
    TunnelKey,
    Value,
    ViaGateway,
)
from outgate.state.facts import NodeFacts
from outgate.state.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Compiled:
    """
    What a node should hold, what the user should know, and what must stay.

    *kept_policies* are bad policies of which no good version is known: what the
    kernel still holds for them stays as it is.  *doubtful_pods* are the pods of this
    node that such policies select (``doubt`` says what becomes of them).
    """

    snapshot: Snapshot
    problems: tuple[Problem, ...] = ()
    kept_policies: frozenset[PolicyId] = frozenset()
    doubtful_pods: tuple[DoubtfulPod, ...] = ()


def compile_node(
    cluster: Cluster, node: NodeName, facts: NodeFacts, tunnel: TunnelDevice
) -> Compiled:
    """Return everything that the kernel of *node* should hold for *cluster*."""
    holders, contested = address_holders(cluster.endpoints)
    namespaces = {namespace.name: namespace for namespace in cluster.namespaces}
    pods = local_pods(node, holders, namespaces)
    policies = _decide_policies(cluster, node, facts)
    compiled = compile_rows(node, holders, namespaces, policies)
    of_node = frozenset(a for n in cluster.nodes if n.name == node for a in n.addresses)
    egress_ips = {
        entry.egress_ip
        for p in policies
        if p.decision.gateway_node == node
        for entry in p.decision.entries.values()
        if isinstance(entry, ViaGateway)
    }
    snapshot: dict[Key, Value] = {
        TunnelKey(): tunnel,
        **node_entries(cluster, node),
        **ipcache_entries(cluster, node, holders),
        **_covered_entries(policies),
        **compiled.rows,
        **endpoint_entries(
            of_node | link_addresses(facts),
            egress_ips,
            pods,
            compiled.other_family,
            compiled.selected,
        ),
        **attachment_entries(facts, of_node, tunnel.name),
    }
    problems = (
        *(problem for bad in cluster.bad_policies for problem in bad.problems),
        *(problem for p in policies for problem in p.decision.problems),
        *(problem for p in policies for problem in _never_routed(p.policy)),
        *compiled.problems,
        *contested,
        *_missing_node(cluster, node),
        *_unknown_networks(cluster, node, pods),
    )
    good = {policy.id for policy in cluster.policies}
    kept = [bad for bad in cluster.bad_policies if bad.id not in good]
    return Compiled(
        snapshot=snapshot,
        problems=tuple(sorted(set(problems), key=_order)),
        kept_policies=frozenset(bad.id for bad in kept),
        doubtful_pods=find_doubtful_pods(node, holders, namespaces, kept),
    )


def compile_unlisted(
    held: Snapshot, facts: NodeFacts, tunnel: TunnelDevice
) -> Compiled:
    """
    Return what a node should hold before its cluster is known: its programs.

    Which interfaces get programs depends on the node alone.  Where an earlier agent
    filled the maps (*held*), they are needed at once: without them the packets of a
    pod that comes now would leak for as long as the source is away.  Empty maps
    cover nothing; there, programs wait until the maps are filled.
    """
    own = held_node_addresses(held)
    if not own:
        return Compiled(snapshot={})
    attachments = attachment_entries(facts, own, tunnel.name)
    return Compiled(snapshot={TunnelKey(): tunnel, **attachments})


def _decide_policies(
    cluster: Cluster, node: NodeName, facts: NodeFacts
) -> tuple[DecidedPolicy, ...]:
    owners = nodes_by_address(cluster.nodes)
    own = link_addresses(facts)
    return tuple(
        DecidedPolicy(policy, decide(policy, owners, node, own))
        for policy in sorted(cluster.policies, key=lambda policy: policy.seniority)
    )


def _missing_node(cluster: Cluster, node: NodeName) -> tuple[Problem, ...]:
    if any(other.name == node for other in cluster.nodes):
        return ()
    message = (
        "the cluster has no such node, so no pod is known here and covered traffic is"
        " dropped; is the agent's setting node the name of a Node?"
    )
    return (Problem(f"Node {node}", "metadata.name", message),)


def _unknown_networks(
    cluster: Cluster, node: NodeName, pods: Iterable[Address]
) -> tuple[Problem, ...]:
    """Tell of pods in networks where a new pod would not be taken for one."""
    covered = {net.version for p in cluster.policies for net in p.destinations}
    first: dict[int, Address] = {}
    for address in strangers(cluster, pods):
        first.setdefault(address.version, address)
    return tuple(
        Problem(
            f"Node {node}",
            "spec.podCIDRs",
            f"{address} lies in no pod network of any node, so a new pod like it may"
            " leave under its own address until its agent knows it; name the IPv"
            f"{version} pod networks in the agents' setting cluster-networks",
        )
        for version, address in first.items()
        if version in covered
    )


def _never_routed(policy: EgressPolicy) -> tuple[Problem, ...]:
    return tuple(
        Problem(
            policy.reference,
            f"spec.destinationCIDRs[{index}]",
            f"{network}: link-local, multicast and loopback addresses are never sent"
            " to a gateway, so this has no effect; remove it",
        )
        for index, network in enumerate(policy.destinations)
        if is_never_routed(network)
    )


def _covered_entries(
    policies: tuple[DecidedPolicy, ...],
) -> dict[Key, Value]:
    """Return every destination, with the first policy that names it."""
    entries: dict[Key, Value] = {}
    for decided in policies:
        for network in decided.policy.destinations:
            if is_never_routed(network):
                continue
            entries.setdefault(CoveredKey(network), CoveredEntry(decided.policy.id))
    return entries


def _order(problem: Problem) -> tuple[str, str, str]:
    return problem.object, problem.path, problem.message
