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
    pod CIDRs.
    """

    name: NodeName
    internal_addresses: tuple[Address, ...] = ()
    external_addresses: tuple[Address, ...] = ()
    labels: Labels = field(default_factory=dict)
    pod_networks: tuple[Network, ...] = ()

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

    @property
    def reference(self) -> str:
        """Return the pod as users write it."""
        return f"Pod {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class GatewayAtAddress:
    """
    The gateway is the node that has *egress_ip*, and pods leave under it.

    CiliumEgressNATPolicy's egressSourceIP means both at once.
    """

    egress_ip: Address


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """
    Which pods must leave to which networks through which gateway.

    Shape: a pod is selected when any of *selectors* matches its identity labels
    (``endpoints.identity_labels``); *destinations* stand as the user wrote them,
    repetitions included, so that their index names them; *created* as in
    ``Endpoint``.
    """

    kind: str
    name: str
    uid: str
    created: str
    id: PolicyId
    selectors: tuple[Selector, ...]
    destinations: tuple[Network, ...]
    gateway: GatewayAtAddress

    @property
    def reference(self) -> str:
        """Return the policy as users write it."""
        return f"{self.kind} {self.name}"

    def selects(self, labels: Labels) -> bool:
        """Return whether a pod with these identity labels is covered."""
        return any(selector.matches(labels) for selector in self.selectors)

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

    *selectors* are as in ``EgressPolicy``, empty when they are what is wrong.
    """

    kind: str
    name: str
    uid: str
    id: PolicyId
    problems: tuple[Problem, ...]
    selectors: tuple[Selector, ...] = ()


@dataclass(frozen=True, slots=True)
class Cluster:
    """
    Everything that one node's entries are computed from, apart from its own facts.

    *policies* may hold the last good version of one that is now in *bad_policies*.
    *cluster_networks* are service networks and the like: inside, though no pod's.
    """

    nodes: tuple[Node, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    policies: tuple[EgressPolicy, ...] = ()
    bad_policies: tuple[BadPolicy, ...] = ()
    cluster_networks: tuple[Network, ...] = ()


def policy_id(uid: str, api_version: str, kind: str, name: str) -> PolicyId:
    """
    Return the number by which the datapath knows a policy, the same on every node.

    Derived from *uid*, or from the rest for a policy that no API server has seen.
    """
    seed = uid or f"{api_version}/{kind}/{name}"
    digest = hashlib.blake2b(seed.encode(), digest_size=4).digest()
    return PolicyId(int.from_bytes(digest, "big") or 1)
