"""
Custom resource definitions: from a CRD object to kinds that are served.

What it is: the checks that a CRD must pass, the status it gets when it is accepted,
and the ``Resource`` of each served version.
What it is not: conversion. Several versions are served only with strategy ``None``,
where an object differs between versions by its ``apiVersion`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from outgate.kubeapi.kinds import BUILT_IN_KINDS, Kind
from outgate.kubeapi.schema import Schema
from outgate.kubeapi.status import Cause
from outgate.kubeapi.typetable import built_in_schema
from outgate.kubeapi.validations import RuleError
from outgate.kubeapi.wire import JsonObject

_BUILT_IN_GROUPS = frozenset(kind.group for kind in BUILT_IN_KINDS)


@dataclass(frozen=True, slots=True)
class Column:
    """One extra column of a kind's table; *priority* above 0 is for ``-o wide``."""

    name: str
    type: str
    path: str
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as it is served: its fields, and how its table looks."""

    kind: Kind
    schema: Schema
    columns: tuple[Column, ...] = ()
    is_storage: bool = True


def crd_faults(crd: JsonObject) -> list[Cause]:
    """What the schema of a CRD object cannot say; an empty list is a good CRD."""
    spec = crd["spec"]
    faults = []
    expected = f"{spec['names']['plural']}.{spec['group']}"
    if crd["metadata"]["name"] != expected:
        text = f'must be spec.names.plural+"."+spec.group, which is "{expected}"'
        faults.append(_invalid("metadata.name", crd["metadata"]["name"], text))
    if spec["group"] in _BUILT_IN_GROUPS:
        text = "belongs to a built-in kind"
        faults.append(_invalid("spec.group", spec["group"], text))
    if spec["scope"] not in ("Cluster", "Namespaced"):
        text = "supported values: Cluster, Namespaced"
        faults.append(_invalid("spec.scope", spec["scope"], text))
    if sum(bool(version["storage"]) for version in spec["versions"]) != 1:
        text = "must have exactly one version marked as storage version"
        faults.append(_invalid("spec.versions", len(spec["versions"]), text))
    if (spec.get("conversion") or {}).get("strategy", "None") != "None":
        text = "conversion by webhook is not served here"
        faults.append(_invalid("spec.conversion.strategy", "Webhook", text))
    for position, version in enumerate(spec["versions"]):
        path = f"spec.versions[{position}].schema.openAPIV3Schema"
        node = (version.get("schema") or {}).get("openAPIV3Schema")
        if not isinstance(node, dict):
            faults.append(Cause("FieldValueRequired", "schemas are required", path))
        elif node.get("type") != "object":
            text = "must be object at the root"
            faults.append(_invalid(f"{path}.type", node.get("type"), text))
        elif not isinstance(node.get("properties", {}), dict):
            text = "must be an object"
            faults.append(_invalid(f"{path}.properties", "", text))
        else:
            faults += _schema_faults(node, path)
    return faults


def _schema_faults(node: JsonObject, path: str) -> list[Cause]:
    """Whether *node* is a schema at all; nothing else would find out in time."""
    try:
        Schema(node, built_in_schema("ObjectMeta")).compile()
    except RuleError as error:
        return [_invalid(f"{path}{error.path}", error.rule, str(error))]
    except ValueError as error:
        return [_invalid(path, "", str(error))]
    return _mark_faults(node, path)


def _mark_faults(node: Any, path: str) -> list[Cause]:
    """Marks for merging that could not be followed, anywhere in a schema."""
    if isinstance(node, list):
        return [fault for item in node for fault in _mark_faults(item, path)]
    if not isinstance(node, dict):
        return []
    faults = [f for k, v in node.items() for f in _mark_faults(v, f"{path}.{k}")]
    keys = node.get("x-kubernetes-list-map-keys", [])
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        text = "must be a list of names"
        faults.append(_invalid(f"{path}.x-kubernetes-list-map-keys", keys, text))
    return faults


def _invalid(path: str, value: object, text: str) -> Cause:
    return Cause("FieldValueInvalid", f'Invalid value: "{value}": {text}', path)


def accept_crd(crd: JsonObject, now: str) -> None:
    """Write the names and the status of a CRD that is served from now on."""
    names = crd["spec"]["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    crd["spec"].setdefault("conversion", {"strategy": "None"})
    status = crd.setdefault("status", {})
    status["acceptedNames"] = dict(names)
    stored = [v["name"] for v in crd["spec"]["versions"] if v["storage"]]
    kept = status.get("storedVersions") or []
    status["storedVersions"] = kept + [name for name in stored if name not in kept]
    if not status.get("conditions"):
        status["conditions"] = [
            _condition("NamesAccepted", "NoConflicts", "no conflicts found", now),
            _condition(
                "Established",
                "InitialNamesAccepted",
                "the initial names have been accepted",
                now,
            ),
        ]


def _condition(kind: str, reason: str, message: str, now: str) -> JsonObject:
    return {
        "type": kind,
        "status": "True",
        "lastTransitionTime": now,
        "reason": reason,
        "message": message,
    }


def crd_resources(crd: JsonObject) -> list[Resource]:
    """One resource per served version."""
    versions = crd["spec"]["versions"]
    return [_resource(crd, version) for version in versions if version["served"]]


def _resource(crd: JsonObject, version: JsonObject) -> Resource:
    spec = crd["spec"]
    names = spec["names"]
    subresources = version.get("subresources") or {}
    kind = Kind(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        namespaced=spec["scope"] == "Namespaced",
        singular=names["singular"],
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=("status",) if "status" in subresources else (),
        fields=tuple(
            field["jsonPath"].lstrip(".")
            for field in version.get("selectableFields") or ()
        ),
        has_generation=True,
        custom=True,
    )
    node = version["schema"]["openAPIV3Schema"]
    columns = tuple(
        Column(
            name=column["name"],
            type=column["type"],
            path=column["jsonPath"],
            format=column.get("format", ""),
            description=column.get("description", ""),
            priority=column.get("priority", 0),
        )
        for column in version.get("additionalPrinterColumns") or ()
    )
    schema = Schema(node, built_in_schema("ObjectMeta"))
    return Resource(kind, schema, columns, bool(version["storage"]))
