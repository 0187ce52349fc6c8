"""
What every cluster starts with: namespaces, and what tells pods where the API is.

What it is: made at each start where it is missing, so that clients find the inside
of the cluster as they would in a real one: networks of services, the Service
``kubernetes`` and the addresses behind it.
What it is not: kept; who deletes one of these has it back at the next start.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from outgate.kubeapi.admission import WriteOptions
from outgate.kubeapi.objects import Objects, ServiceNetwork
from outgate.kubeapi.operations import create
from outgate.kubeapi.wire import JsonObject

Address = IPv4Address | IPv6Address

_OPTIONS = WriteOptions(manager="kube-apiserver")
_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_NAME = "kubernetes"
_PORT = 6443


def furnish(
    objects: Objects, networks: Sequence[ServiceNetwork], addresses: Sequence[Address]
) -> None:
    """Make what is missing; *networks* and *addresses* as in ``ApiServer``."""
    for name in _NAMESPACES:
        _make(objects, "Namespace", {"metadata": {"name": name}})
    _make(objects, "ServiceCIDR", _service_networks(networks))
    _make(objects, "Service", _service(str(networks[0][1])))
    if addresses:
        _make(objects, "EndpointSlice", _endpoints(addresses))


def _make(objects: Objects, kind: str, body: JsonObject) -> None:
    resource = objects.catalogue.built_in(kind)
    namespace = "default" if resource.kind.namespaced else ""
    if objects.find(resource, (namespace, body["metadata"]["name"])) is None:
        create(objects, resource, (namespace, ""), body, _OPTIONS)


def _service_networks(networks: Sequence[ServiceNetwork]) -> JsonObject:
    return {
        "metadata": {"name": _NAME},
        "spec": {"cidrs": [str(network) for network in networks]},
    }


def _service(address: str) -> JsonObject:
    return {
        "metadata": {
            "name": _NAME,
            "labels": {"component": "apiserver", "provider": _NAME},
        },
        "spec": {
            "clusterIP": address,
            "ports": [{"name": "https", "port": 443, "targetPort": _PORT}],
        },
    }


def _endpoints(addresses: Sequence[Address]) -> JsonObject:
    """The one slice, of the primary family, as the real API makes it."""
    version = addresses[0].version
    of_family = [str(address) for address in addresses if address.version == version]
    return {
        "metadata": {
            "name": _NAME,
            "labels": {"kubernetes.io/service-name": _NAME},
        },
        "addressType": f"IPv{version}",
        "endpoints": [
            {"addresses": [a], "conditions": {"ready": True}} for a in of_family
        ],
        "ports": [{"name": "https", "port": _PORT, "protocol": "TCP"}],
    }
