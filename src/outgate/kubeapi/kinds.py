"""
Which kinds exist, and how each is spelled.

What it is: the table of built-in kinds, and the value that describes one kind in
one version; discovery, URLs, storage and printing all read this.
What it is not: their fields (``types/*.types`` and a CRD's schema say those), nor
the living list of kinds, which ``catalogue`` keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

from outgate.kubeapi.wire import JsonObject

STANDARD_VERBS = (
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind in one version; ``fields`` are its selectable field paths."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    singular: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    has_generation: bool = False
    custom: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """The storage name, the same for all versions: ``leases.coordination…``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def group_kind(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind

    def field_values(self, obj: JsonObject) -> dict[str, str]:
        """The values of the selectable fields beyond name and namespace."""
        return {path: _text_at(obj, path) for path in self.fields}


def _text_at(obj: JsonObject, path: str) -> str:
    value: object = obj
    for part in path.split("."):
        if not isinstance(value, dict):
            return ""
        value = value.get(part)
    if value is None or isinstance(value, dict | list):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


_POD_FIELDS = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
)
_EVENT_FIELDS = (
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)

BUILT_IN_KINDS = (
    Kind("", "v1", "ConfigMap", "configmaps", True, "configmap", ("cm",)),
    Kind("", "v1", "Event", "events", True, "event", ("ev",), fields=_EVENT_FIELDS),
    Kind(
        group="",
        version="v1",
        kind="Namespace",
        plural="namespaces",
        namespaced=False,
        singular="namespace",
        short_names=("ns",),
        subresources=("status",),
        fields=("status.phase",),
    ),
    Kind(
        group="",
        version="v1",
        kind="Node",
        plural="nodes",
        namespaced=False,
        singular="node",
        short_names=("no",),
        subresources=("status",),
        fields=("spec.unschedulable",),
    ),
    Kind(
        group="",
        version="v1",
        kind="Pod",
        plural="pods",
        namespaced=True,
        singular="pod",
        short_names=("po",),
        categories=("all",),
        subresources=("status", "log", "exec", "binding"),
        fields=_POD_FIELDS,
        has_generation=True,
    ),
    Kind(
        group="",
        version="v1",
        kind="Secret",
        plural="secrets",
        namespaced=True,
        singular="secret",
        fields=("type",),
    ),
    Kind(
        group="",
        version="v1",
        kind="Service",
        plural="services",
        namespaced=True,
        singular="service",
        short_names=("svc",),
        categories=("all",),
        subresources=("status",),
        fields=("spec.clusterIP", "spec.type"),
    ),
    Kind(
        "", "v1", "ServiceAccount", "serviceaccounts", True, "serviceaccount", ("sa",)
    ),
    Kind("coordination.k8s.io", "v1", "Lease", "leases", True, "lease"),
    Kind(
        group="discovery.k8s.io",
        version="v1",
        kind="EndpointSlice",
        plural="endpointslices",
        namespaced=True,
        singular="endpointslice",
    ),
    Kind(
        group="networking.k8s.io",
        version="v1",
        kind="ServiceCIDR",
        plural="servicecidrs",
        namespaced=False,
        singular="servicecidr",
        subresources=("status",),
    ),
    Kind(
        group="apiextensions.k8s.io",
        version="v1",
        kind="CustomResourceDefinition",
        plural="customresourcedefinitions",
        namespaced=False,
        singular="customresourcedefinition",
        short_names=("crd", "crds"),
        categories=("api-extensions",),
        subresources=("status",),
        has_generation=True,
    ),
)
