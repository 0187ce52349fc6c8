"""
The few fields of Kubernetes objects that we need, and the model values they become.

What it is: msgspec Structs for partial, typed decoding (a pod of 6 KB costs the few
fields named here), shared by the API source and by files.  What many objects have in
common (labels, names of nodes) is held once.

What it is not: a judge of policies.  A policy's spec stays undecoded JSON until
``policy.parse`` reads it.
"""

import sys
from ipaddress import ip_network
from zlib import crc32

import msgspec

from outgate.policy.model import (
    BadPolicy,
    EgressPolicy,
    Endpoint,
    Labels,
    Namespace,
    Node,
)
from outgate.policy.parse import parse_policy
from outgate.policy.reports import NodeReport, PolicyReport
from outgate.source.addresses import read_addresses, read_networks
from outgate.source.sharing import share_labels
from outgate.state.entries import Address, InterfaceIndex, Network, NodeName
from outgate.state.facts import Link, NodeFacts

INTERNAL = "InternalIP"
EXTERNAL = "ExternalIP"
FINISHED_PHASES = ("Succeeded", "Failed")

SERVICE_LABEL = "kubernetes.io/service-name"
"""The label of an EndpointSlice that names its Service."""

API_SERVER_SERVICE = ("default", "kubernetes")
"""The Service that stands for the API server, in its namespace."""


class Metadata(msgspec.Struct, rename="camel", gc=False):
    """What every object has; *resource_version* is opaque text."""

    name: str = ""
    namespace: str | None = None
    uid: str | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    labels: dict[str, str] | None = None

    @property
    def key(self) -> str:
        """Return what names the object among those of its kind."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def shared_labels(self) -> Labels:
        """Return the labels, as one object for all that have the same."""
        return share_labels(self.labels or {})


class _NodeAddress(msgspec.Struct, gc=False):
    type: str = ""
    address: str = ""


class _NodeSpec(msgspec.Struct, rename={"pod_cidr": "podCIDR"}, gc=False):
    pod_cidr: str | None = None
    pod_cidrs: list[str] | None = msgspec.field(default=None, name="podCIDRs")


class _Condition(msgspec.Struct, gc=False):
    type: str = ""
    status: str = ""


class _NodeStatus(msgspec.Struct, gc=False):
    addresses: list[_NodeAddress] | None = None
    conditions: list[_Condition] | None = None

    def addresses_of(self, kind: str) -> tuple[Address, ...]:
        return read_addresses(a.address for a in self.addresses or () if a.type == kind)


class NodeObject(msgspec.Struct, gc=False):
    """A Node, as far as we look."""

    metadata: Metadata
    spec: _NodeSpec | None = None
    status: _NodeStatus | None = None

    def to_model(self) -> Node:
        """Return the node as policies see it."""
        status, spec = self.status or _NodeStatus(), self.spec or _NodeSpec()
        cidrs = spec.pod_cidrs or ([spec.pod_cidr] if spec.pod_cidr else [])
        return Node(
            name=NodeName(sys.intern(self.metadata.name)),
            internal_addresses=status.addresses_of(INTERNAL),
            external_addresses=status.addresses_of(EXTERNAL),
            labels=self.metadata.shared_labels,
            pod_networks=read_networks(cidrs),
            is_ready=all(
                condition.status == "True"
                for condition in status.conditions or ()
                if condition.type == "Ready"
            ),
            is_deleted=self.metadata.deletion_timestamp is not None,
        )


class NamespaceObject(msgspec.Struct, gc=False):
    """A Namespace, as far as we look."""

    metadata: Metadata

    def to_model(self) -> Namespace:
        """Return the namespace as policies see it."""
        return Namespace(self.metadata.name, self.metadata.shared_labels)


class _PodIP(msgspec.Struct, gc=False):
    ip: str = ""


class _PodSpec(msgspec.Struct, rename="camel", gc=False):
    node_name: str | None = None
    host_network: bool | None = None


class _ContainerStatus(msgspec.Struct, gc=False):
    container_id: str | None = msgspec.field(default=None, name="containerID")


class _PodStatus(msgspec.Struct, gc=False):
    phase: str | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    pod_ips: list[_PodIP] | None = msgspec.field(default=None, name="podIPs")
    containers: list[_ContainerStatus] | None = msgspec.field(
        default=None, name="containerStatuses"
    )


class PodObject(msgspec.Struct, gc=False):
    """A Pod, as far as we look."""

    metadata: Metadata
    spec: _PodSpec | None = None
    status: _PodStatus | None = None

    def to_model(self) -> Endpoint:
        """Return the pod as policies see it."""
        spec, status = self.spec or _PodSpec(), self.status or _PodStatus()
        texts = [pod_ip.ip for pod_ip in status.pod_ips or ()]
        if not texts and status.pod_ip:
            texts = [status.pod_ip]
        return Endpoint(
            namespace=sys.intern(self.metadata.namespace or "default"),
            name=self.metadata.name,
            uid=self.metadata.uid or "",
            created=self.metadata.creation_timestamp or "",
            addresses=read_addresses(texts),
            labels=self.metadata.shared_labels,
            node=NodeName(sys.intern(spec.node_name or "")),
            is_host_network=bool(spec.host_network),
            is_terminating=self.metadata.deletion_timestamp is not None,
            is_finished=status.phase in FINISHED_PHASES,
            incarnation=self._incarnation(),
        )

    def _incarnation(self) -> int:
        containers = (self.status and self.status.containers) or ()
        identifiers = (container.container_id or "" for container in containers)
        return crc32("\n".join((self.metadata.uid or "", *identifiers)).encode())


class PolicyObject(msgspec.Struct, rename="camel", gc=False):
    """
    An egress policy; *spec* is what the user wrote, whatever that is.

    Items of an API server's list say neither *api_version* nor *kind*; who lists them
    knows.
    """

    metadata: Metadata
    api_version: str = ""
    kind: str = ""
    spec: object = None
    status: object = None

    def to_model(
        self, api_version: str = "", kind: str = ""
    ) -> EgressPolicy | BadPolicy:
        """Return the policy, or what is wrong with it; arguments win."""
        metadata = {
            "name": self.metadata.name,
            "uid": self.metadata.uid,
            "creationTimestamp": self.metadata.creation_timestamp,
            "generation": self.metadata.generation,
        }
        return parse_policy(
            {
                "apiVersion": api_version or self.api_version,
                "kind": kind or self.kind,
                "metadata": metadata,
                "spec": self.spec,
                "status": self.status,
            }
        )


class _ServiceCIDRSpec(msgspec.Struct, gc=False):
    cidrs: list[str] | None = None


class ServiceCIDRObject(msgspec.Struct, gc=False):
    """A ServiceCIDR: networks from which Services get their addresses."""

    metadata: Metadata
    spec: _ServiceCIDRSpec | None = None

    def to_model(self) -> tuple[Network, ...]:
        """Return networks that are inside the cluster."""
        return read_networks((self.spec and self.spec.cidrs) or ())


class _SliceEndpoint(msgspec.Struct, gc=False):
    addresses: list[str] | None = None


class EndpointSliceObject(msgspec.Struct, gc=False):
    """An EndpointSlice; only that of the API server matters."""

    metadata: Metadata
    endpoints: list[_SliceEndpoint] | None = None

    def to_model(self) -> tuple[Network, ...]:
        """Return the API server's addresses as networks; none for other services."""
        service = (self.metadata.labels or {}).get(SERVICE_LABEL)
        if (self.metadata.namespace or "default", service) != API_SERVER_SERVICE:
            return ()
        found = self.endpoints or ()
        texts = [text for endpoint in found for text in endpoint.addresses or ()]
        return tuple(dict.fromkeys(ip_network(a) for a in read_addresses(texts)))


class _Interface(msgspec.Struct, gc=False):
    name: str = ""
    altnames: list[str] | None = None
    addresses: list[str] | None = None


class _DefaultRoute(msgspec.Struct, gc=False):
    ipv4: str | None = None
    ipv6: str | None = None


class _NodePolicy(msgspec.Struct, gc=False):
    uid: str = ""
    kind: str = ""
    name: str = ""
    generation: int | None = None
    programmed: bool | None = None
    message: str | None = None


class _EgressNodeStatus(msgspec.Struct, rename="camel", gc=False):
    renew_time: str | None = None
    ready: bool | None = None
    message: str | None = None
    version: str | None = None
    interfaces: list[_Interface] | None = None
    default_route: _DefaultRoute | None = None
    policies: list[_NodePolicy] | None = None


class EgressNodeObject(msgspec.Struct, gc=False):
    """An EgressNode: what an agent tells of its node."""

    metadata: Metadata
    status: _EgressNodeStatus | None = None

    def to_model(self) -> NodeReport:
        """Return the report; an object without a status is one of no agent yet."""
        status = self.status or _EgressNodeStatus()
        route = status.default_route or _DefaultRoute()
        return NodeReport(
            node=NodeName(sys.intern(self.metadata.name)),
            is_ready=bool(status.ready),
            message=status.message or "",
            version=status.version or "",
            renew_time=status.renew_time or "",
            facts=NodeFacts(
                links=tuple(
                    Link(
                        name=interface.name,
                        index=InterfaceIndex(position),
                        addresses=read_addresses(interface.addresses or ()),
                        altnames=tuple(interface.altnames or ()),
                    )
                    for position, interface in enumerate(status.interfaces or (), 1)
                ),
                default_interface=route.ipv4 or None,
                default_interface_v6=route.ipv6 or None,
            ),
            policies={
                policy.uid: PolicyReport(
                    kind=policy.kind,
                    name=policy.name,
                    generation=policy.generation or 0,
                    is_programmed=bool(policy.programmed),
                    message=policy.message or "",
                )
                for policy in status.policies or ()
            },
        )
