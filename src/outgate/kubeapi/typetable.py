"""
The shapes of the built-in kinds, read from ``types/*.types``.

What it is: a reader for a small table notation (explained in ``meta.types``) that
yields JSON schemas with the ``x-kubernetes-*`` marks that merging needs: one
source for validation, defaults, ``explain`` and both kinds of merge.
What it is not: the whole of Kubernetes' types. Parts that nobody here reads are
objects without a closer shape.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from outgate.kubeapi.kinds import BUILT_IN_KINDS
from outgate.kubeapi.wire import JsonObject, decode_json

_HEAD = re.compile(r"^(\w+): (.+)$")
_FIELD = re.compile(r"^  (\w+)(!?) (\S+)(?: =(\S+))? - (.+)$")
_FILES = ("meta", "network", "node", "pod")
_SCALARS: dict[str, JsonObject] = {
    "string": {"type": "string"},
    "integer": {"type": "integer", "format": "int64"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "intstr": {"x-kubernetes-int-or-string": True},
    "time": {"type": "string", "format": "date-time", "nullable": True},
    "object": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
}
_ROOTS = frozenset(kind.kind for kind in BUILT_IN_KINDS)
_ROOT_FIELDS: JsonObject = {
    "apiVersion": {"type": "string", "description": "The version of this kind's API."},
    "kind": {"type": "string", "description": "What this object is."},
    "metadata": {
        "$ref": "ObjectMeta",
        "description": "What every object carries: its name, labels and more.",
    },
}


class TypeTableError(ValueError):
    """A line of a ``.types`` file that breaks the notation."""


@cache
def type_table() -> dict[str, JsonObject]:
    """Every type by name; a field of another type holds ``{"$ref": NAME}``."""
    folder = files("outgate.kubeapi") / "types"
    table: dict[str, JsonObject] = {}
    for name in _FILES:
        table |= parse_types((folder / f"{name}.types").read_text("utf-8"))
    return table


@cache
def built_in_schema(kind: str) -> JsonObject:
    """The schema of one built-in kind with every reference written out."""
    schema = _expand({"$ref": kind})
    assert isinstance(schema, dict)
    return schema


def parse_types(text: str) -> dict[str, JsonObject]:
    """
    Read one table.

    Errors: ``TypeTableError`` with the line; the tables are ours, so it is a bug.
    """
    table: dict[str, JsonObject] = {}
    current: JsonObject = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if head := _HEAD.match(line):
            current = _new_type(head[1], head[2])
            table[head[1]] = current
        elif field := _FIELD.match(line):
            current["properties"][field[1]] = _field_schema(field)
            if field[2]:
                current.setdefault("required", []).append(field[1])
        else:
            raise TypeTableError(f"{line!r} is neither a type nor a field")
    return table


def _new_type(name: str, description: str) -> JsonObject:
    properties = dict(_ROOT_FIELDS) if name in _ROOTS else {}
    return {"type": "object", "description": description, "properties": properties}


def _field_schema(field: re.Match[str]) -> JsonObject:
    schema = _type_schema(field[3])
    schema["description"] = field[5]
    if field[2] and schema.get("type") == "array":
        schema["minItems"] = 1
    if field[4]:
        schema["default"] = decode_json(field[4].encode())
    return schema


def _type_schema(text: str) -> JsonObject:
    if text.startswith("{}"):
        return {"type": "object", "additionalProperties": _type_schema(text[2:])}
    if not text.startswith("[]"):
        return dict(_SCALARS.get(text) or {"$ref": text})
    item, mark, keys = text[2:].partition("@")
    schema: JsonObject = {"type": "array", "items": _type_schema(item)}
    if not mark:
        schema["x-kubernetes-list-type"] = "atomic"
    elif not keys:
        schema["x-kubernetes-list-type"] = "set"
        schema["x-kubernetes-patch-strategy"] = "merge"
    else:
        names = keys.split(",")
        schema["x-kubernetes-list-type"] = "map"
        schema["x-kubernetes-list-map-keys"] = names
        schema["x-kubernetes-patch-strategy"] = "merge"
        schema["x-kubernetes-patch-merge-key"] = names[0]
    return schema


def _expand(node: object) -> object:
    if isinstance(node, list):
        return [_expand(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return _expand({**type_table()[node["$ref"]], **rest})
    return {key: _expand(value) for key, value in node.items()}
