"""
The way from a request's body to an object that may be stored.

What it is: checks of identity and names, unknown fields, defaults, computed fields,
validation: the same steps in the same order for create, update and patch.
What it is not: a decision about versions, owners or deletion (``operations``).
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

from outgate.kubeapi.crds import Resource, crd_faults
from outgate.kubeapi.rules import COMPLETE
from outgate.kubeapi.schema import Schema
from outgate.kubeapi.status import Cause, bad_request, invalid
from outgate.kubeapi.typetable import built_in_schema
from outgate.kubeapi.wire import JsonObject

_METADATA = Schema({}, built_in_schema("ObjectMeta"))
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"^{_LABEL}(\.{_LABEL})*$")
_NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric "
    "characters, '-' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_KEY = re.compile(r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")
_VALUE = re.compile(r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$")
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, "
    "'-', '_' or '.', and must start and end with an alphanumeric character"
)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """
    How a write is meant; *validation* is ``Strict``, ``Warn`` or ``Ignore``.

    *manager* is the field manager; *subresource* is empty or ``status``.
    """

    manager: str = "unknown"
    dry_run: bool = False
    validation: str = "Warn"
    force: bool = False
    subresource: str = ""


def require_object(body: Any, resource: Resource) -> JsonObject:
    """A copy of the body as an object of the kind that the URL names."""
    if not isinstance(body, dict):
        raise bad_request("the body must be one object")
    kind = resource.kind
    given = (body.get("apiVersion") or kind.api_version, body.get("kind") or kind.kind)
    if given != (kind.api_version, kind.kind):
        raise bad_request(
            f"the API version and kind in the data ({given[0]}, Kind={given[1]}) do "
            f"not match the expected ({kind.api_version}, Kind={kind.kind})"
        )
    body = copy.deepcopy(body)
    metadata = body.get("metadata")
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        raise bad_request("metadata must be an object")
    _drop_nulls(metadata)
    for fault in _METADATA.faults({"metadata": metadata}):
        raise bad_request(f"{fault.field}: {fault.message}")
    head = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
    return head | {key: body[key] for key in body if key not in head}


def settle_place(obj: JsonObject, namespace: str, name: str) -> None:
    """Make the body's namespace and name those of the URL, or refuse."""
    meta = obj["metadata"]
    for key, given, wanted in (
        ("namespace", meta.get("namespace"), namespace),
        ("name", meta.get("name"), name),
    ):
        if given and wanted and given != wanted:
            raise bad_request(
                f"the {key} of the object ({given}) does not match the {key} on the "
                f"URL ({wanted})"
            )
        if wanted:
            meta[key] = wanted
    if not namespace:
        meta.pop("namespace", None)


def admit(obj: JsonObject, resource: Resource, options: WriteOptions) -> list[str]:
    """
    Prune, complete and check *obj* in place; returns warnings for the client.

    Errors: 400 for unknown fields under strict validation, 422 for every fault.
    """
    kind = resource.kind
    if not kind.custom:
        _drop_nulls(obj)
    unknown = resource.schema.prune(obj)
    warnings = [f'unknown field "{path}"' for path in unknown]
    if warnings and options.validation == "Strict":
        raise bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a '
            f"{kind.kind}: strict decoding error: {', '.join(warnings)}"
        )
    resource.schema.fill_defaults(obj)
    faults = resource.schema.faults(obj) or _name_faults(obj)
    if not faults and kind.kind == "CustomResourceDefinition":
        faults = crd_faults(obj)
    if faults:
        raise invalid(kind.group_kind, obj["metadata"].get("name", ""), faults)
    if not kind.custom and kind.kind in COMPLETE:
        COMPLETE[kind.kind](obj)
    return [] if options.validation == "Ignore" else warnings


def _drop_nulls(value: Any) -> None:
    """A null is an absent field, as in the typed structs of the real API."""
    if isinstance(value, dict):
        for key in [key for key, inner in value.items() if inner is None]:
            del value[key]
        for inner in value.values():
            _drop_nulls(inner)
    elif isinstance(value, list):
        for inner in value:
            _drop_nulls(inner)


def _name_faults(obj: JsonObject) -> list[Cause]:
    meta = obj["metadata"]
    faults = []
    name = meta.get("name", "")
    if len(name) > 253 or not _SUBDOMAIN.match(name):
        text = f'Invalid value: "{name}": {_NAME_RULE}'
        faults.append(Cause("FieldValueInvalid", text, "metadata.name"))
    for key, value in (meta.get("labels") or {}).items():
        if not _KEY.match(key):
            text = f'Invalid value: "{key}": name part is no qualified name'
            faults.append(Cause("FieldValueInvalid", text, "metadata.labels"))
        if not _VALUE.match(value):
            text = f'Invalid value: "{value}": {_VALUE_RULE}'
            faults.append(Cause("FieldValueInvalid", text, "metadata.labels"))
    return faults
