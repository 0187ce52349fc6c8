"""
The made-up cluster of the scale cases: who is where, and which rows follow.  Pure.

What it is: sizes and names, and the rows that each node's map must hold.  What it is
not: JSON (``objects``) or a server (``store``, ``apiserver``).

The plan: pod ``i`` lives on node ``i // 20`` and runs application ``i % policies``;
policy ``n`` selects application ``n`` and leaves through gateway ``n % gateways``,
which is the node of that number.  A smaller cluster has fewer of everything in equal
shares, so that one node's work stays the same: what then costs less, depended on the
size of the cluster.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from typing import NamedTuple

PODS_PER_NODE = 20
NAMESPACES = 200
"""Those of pods; a cluster has some more."""

FIRST_POD_NETWORK = int(IPv4Address("10.0.0.0"))
FIRST_NODE_ADDRESS = int(IPv4Address("172.16.0.1"))
FIRST_DESTINATION = int(IPv4Address("20.0.0.0"))

_KEY, _VALUE = struct.Struct("=I4s4s"), struct.Struct("=4s4sIB3x")
_ROW_IS_GATEWAY = 1
_DESTINATION_BITS = 24


class PolicyKind(StrEnum):
    """How the policies of the cluster are written."""

    GATEWAY = "CiliumEgressGatewayPolicy"
    NAT = "CiliumEgressNATPolicy"


class Pod(NamedTuple):
    """A pod; *host* is its place in its node's network, *version* of the object."""

    number: int
    node: int
    host: int
    app: int
    version: int = 1

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def namespace(self) -> str:
        return f"team-{self.number % NAMESPACES:03}"

    @property
    def name(self) -> str:
        return f"web-{self.number:06}-7c9f6d5b4"

    @property
    def address(self) -> IPv4Address:
        return IPv4Address(FIRST_POD_NETWORK + (self.node << 8) + self.host)


class Node(NamedTuple):
    """A node; its *version* rises with each heartbeat."""

    number: int
    version: int = 1

    @property
    def key(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        return node_name(self.number)


class Policy(NamedTuple):
    """A policy; its *networks* are numbers of ``destination``."""

    number: int
    app: int
    gateway: int
    networks: range
    version: int = 1

    @property
    def key(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        return f"egress-{self.number:04}"

    @property
    def uid(self) -> str:
        return uid(3, self.number)


@dataclass(frozen=True, slots=True)
class World:
    """Sizes of a cluster; *networks* are those of each policy."""

    nodes: int = 5000
    policies: int = 1000
    networks: int = 10
    gateways: int = 100
    kind: PolicyKind = PolicyKind.GATEWAY

    @property
    def pods(self) -> int:
        return self.nodes * PODS_PER_NODE

    @property
    def ordinary_node(self) -> int:
        """Return a node that is no gateway: the last."""
        return self.nodes - 1

    def pod(self, number: int) -> Pod:
        node, slot = divmod(number, PODS_PER_NODE)
        return Pod(number, node, 2 + slot, number % self.policies)

    def another_pod(self, number: int, node: int, app: int) -> Pod:
        """Return a pod that the cluster starts without: *number* counts from 0."""
        return Pod(self.pods + number, node, 100 + number % 150, app)

    def policy(self, number: int) -> Policy:
        first = number * self.networks
        networks = range(first, first + self.networks)
        return Policy(number, number, number % self.gateways, networks)

    def all_pods(self) -> Iterator[Pod]:
        return map(self.pod, range(self.pods))

    def all_policies(self) -> Iterator[Policy]:
        return map(self.policy, range(self.policies))

    def apps_of(self, gateway: int) -> range:
        """Return the applications that leave through *gateway*."""
        return range(gateway, self.policies, self.gateways)


def uid(kind: int, number: int) -> str:
    """Return what looks like a uid, the same in every run."""
    return f"{kind:08x}-5ca1-4e00-8000-{number:012x}"


def node_name(number: int) -> str:
    return f"node-{number:05}"


def node_address(number: int) -> IPv4Address:
    """Return the node's address; a gateway's is the egress IP of its policies too."""
    return IPv4Address(FIRST_NODE_ADDRESS + number)


def destination(number: int) -> str:
    """Return a network outside of the cluster."""
    return f"{IPv4Address(FIRST_DESTINATION + (number << 8))}/{_DESTINATION_BITS}"


Rows = dict[bytes, bytes]


def rows_of(pod: Pod, policy: Policy, identifier: int) -> Rows:
    """
    Return the rows of *pod*, as bytes of ``cilium_egress_v4``.

    Written down again here rather than borrowed from ``outgate.kernel``: a check that
    uses what it checks finds nothing.
    """
    source = pod.address.packed
    gateway = node_address(policy.gateway).packed
    value = _VALUE.pack(gateway, gateway, identifier, _ROW_IS_GATEWAY)
    return {row_key(source, network): value for network in policy.networks}


def row_key(source: bytes, network: int) -> bytes:
    packed = (FIRST_DESTINATION + (network << 8)).to_bytes(4, "big")
    return _KEY.pack(32 + _DESTINATION_BITS, source, packed)


def rows_on(
    node: int,
    pods: Iterable[Pod],
    policies: Iterable[Policy],
    identifiers: dict[int, int],
) -> Rows:
    """
    Return all rows of one node: its own pods, and those that it is the gateway of.

    Shape: *identifiers* are the datapath's numbers of policies by their own.
    """
    by_app = {policy.app: policy for policy in policies}
    rows: Rows = {}
    for pod in pods:
        policy = by_app.get(pod.app)
        if policy is not None and node in (pod.node, policy.gateway):
            rows |= rows_of(pod, policy, identifiers[policy.number])
    return rows
