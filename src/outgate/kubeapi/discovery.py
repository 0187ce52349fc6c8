"""
Discovery: which groups, versions and resources there are.

What it is: the aggregated documents that a current kubectl asks for, and the
one-per-version documents that older clients fall back to.
What it is not: their fields; see ``openapi``.
"""

from __future__ import annotations

from collections.abc import Iterable

from outgate.kubeapi.catalogue import Catalogue
from outgate.kubeapi.crds import Resource
from outgate.kubeapi.kinds import STANDARD_VERBS, Kind
from outgate.kubeapi.wire import JsonObject

_SUBRESOURCES: dict[str, tuple[str, list[str]]] = {
    "status": ("", ["get", "patch", "update"]),
    "log": ("Pod", ["get"]),
    "exec": ("PodExecOptions", ["create", "get"]),
    "binding": ("Binding", ["create"]),
}
"""Subresource to the kind it takes (empty: the resource's own) and its verbs."""


def _versions(resources: Iterable[Resource]) -> dict[str, dict[str, list[Kind]]]:
    groups: dict[str, dict[str, list[Kind]]] = {}
    for resource in resources:
        kind = resource.kind
        groups.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)
    return groups


def aggregated(catalogue: Catalogue, *, core: bool, version: str) -> JsonObject:
    """``APIGroupDiscoveryList`` in *version*, of the core group or of the others."""
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": group, "creationTimestamp": None},
                "versions": [
                    {
                        "version": name,
                        "resources": [_aggregated_resource(kind) for kind in kinds],
                        "freshness": "Current",
                    }
                    for name, kinds in versions.items()
                ],
            }
            for group, versions in _versions(catalogue).items()
            if (group == "") is core
        ],
    }


def _aggregated_resource(kind: Kind) -> JsonObject:
    entry: JsonObject = {
        "resource": kind.plural,
        "responseKind": _group_version_kind(kind, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(STANDARD_VERBS),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    if kind.subresources:
        entry["subresources"] = [
            {
                "subresource": name,
                "responseKind": _group_version_kind(
                    kind, _SUBRESOURCES[name][0] or kind.kind
                ),
                "verbs": _SUBRESOURCES[name][1],
            }
            for name in kind.subresources
        ]
    return entry


def _group_version_kind(kind: Kind, name: str) -> JsonObject:
    return {"group": kind.group, "version": kind.version, "kind": name}


def core_versions(address: str) -> JsonObject:
    """The plain answer of ``/api``."""
    server = {"clientCIDR": "0.0.0.0/0", "serverAddress": address}
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [server],
    }


def group_list(catalogue: Catalogue) -> JsonObject:
    """The plain answer of ``/apis``."""
    groups = [
        _group(name, versions)
        for name, versions in _versions(catalogue).items()
        if name
    ]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(catalogue: Catalogue, name: str) -> JsonObject | None:
    """The answer of ``/apis/GROUP``; ``None`` when there is no such group."""
    versions = _versions(catalogue).get(name)
    if not name or versions is None:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1"} | _group(name, versions)


def _group(name: str, versions: Iterable[str]) -> JsonObject:
    entries = [
        {"groupVersion": f"{name}/{version}", "version": version}
        for version in versions
    ]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def resource_list(
    catalogue: Catalogue, group_name: str, version: str
) -> JsonObject | None:
    """``APIResourceList`` of one version; ``None`` when there is no such version."""
    kinds = _versions(catalogue).get(group_name, {}).get(version)
    if kinds is None:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": kinds[0].api_version,
        "resources": [entry for kind in kinds for entry in _plain_entries(kind)],
    }


def _plain_entries(kind: Kind) -> list[JsonObject]:
    entry: JsonObject = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(STANDARD_VERBS),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    return [entry] + [
        {
            "name": f"{kind.plural}/{name}",
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": _SUBRESOURCES[name][0] or kind.kind,
            "verbs": _SUBRESOURCES[name][1],
        }
        for name in kind.subresources
    ]
