"""
The cluster as policies see it: nodes, namespaces, pods, policies.

What it is: frozen values, the input of ``compile``.  Addresses and networks are of
both IP families, side by side.

What it is not: Kubernetes objects.  ``source.objects`` and ``parse`` make these
values and name what is wrong; nothing here can be wrong any more.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from outgate.policy.selectors import Selector
from outgate.state.entries import Address, Network, NodeName, PolicyId

Labels = Mapping[str, str]

NO_NODE = NodeName("")
"""Where a pod is that no scheduler has placed yet."""


@dataclass(frozen=True, slots=True)
class Node:
    """
    A node and what is reached through it.

    *internal_addresses* are in the order of the Node object.  *pod_networks* are its
    pod CIDRs.  *is_ready* is its condition Ready (a node without one counts as ready);
    *is_deleted* means that its object has a deletion timestamp.
    """

    name: NodeName
    internal_addresses: tuple[Address, ...] = ()
    external_addresses: tuple[Address, ...] = ()
    labels: Labels = field(default_factory=dict)
    pod_networks: tuple[Network, ...] = ()
    is_ready: bool = True
    is_deleted: bool = False

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Return the addresses of the node, internal ones first."""
        return self.internal_addresses + self.external_addresses

    @property
    def tunnel_endpoint(self) -> Address | None:
        """
        Return where other nodes send tunnelled packets; None when unknown.

        The first IPv4 address if there is one, for the pods of both families: the
        shorter outer header.  Internal addresses go before external ones.
        """
        for addresses in (self.internal_addresses, self.external_addresses):
            ordered = sorted(addresses, key=lambda address: address.version)
            if ordered:
                return ordered[0]
        return None


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace; its labels are what namespace selectors look at."""

    name: str
    labels: Labels = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    One pod with its addresses and labels.

    Shape: *created* is RFC 3339 in UTC as the API writes it, so that text order is
    time order; empty when unknown.  *is_terminating* pods run until they are gone;
    *is_finished* ones (Succeeded, Failed) have given their address back.
    *incarnation* is 32 bits that differ between pods, and between the times that one
    pod's containers were started: then its network may have been made anew.
    """

    namespace: str
    name: str
    uid: str = ""
    created: str = ""
    addresses: tuple[Address, ...] = ()
    labels: Labels = field(default_factory=dict)
    node: NodeName = NO_NODE
    is_host_network: bool = False
    is_terminating: bool = False
    is_finished: bool = False
    incarnation: int = 0

    @property
    def reference(self) -> str:
        """Return the pod as users write it."""
        return f"Pod {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One item of a policy's selectors: which pods, on which nodes.

    *pods* looks at identity labels (``endpoints.identity_labels``), *nodes* at the
    labels of the pod's node; None: pods of every node.
    """

    pods: Selector
    nodes: Selector | None = None


@dataclass(frozen=True, slots=True)
class GatewayAtAddress:
    """
    The gateway is the node that has *egress_ip*, and pods leave under it.

    CiliumEgressNATPolicy's egressSourceIP means both at once.  *path* is the field
    that says so, as in ``Problem``.
    """

    egress_ip: Address
    path: str = "spec.egressSourceIP"


@dataclass(frozen=True, slots=True)
class GatewayOnNodes:
    """
    One gateway among the nodes that *nodes* matches: egressGateway of
    CiliumEgressGatewayPolicy, or one item of egressGateways.

    At most one of *interface* and *egress_ip* is given; with neither, pods leave under
    the address of the interface with the default route.  *path* as above, for example
    ``spec.egressGateways[1]``.
    """

    nodes: Selector
    interface: str = ""
    egress_ip: Address | None = None
    path: str = field(default="spec.egressGateway", compare=False)


Gateway = GatewayAtAddress | GatewayOnNodes


@dataclass(frozen=True, slots=True)
class GatewayHealth:
    """
    What the controller last found of one node that a policy may leave through.

    From ``status.gateways`` of the policy, so that every agent knows the same.
    *is_usable* is False when the agent there is down or lacks the egress IP;
    *egress_ips* are those that the policy has there, at most one of each family.
    """

    node: NodeName
    is_usable: bool
    egress_ips: tuple[Address, ...] = ()
    interface: str = ""


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """
    Which pods must leave to which networks through which gateway.

    Shape: a pod is selected when any of *rules* selects it; *destinations* and
    *excluded* stand as the user wrote them, repetitions included, so that their index
    names them; *created* as in ``Endpoint``; of several *gateways* each pod gets one.
    *warnings* are fields that are right and still not what the user may think.
    """

    kind: str
    name: str
    uid: str
    created: str
    id: PolicyId
    rules: tuple[Rule, ...]
    destinations: tuple[Network, ...]
    gateways: tuple[Gateway, ...]
    excluded: tuple[Network, ...] = ()
    generation: int = 0
    health: tuple[GatewayHealth, ...] = ()
    warnings: tuple["Problem", ...] = ()

    @property
    def reference(self) -> str:
        """Return the policy as users write it."""
        return f"{self.kind} {self.name}"

    @property
    def seniority(self) -> tuple[bool, str, str, str]:
        """Order policies: the older first, then by name; undated ones are new."""
        return (not self.created, self.created, self.name, self.kind)


@dataclass(frozen=True, slots=True)
class Problem:
    """
    Something that the user should know, in the user's words.

    Shape: *object* as in ``EgressPolicy.reference``; *path* is a field path.
    """

    object: str
    path: str
    message: str


@dataclass(frozen=True, slots=True)
class BadPolicy:
    """
    A policy with at least one wrong field: shown, and never compiled.

    *rules* are as in ``EgressPolicy``, empty when they are what is wrong.
    """

    kind: str
    name: str
    uid: str
    id: PolicyId
    problems: tuple[Problem, ...]
    rules: tuple[Rule, ...] = ()
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Cluster:
    """
    Everything that one node's entries are computed from, apart from its own facts.

    *bad_policies* come after the policies: where both hold one of the same kind and
    name, the good one is its last good version.  *cluster_networks* are service
    networks, the API server and the like: inside, though no pod's.
    """

    nodes: tuple[Node, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    policies: tuple[EgressPolicy, ...] = ()
    bad_policies: tuple[BadPolicy, ...] = ()
    cluster_networks: tuple[Network, ...] = ()


@dataclass(slots=True)
class ClusterChanges:
    """
    Objects that came, changed or went (None) since the last look, by their keys.

    Level-triggered: only the last state of each object is here, in no order.  Keys
    are names, with ``namespace/`` before those of pods and ``Kind/`` before those of
    policies.  *networks* are what one source says of the inside of the cluster (a
    ServiceCIDR, the API server's addresses, a setting).
    """

    nodes: dict[str, Node | None] = field(default_factory=dict)
    namespaces: dict[str, Namespace | None] = field(default_factory=dict)
    pods: dict[str, Endpoint | None] = field(default_factory=dict)
    policies: dict[str, EgressPolicy | BadPolicy | None] = field(default_factory=dict)
    networks: dict[str, tuple[Network, ...] | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodQuery:
    """
    Pods that an API server is asked for; both empty: all pods.

    *labels* is a label selector as ``kubectl -l`` takes it.
    """

    namespace: str = ""
    labels: str = ""


def policy_id(uid: str, api_version: str, kind: str, name: str) -> PolicyId:
    """
    Return the number by which the datapath knows a policy, the same on every node.

    Derived from *uid*, or from the rest for a policy that no API server has seen.
    """
    seed = uid or f"{api_version}/{kind}/{name}"
    digest = hashlib.blake2b(seed.encode(), digest_size=4).digest()
    return PolicyId(int.from_bytes(digest, "big") or 1)
