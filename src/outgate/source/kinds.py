"""
The kinds of objects that the cluster is made of, and where an API server has them.

What it is: a table.  Which fields count is said in ``objects``.
"""

from collections.abc import Callable

import msgspec

from outgate.policy.model import BadPolicy, EgressPolicy
from outgate.source.objects import (
    EndpointSliceObject,
    Metadata,
    NamespaceObject,
    NodeObject,
    PodObject,
    PolicyObject,
    ServiceCIDRObject,
)
from outgate.source.wire import Kind, Raw, decoder

Policy = EgressPolicy | BadPolicy

_POLICY = msgspec.json.Decoder(PolicyObject)


def _policy_decoder(
    api_version: str, kind: str
) -> Callable[[Raw], tuple[Metadata, Policy]]:
    """Return a decoder for items of lists, which do not say what kind they are of."""

    def decode(raw: Raw) -> tuple[Metadata, Policy]:
        found = _POLICY.decode(raw)
        return found.metadata, found.to_model(api_version, kind)

    return decode


NODES = Kind("nodes", "/api/v1/nodes", decoder(NodeObject))
NAMESPACES = Kind("namespaces", "/api/v1/namespaces", decoder(NamespaceObject))
PODS = Kind("pods", "/api/v1/pods", decoder(PodObject))
NAT_POLICIES = Kind(
    "ciliumegressnatpolicies",
    "/apis/cilium.io/v2alpha1/ciliumegressnatpolicies",
    _policy_decoder("cilium.io/v2alpha1", "CiliumEgressNATPolicy"),
    may_be_missing=True,
)
GATEWAY_POLICIES = Kind(
    "ciliumegressgatewaypolicies",
    "/apis/cilium.io/v2/ciliumegressgatewaypolicies",
    _policy_decoder("cilium.io/v2", "CiliumEgressGatewayPolicy"),
    may_be_missing=True,
)
SERVICE_NETWORKS = Kind(
    "servicecidrs",
    "/apis/networking.k8s.io/v1/servicecidrs",
    decoder(ServiceCIDRObject),
    may_be_missing=True,
    former_path="/apis/networking.k8s.io/v1beta1/servicecidrs",
)
API_SERVERS = Kind(
    "endpointslices",
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
    decoder(EndpointSliceObject),
    may_be_missing=True,
)
