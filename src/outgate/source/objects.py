"""
The few fields of Kubernetes objects that we need, and the model values they become.

What it is: msgspec Structs for partial, typed decoding (a pod of 6 KB costs the few
fields named here), shared by the API source and by files.

What it is not: a judge of policies.  A policy's spec stays undecoded JSON until
``policy.parse`` reads it.
"""

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address, ip_network

import msgspec

from outgate.policy.model import BadPolicy, EgressPolicy, Endpoint, Namespace, Node
from outgate.policy.parse import parse_policy
from outgate.state.entries import Address, Network, NodeName

INTERNAL = "InternalIP"
EXTERNAL = "ExternalIP"
FINISHED_PHASES = ("Succeeded", "Failed")


class Metadata(msgspec.Struct, rename="camel", gc=False):
    """What every object has; *resource_version* is opaque text."""

    name: str = ""
    namespace: str | None = None
    uid: str | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    resource_version: str | None = None
    labels: dict[str, str] | None = None

    @property
    def key(self) -> str:
        """Return what names the object among those of its kind."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class _NodeAddress(msgspec.Struct, gc=False):
    type: str = ""
    address: str = ""


class _NodeSpec(msgspec.Struct, rename={"pod_cidr": "podCIDR"}, gc=False):
    pod_cidr: str | None = None
    pod_cidrs: list[str] | None = msgspec.field(default=None, name="podCIDRs")


class _NodeStatus(msgspec.Struct, gc=False):
    addresses: list[_NodeAddress] | None = None


class NodeObject(msgspec.Struct, gc=False):
    """A Node, as far as we look."""

    metadata: Metadata
    spec: _NodeSpec | None = None
    status: _NodeStatus | None = None

    def to_model(self) -> Node:
        """Return the node as policies see it."""
        addresses = (self.status and self.status.addresses) or []
        spec = self.spec or _NodeSpec()
        cidrs = spec.pod_cidrs or ([spec.pod_cidr] if spec.pod_cidr else [])
        return Node(
            name=NodeName(self.metadata.name),
            internal_addresses=_addresses(
                a.address for a in addresses if a.type == INTERNAL
            ),
            external_addresses=_addresses(
                a.address for a in addresses if a.type == EXTERNAL
            ),
            labels=self.metadata.labels or {},
            pod_networks=_networks(cidrs),
        )


class NamespaceObject(msgspec.Struct, gc=False):
    """A Namespace, as far as we look."""

    metadata: Metadata

    def to_model(self) -> Namespace:
        """Return the namespace as policies see it."""
        return Namespace(self.metadata.name, self.metadata.labels or {})


class _PodIP(msgspec.Struct, gc=False):
    ip: str = ""


class _PodSpec(msgspec.Struct, rename="camel", gc=False):
    node_name: str | None = None
    host_network: bool | None = None


class _PodStatus(msgspec.Struct, gc=False):
    phase: str | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    pod_ips: list[_PodIP] | None = msgspec.field(default=None, name="podIPs")


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
            namespace=self.metadata.namespace or "default",
            name=self.metadata.name,
            uid=self.metadata.uid or "",
            created=self.metadata.creation_timestamp or "",
            addresses=_addresses(texts),
            labels=self.metadata.labels or {},
            node=NodeName(spec.node_name or ""),
            is_host_network=bool(spec.host_network),
            is_terminating=self.metadata.deletion_timestamp is not None,
            is_finished=status.phase in FINISHED_PHASES,
        )


class PolicyObject(msgspec.Struct, gc=False):
    """An egress policy; *spec* is what the user wrote, whatever that is."""

    metadata: Metadata
    spec: object = None

    def to_model(self) -> EgressPolicy | BadPolicy:
        """Return the policy, or what is wrong with it."""
        metadata = {
            "name": self.metadata.name,
            "uid": self.metadata.uid,
            "creationTimestamp": self.metadata.creation_timestamp,
        }
        return parse_policy({"metadata": metadata, "spec": self.spec})


def _addresses(texts: Iterable[str]) -> tuple[Address, ...]:
    """
    Return what can be read as an address that others reach.

    Left out, a pod's address is unknown to the datapath: what it sends to covered
    networks is dropped.
    """
    found = []
    for text in texts:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        if not (isinstance(address, IPv6Address) and _is_local_ipv6(address)):
            found.append(address)
    return tuple(found)


def _is_local_ipv6(address: IPv6Address) -> bool:
    """Return whether *address* means something on one link or one host only."""
    return (
        address.is_link_local
        or address.is_loopback
        or address.is_multicast
        or address.is_unspecified
        or address.scope_id is not None
        or address.ipv4_mapped is not None
    )


def _networks(texts: Iterable[str]) -> tuple[Network, ...]:
    found: list[Network] = []
    for text in texts:
        try:
            found.append(ip_network(text, strict=False))
        except ValueError:
            continue
    return tuple(found)
