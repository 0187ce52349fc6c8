"""
What becomes of one connection, and why: ``outgate explain``.

What it is: pure; it asks the compiler what the pod's node and its gateway hold, and
tells it in the user's words: which policy wins, which were beaten, which gateway and
address, or why nothing covers the connection.

What it is not: a second opinion.  ``compile_node`` decides; ``contest``, ``misses`` and
``candidates`` say why, and a property test holds them to it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import ip_network
from typing import assert_never

from outgate.policy.candidates import Candidate, candidates_for, entry_elsewhere
from outgate.policy.compile import compile_node
from outgate.policy.contest import Contender, contend, networks_for
from outgate.policy.endpoints import AddressBook, pod_key
from outgate.policy.gateways import resolve_egress_ips
from outgate.policy.misses import Miss, nearest_misses
from outgate.policy.model import (
    NO_NODE,
    BadPolicy,
    Cluster,
    EgressPolicy,
    Endpoint,
    GatewayAtAddress,
    Labels,
)
from outgate.policy.never import is_never_routed
from outgate.policy.selection import Selection
from outgate.state.entries import (
    WORLD,
    Address,
    Excluded,
    IpcacheEntry,
    IpcacheKey,
    Network,
    NodeName,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    RowSet,
    RowsKey,
    TunnelDevice,
    ViaGateway,
    family_of,
)
from outgate.state.facts import NodeFacts
from outgate.state.snapshot import Snapshot

TUNNEL = TunnelDevice("outgate_vx", 4789)
"""Any will do: no row depends on it."""

Facts = Mapping[NodeName, NodeFacts]


class Outcome(StrEnum):
    """What becomes of the connection; the first four are kinds of rows."""

    GATEWAY = "gateway"
    EXCLUDED = "excluded"
    NO_GATEWAY = "no-gateway"
    NO_EGRESS_IP = "no-egress-ip"
    NOT_COVERED = "not-covered"
    UNKNOWN = "unknown"
    """
    Nobody can say: the pod's node does not know it, and drops what policies cover, or
    a policy is bad that may cover it.
    """


@dataclass(frozen=True, slots=True)
class Row:
    """The row that the pod's node finds for the destination."""

    source: Address
    destination: Network
    entry: PolicyEntry


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    What becomes of packets from *pod* to *destination*.

    *reason* is one sentence; *row* is there whenever the pod's node has one, also
    where the destination is inside the cluster, which goes before.  *contenders* are
    in order, the winner first; *candidates* are those of the winner's gateways.
    *egress_ip* and *interface* are as the gateway has them, None and empty as long as
    nobody but the gateway knows.  *bad_policies* are not judged: agents may keep an
    earlier version of them in force.
    """

    pod: Endpoint
    destination: Address
    outcome: Outcome
    reason: str
    row: Row | None = None
    policy: EgressPolicy | None = None
    gateway: NodeName | None = None
    egress_ip: Address | None = None
    interface: str = ""
    contenders: tuple[Contender, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    misses: tuple[Miss, ...] = ()
    bad_policies: tuple[BadPolicy, ...] = ()


def explain(
    cluster: Cluster,
    pod: Endpoint,
    destination: Address,
    facts: Facts,
    imagined: Collection[NodeName] = (),
) -> Explanation:
    """
    Return what becomes of packets from *pod*, which *cluster* has, to *destination*.

    *facts* are what nodes observe, as far as known: the pod's node is taken to have
    no addresses without them, and a gateway to have what its policy says, also where
    its facts are only *imagined*.
    """
    reason = _never_covered(pod, destination)
    if reason:
        return Explanation(pod, destination, Outcome.NOT_COVERED, reason)
    source = source_of(pod, destination)
    unknown = _unknown_pod(cluster, pod, source)
    if source is None or unknown:
        return Explanation(pod, destination, Outcome.UNKNOWN, unknown)
    own = facts.get(pod.node, NodeFacts())
    snapshot = compile_node(cluster, pod.node, own, TUNNEL).snapshot
    selecting, misses = _selecting(cluster, pod, destination)
    told = Explanation(
        pod,
        destination,
        Outcome.NOT_COVERED,
        reason=_inside(cluster, snapshot, destination),
        row=find_row(snapshot, source, destination),
        contenders=contend(selecting, destination),
        misses=misses,
        bad_policies=cluster.bad_policies,
    )
    if told.reason:
        return told
    if told.row is None and cluster.bad_policies:
        names = ", ".join(f"{bad.kind} {bad.name}" for bad in cluster.bad_policies)
        reason = (
            f"{names}: bad now, but an earlier version may be in force and cover it"
        )
        return replace(told, outcome=Outcome.UNKNOWN, reason=reason)
    if told.row is None:
        return replace(told, reason=_nobody_covers(selecting, destination))
    return _judge(told, told.row, cluster, facts, imagined)


def source_of(pod: Endpoint, destination: Address) -> Address | None:
    """Return the address of *pod* that packets to *destination* have."""
    of_family = [a for a in pod.addresses if a.version == destination.version]
    return of_family[0] if of_family else None


def find_row(snapshot: Snapshot, source: Address, destination: Address) -> Row | None:
    """Return what the map finds: the row of *source* with the longest prefix."""
    rows = snapshot.get(RowsKey(source))
    if not isinstance(rows, RowSet):
        return None
    holding = [network for network in rows if destination in network]
    if not holding:
        return None
    longest = max(holding, key=lambda network: network.prefixlen)
    return Row(source, longest, rows[longest])


def _never_covered(pod: Endpoint, destination: Address) -> str:
    """Return why no policy can cover the pair, empty when one could."""
    family = f"IPv{destination.version}"
    if pod.is_host_network:
        return "the pod uses its node's network: policies never cover such pods"
    if pod.is_finished:
        return "the pod has finished, and holds no address any more"
    if not pod.addresses:
        return "the pod has no address yet"
    if source_of(pod, destination) is None:
        return f"the pod has no {family} address"
    if is_never_routed(ip_network(destination)):
        return f"{destination} is of a link, a group or the host itself: never routed"
    return ""


def _unknown_pod(cluster: Cluster, pod: Endpoint, source: Address | None) -> str:
    """Return why the pod's node does not know it, empty when it does."""
    if pod.node == NO_NODE:
        return "the pod is on no node yet"
    book = AddressBook()
    for other in cluster.endpoints:
        book.replace(None, other)
    holder = book.holder(source) if source is not None else None
    if holder is None or holder.reference != pod.reference:
        whose = holder.reference if holder else "nobody"
        return f"{source} belongs to {whose} now, whose policies count"
    if all(namespace.name != pod.namespace for namespace in cluster.namespaces):
        return f"namespace {pod.namespace} is unknown, and so are its labels"
    return ""


def _selecting(
    cluster: Cluster, pod: Endpoint, destination: Address
) -> tuple[list[EgressPolicy], tuple[Miss, ...]]:
    """Return the policies that select *pod*, and why others do not."""
    selection = Selection()
    selection.put_pod(pod_key(pod), pod)
    for namespace in cluster.namespaces:
        selection.put_namespace(namespace.name, namespace)
    labels: dict[NodeName, Labels] = {n.name: n.labels for n in cluster.nodes}
    for name, of_node in labels.items():
        selection.put_node(name, of_node)
    for policy in cluster.policies:
        selection.put_policy(policy.reference, policy.rules)
    names = selection.policies_of(pod_key(pod))
    identity = selection.labels_of(pod_key(pod)) or {}
    others = sorted(
        (p for p in cluster.policies if p.reference not in names),
        key=lambda policy: policy.seniority,
    )
    misses = [
        nearest_misses(policy, identity, labels.get(pod.node, {}))
        for policy in others
        if networks_for(policy, destination)
    ]
    return (
        [p for p in cluster.policies if p.reference in names],
        tuple(miss for found in sorted(misses, key=len) for miss in found),
    )


def _inside(cluster: Cluster, snapshot: Snapshot, destination: Address) -> str:
    """Return what part of the cluster *destination* is, empty for the world."""
    known = {k.network: v for k, v in snapshot.items() if isinstance(k, IpcacheKey)}
    holding = [network for network in known if destination in network]
    if not holding:
        return ""
    network = max(holding, key=lambda each: each.prefixlen)
    entry = known[network]
    if not isinstance(entry, IpcacheEntry) or entry.identity == WORLD:
        return ""
    inside = "inside the cluster, whose traffic never enters a gateway"
    return f"{destination} is {_name_of(cluster, network, destination)}: {inside}"


def _name_of(cluster: Cluster, network: Network, destination: Address) -> str:
    for node in cluster.nodes:
        if destination in node.addresses:
            return f"an address of node {node.name}"
    for node in cluster.nodes:
        if network in node.pod_networks:
            return f"in {network}, pods of node {node.name}"
    if network in cluster.cluster_networks:
        return f"in {network}, a network of services or of the API server"
    return f"the address {network} of a pod"


def _nobody_covers(selecting: list[EgressPolicy], destination: Address) -> str:
    if not selecting:
        return "no policy selects the pod"
    names = ", ".join(sorted(policy.reference for policy in selecting))
    return f"{names}: selects the pod, but no network of it holds {destination}"


def _judge(
    told: Explanation,
    row: Row,
    cluster: Cluster,
    facts: Facts,
    imagined: Collection[NodeName],
) -> Explanation:
    """Return what the row means, as its gateway will see it."""
    policy = next(p for p in cluster.policies if p.id == row.entry.policy)
    is_excluded = isinstance(row.entry, Excluded)
    candidates = () if is_excluded else candidates_for(policy, told.pod, cluster.nodes)
    gateway = next((c.node for c in candidates if c.is_chosen), None)
    told = replace(told, policy=policy, candidates=candidates, gateway=gateway)
    entry: PolicyEntry = row.entry
    if isinstance(entry, ViaGateway) and gateway and gateway in facts:
        seen = compile_node(cluster, gateway, facts[gateway], TUNNEL).snapshot
        there = find_row(seen, row.source, told.destination)
        entry = there.entry if there is not None else entry
    if isinstance(entry, NoEgressIP) and gateway in imagined:
        entry = entry_elsewhere(
            policy, told.pod, cluster.nodes, family_of(told.destination)
        )
    by = f"{policy.reference} covers it"
    match entry:
        case ViaGateway():
            return replace(
                told,
                outcome=Outcome.GATEWAY,
                reason=f"{by}: it leaves through node {gateway} as"
                f" {entry.egress_ip or 'an address that only the gateway knows'}",
                egress_ip=entry.egress_ip,
                interface=entry.interface,
            )
        case NoEgressIP():
            why = _why_no_egress_ip(told, facts)
            reason = f"{by}, but gateway {gateway} lacks the egress IP: {why}; dropped"
            return replace(told, outcome=Outcome.NO_EGRESS_IP, reason=reason)
        case NoGateway():
            why = "no node can be its gateway"
            if gateway:
                why = f"gateway {gateway} has no IPv4 address to tunnel IPv4 packets to"
            reason = f"{by}, but {why}: dropped"
            return replace(told, outcome=Outcome.NO_GATEWAY, reason=reason)
        case Excluded():
            reason = f"{policy.reference} excludes {row.destination}: it leaves as if"
            reason += " no policy covered it"
            return replace(told, outcome=Outcome.EXCLUDED, reason=reason)
        case _:
            assert_never(entry)


def _why_no_egress_ip(told: Explanation, facts: Facts) -> str:
    """Return what the chosen gateway lacks, and what to do about it."""
    path = next(c.path for c in told.candidates if c.is_chosen)
    gateways = told.policy.gateways if told.policy is not None else ()
    gateway = next(g for g in gateways if g.path == path)
    family = family_of(told.destination)
    if isinstance(gateway, GatewayAtAddress) and family_of(gateway.egress_ip) != family:
        return f"{gateway.egress_ip} is no IPv{family} address"
    observed = facts.get(told.gateway or NO_NODE, NodeFacts())
    return resolve_egress_ips(gateway, observed, (family,)).reason
