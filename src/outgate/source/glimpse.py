"""
One look at a cluster, as far as one pod's traffic depends on it.

What it is: a few lists by the API client, for ``outgate explain``: nodes, policies,
what tells the inside of the cluster, and of pods only those that matter.
What it is not: a watch; nothing is kept, and what changes a moment later is not seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any

from outgate.errors import ConfigError, SourceError
from outgate.source.client import Client
from outgate.source.files import REPORT_KIND, Document
from outgate.state.entries import Address

PAGE = "500"
"""Objects of one page, as ``kubectl`` asks for."""

NEAR_NAMES = 5
PODS = "/api/v1/pods"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A list that is needed; a cluster may lack an *optional* kind."""

    api_version: str
    name: str
    path: str
    is_optional: bool = False
    labels: str = ""


KINDS = (
    Kind("v1", "Node", "/api/v1/nodes"),
    Kind(
        "cilium.io/v2",
        "CiliumEgressGatewayPolicy",
        "/apis/cilium.io/v2/ciliumegressgatewaypolicies",
        is_optional=True,
    ),
    Kind(
        "cilium.io/v2alpha1",
        "CiliumEgressNATPolicy",
        "/apis/cilium.io/v2alpha1/ciliumegressnatpolicies",
        is_optional=True,
    ),
    Kind(
        "networking.k8s.io/v1",
        "ServiceCIDR",
        "/apis/networking.k8s.io/v1/servicecidrs",
        is_optional=True,
    ),
    Kind(
        "networking.k8s.io/v1beta1",
        "ServiceCIDR",
        "/apis/networking.k8s.io/v1beta1/servicecidrs",
        is_optional=True,
    ),
    Kind(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        is_optional=True,
        labels="kubernetes.io/service-name=kubernetes",
    ),
    Kind(
        "outgate.io/v1alpha1",
        REPORT_KIND,
        "/apis/outgate.io/v1alpha1/egressnodes",
        is_optional=True,
    ),
)


@dataclass(frozen=True, slots=True)
class PodName:
    """A pod as users name one; *address* instead of a name when they gave that."""

    namespace: str
    name: str = ""
    address: Address | None = None

    @property
    def path(self) -> str:
        """Return where the API has the pod."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"


def parse_pod_name(text: str, namespace: str) -> PodName:
    """
    Read ``NAME``, ``NAMESPACE/NAME`` or an address.

    >>> parse_pod_name("shop/web-0", "default")
    PodName(namespace='shop', name='web-0', address=None)
    """
    try:
        return PodName(namespace, address=ip_address(text))
    except ValueError:
        before, slash, name = text.rpartition("/")
        return PodName(before if slash else namespace, name)


async def look(
    client: Client, wanted: PodName, destination: Address
) -> tuple[Json, list[Document]]:
    """
    Return the Pod that is asked about, and the documents that its traffic depends on.

    Errors: ``ConfigError`` when there is no such pod; ``SourceError``.
    """
    pod = await _find_pod(client, wanted)
    namespace = str(pod["metadata"]["namespace"])
    found = [*await _others(client, pod, destination), pod]
    described = await client.request("GET", f"/api/v1/namespaces/{namespace}")
    found.append({**described, "apiVersion": "v1", "kind": "Namespace"})
    for kind in KINDS:
        found += await _list(client, kind)
    return pod, [Document(_place(item), item) for item in found]


def no_such_pod(wanted: PodName, names: list[str]) -> ConfigError:
    """Return the error that tells near names, of those of the namespace."""
    if wanted.address is not None:
        return ConfigError(
            f"POD: no pod has the address {wanted.address}; name one as NAMESPACE/NAME"
        )
    near = get_close_matches(wanted.name, names, NEAR_NAMES, 0.5) or names[:NEAR_NAMES]
    there = f"did you mean: {', '.join(near)}?" if near else "it has no pods"
    return ConfigError(
        f"POD: namespace {wanted.namespace} has no pod {wanted.name!r}; {there}"
    )


async def _find_pod(client: Client, wanted: PodName) -> Json:
    if wanted.address is not None:
        found = await _pods_at(client, wanted.address)
        if not found:
            raise no_such_pod(wanted, [])
        return max(found, key=_is_alive)
    try:
        pod: Json = await client.request("GET", wanted.path)
    except SourceError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        path = f"/api/v1/namespaces/{wanted.namespace}/pods"
        items = await _pages(client, path, {})
        names = [str(item["metadata"]["name"]) for item in items]
        raise no_such_pod(wanted, sorted(names)) from error
    return _as_pod(pod)


def _is_alive(pod: Json) -> tuple[bool, str]:
    """Order pods with one address: the one that holds it last."""
    metadata = pod["metadata"]
    return "deletionTimestamp" not in metadata, str(metadata["creationTimestamp"])


async def _pods_at(client: Client, address: Address) -> list[Json]:
    """
    Return the pods with *address*, also those of which it is the second address.

    An API server finds pods by their first address only; for the other family it has
    to list them all.
    """
    first = await _pages(client, PODS, {"fieldSelector": f"status.podIP={address}"})
    if first:
        return [_as_pod(item) for item in first]
    everything = await _pages(client, PODS, {})
    return [_as_pod(item) for item in everything if str(address) in _addresses(item)]


async def _others(client: Client, pod: Json, destination: Address) -> list[Json]:
    """Return who else claims an address of *pod*, and the pod at *destination*."""
    found = []
    for address in (*_addresses(pod), str(destination)):
        query = {"fieldSelector": f"status.podIP={address}"}
        found += [_as_pod(item) for item in await _pages(client, PODS, query)]
    return found


def _as_pod(item: Json) -> Json:
    return {**item, "apiVersion": "v1", "kind": "Pod"}


def _addresses(pod: Json) -> list[str]:
    status = pod.get("status") or {}
    return [str(entry["ip"]) for entry in status.get("podIPs") or ()]


async def _list(client: Client, kind: Kind) -> list[Json]:
    query = {"labelSelector": kind.labels} if kind.labels else {}
    try:
        items = await _pages(client, kind.path, query)
    except SourceError as error:
        if kind.is_optional and error.status == HTTPStatus.NOT_FOUND:
            return []
        raise
    return [
        {**item, "apiVersion": kind.api_version, "kind": kind.name} for item in items
    ]


async def _pages(client: Client, path: str, query: Mapping[str, str]) -> list[Json]:
    found: list[Json] = []
    token = ""
    while True:
        page = {**query, "limit": PAGE, **({"continue": token} if token else {})}
        answer = await client.request("GET", path, params=page)
        found += answer["items"]
        token = (answer.get("metadata") or {}).get("continue") or ""
        if not token:
            return found


def _place(item: Json) -> str:
    return f"{item['kind']} {item['metadata']['name']}"
