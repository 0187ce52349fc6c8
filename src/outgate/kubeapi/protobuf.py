"""
Just enough protobuf to read what kubectl never sends as JSON.

What it is: the ``k8s\\0`` envelope and the messages of ``kubectl create namespace``,
``serviceaccount``, ``configmap``, ``secret``, ``service``, and of delete options, as
tables of field numbers.
What it is not: a protobuf library, and no writer: every answer is JSON.

Source: the ``generated.proto`` files of k8s.io/api; field numbers never change.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from outgate.kubeapi.wire import JsonObject

MAGIC = b"k8s\x00"

_MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "Unknown": {1: ("typeMeta", "TypeMeta"), 2: ("raw", "raw")},
    "TypeMeta": {1: ("apiVersion", "string"), 2: ("kind", "string")},
    "ObjectMeta": {
        1: ("name", "string"),
        2: ("generateName", "string"),
        3: ("namespace", "string"),
        5: ("uid", "string"),
        6: ("resourceVersion", "string"),
        11: ("labels", "{}string"),
        12: ("annotations", "{}string"),
        14: ("finalizers", "[]string"),
    },
    "Namespace": {1: ("metadata", "ObjectMeta")},
    "ServiceAccount": {1: ("metadata", "ObjectMeta")},
    "ConfigMap": {
        1: ("metadata", "ObjectMeta"),
        2: ("data", "{}string"),
        3: ("binaryData", "{}bytes"),
        4: ("immutable", "boolean"),
    },
    "Secret": {
        1: ("metadata", "ObjectMeta"),
        2: ("data", "{}bytes"),
        3: ("type", "string"),
        4: ("stringData", "{}string"),
        5: ("immutable", "boolean"),
    },
    "Service": {1: ("metadata", "ObjectMeta"), 2: ("spec", "ServiceSpec")},
    "ServiceSpec": {
        1: ("ports", "[]ServicePort"),
        2: ("selector", "{}string"),
        3: ("clusterIP", "string"),
        4: ("type", "string"),
        10: ("externalName", "string"),
    },
    "ServicePort": {
        1: ("name", "string"),
        2: ("protocol", "string"),
        3: ("port", "integer"),
        4: ("targetPort", "IntOrString"),
        5: ("nodePort", "count"),
    },
    "IntOrString": {
        1: ("type", "integer"),
        2: ("int", "integer"),
        3: ("str", "string"),
    },
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "integer"),
        2: ("preconditions", "Preconditions"),
        4: ("propagationPolicy", "string"),
        5: ("dryRun", "[]string"),
    },
    "Preconditions": {1: ("uid", "string"), 2: ("resourceVersion", "string")},
}
_KINDS = frozenset(
    ("Namespace", "ServiceAccount", "ConfigMap", "Secret", "Service", "DeleteOptions")
)


def decode_envelope(raw: bytes) -> JsonObject:
    """
    Read one enveloped object.

    Errors: ``ValueError`` for a broken message or a kind that is not in the table;
    the client may send the same object as JSON.
    """
    if not raw.startswith(MAGIC):
        raise ValueError("a protobuf body must start with the k8s envelope")
    unknown = _decode("Unknown", raw[len(MAGIC) :])
    head = unknown.get("typeMeta") or {}
    kind = head.get("kind", "")
    if kind not in _KINDS:
        raise ValueError(f"no protobuf here for kind {kind!r}; send JSON instead")
    obj = {"apiVersion": head.get("apiVersion", ""), "kind": kind}
    return obj | _decode(kind, unknown.get("raw") or b"")


def _decode(message: str, raw: bytes) -> JsonObject:
    fields = _MESSAGES[message]
    values: JsonObject = {}
    for number, content in _split(raw):
        if number not in fields:
            continue
        name, kind = fields[number]
        if kind.startswith("[]"):
            values.setdefault(name, []).append(_value(kind[2:], content))
        elif kind.startswith("{}"):
            key, value = _map_entry(kind[2:], content)
            values.setdefault(name, {})[key] = value
        elif content != b"" and (kind, content) != ("count", 0):
            values[name] = _value(kind, content)
    return values


def _value(kind: str, content: Any) -> Any:
    match kind:
        case "string":
            return bytes(content).decode()
        case "bytes":
            return base64.b64encode(content).decode()
        case "raw" | "integer" | "count":
            return content
        case "boolean":
            return bool(content)
        case "IntOrString":
            both = _decode(kind, content)
            return both.get("str", "") if both.get("type") else both.get("int", 0)
        case message:
            return _decode(message, content)


def _map_entry(kind: str, content: bytes) -> tuple[str, Any]:
    parts = dict(_split(content))
    return bytes(parts.get(1, b"")).decode(), _value(kind, parts.get(2, b""))


def _split(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers with their content: an integer, or bytes."""
    position = 0
    while position < len(raw):
        tag, position = _varint(raw, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, position = _varint(raw, position)
            yield number, value
        elif wire_type == 2:
            length, position = _varint(raw, position)
            if position + length > len(raw):
                raise ValueError("a protobuf field runs past the end of the body")
            yield number, raw[position : position + length]
            position += length
        else:
            raise ValueError(f"protobuf wire type {wire_type} is not expected here")


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(raw):
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, position
    raise ValueError("the protobuf body ends inside a number")
