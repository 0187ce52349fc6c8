"""
OpenAPI v3 documents, one per group and version.

What it is: what ``kubectl explain`` reads, and what ``kubectl apply`` asks before it
trusts the server with validation: schemas, and paths whose PATCH and POST name the
``fieldValidation`` and ``dryRun`` parameters.
What it is not: a full description of every path. OpenAPI v2 is not served at all.
"""

from __future__ import annotations

import hashlib
from typing import Any

from outgate.kubeapi.catalogue import Catalogue
from outgate.kubeapi.crds import Resource
from outgate.kubeapi.kinds import Kind
from outgate.kubeapi.operations import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
)
from outgate.kubeapi.typetable import type_table
from outgate.kubeapi.wire import JsonObject, encode_json

_WRITE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation")
_BUILT_IN = "io.k8s.api."


def index(catalogue: Catalogue) -> JsonObject:
    """The answer of ``/openapi/v3``; the hash changes with the kinds."""
    paths = {}
    for group, version in _group_versions(catalogue):
        path = f"apis/{group}/{version}" if group else f"api/{version}"
        text = encode_json(document(catalogue, group, version))
        digest = hashlib.sha256(text).hexdigest()[:32].upper()
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return {"paths": paths}


def _group_versions(catalogue: Catalogue) -> list[tuple[str, str]]:
    return list(dict.fromkeys((r.kind.group, r.kind.version) for r in catalogue))


def document(catalogue: Catalogue, group: str, version: str) -> JsonObject | None:
    """One group and version; ``None`` when nothing in it is served."""
    resources = [
        r for r in catalogue if (r.kind.group, r.kind.version) == (group, version)
    ]
    if not resources:
        return None
    schemas: JsonObject = {}
    paths: JsonObject = {}
    for resource in resources:
        schemas |= _schemas(resource)
        paths |= _paths(resource.kind)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.32.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schema_name(kind: Kind) -> str:
    if not kind.custom:
        return _BUILT_IN + kind.kind
    parts = [*reversed(kind.group.split(".")), kind.version, kind.kind]
    return ".".join(parts)


def _schemas(resource: Resource) -> JsonObject:
    kind = resource.kind
    name = _schema_name(kind)
    schemas: JsonObject = {}
    if kind.custom:
        root = dict(resource.schema.node)
        properties = {**root["properties"], "metadata": {"$ref": "ObjectMeta"}}
        schemas[name] = _published(root | {"properties": properties})
        _add_types("ObjectMeta", schemas)
    else:
        _add_types(kind.kind, schemas)
    identity = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    schemas[name]["x-kubernetes-group-version-kind"] = [identity]
    schemas[f"{name}List"] = {
        "type": "object",
        "description": f"{kind.kind}List is a list of {kind.kind}",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "items": {"type": "array", "items": {"$ref": _reference(name)}},
        },
        "x-kubernetes-group-version-kind": [
            identity | {"kind": f"{kind.kind}List"},
        ],
    }
    return schemas


def _reference(name: str) -> str:
    return f"#/components/schemas/{name}"


def _add_types(name: str, schemas: JsonObject) -> None:
    """Add the built-in type *name* and every type that it refers to."""
    if _BUILT_IN + name in schemas:
        return
    node = type_table()[name]
    schemas[_BUILT_IN + name] = _published(node)
    for inner in _references(node):
        _add_types(inner, schemas)


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [name for item in node for name in _references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [name for value in node.values() for name in _references(value)]


def _published(node: Any) -> Any:
    """The node with references as OpenAPI spells them, beside their description."""
    if isinstance(node, list):
        return [_published(item) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str):
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return rest | {"allOf": [{"$ref": _reference(_BUILT_IN + node["$ref"])}]}
    return {key: _published(value) for key, value in node.items()}


def _paths(kind: Kind) -> JsonObject:
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    scope = "/namespaces/{namespace}" if kind.namespaced else ""
    collection = f"{root}{scope}/{kind.plural}"
    one = f"{collection}/{{name}}"
    paths = {
        collection: {
            "get": _read(kind, "list", f"{_schema_name(kind)}List"),
            "post": _write(kind, "post", ["application/json"]),
            "delete": _write(kind, "deletecollection", []),
        },
        one: _item(kind),
    }
    if "status" in kind.subresources:
        paths[f"{one}/status"] = _item(kind)
    return paths


def _item(kind: Kind) -> JsonObject:
    patches = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
    if not kind.custom:
        patches.append(STRATEGIC_PATCH)
    return {
        "get": _read(kind, "get", _schema_name(kind)),
        "put": _write(kind, "put", ["application/json"]),
        "patch": _write(kind, "patch", patches),
        "delete": _write(kind, "delete", []),
    }


def _operation(kind: Kind, action: str, schema: str) -> JsonObject:
    return {
        "responses": {
            "200": {
                "description": "OK",
                "content": {
                    "application/json": {"schema": {"$ref": _reference(schema)}}
                },
            }
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {
            "group": kind.group,
            "version": kind.version,
            "kind": kind.kind,
        },
    }


def _read(kind: Kind, action: str, schema: str) -> JsonObject:
    return _operation(kind, action, schema)


def _write(kind: Kind, action: str, media_types: list[str]) -> JsonObject:
    operation = _operation(kind, action, _schema_name(kind))
    operation["parameters"] = [
        {"name": name, "in": "query", "schema": {"type": "string"}}
        for name in _WRITE_PARAMETERS
    ]
    if media_types:
        body = {"type": "object"}
        if action in ("post", "put"):
            body = {"$ref": _reference(_schema_name(kind))}
        content = {media_type: {"schema": body} for media_type in media_types}
        operation["requestBody"] = {"content": content}
    return operation
