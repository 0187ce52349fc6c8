"""
Structural schemas: unknown fields, defaults, validation.

What it is: the three passes that a body goes through before it is stored, the same
for built-in kinds and for custom ones. Validation itself is ``jsonschema-rs``; this
module words its findings as Kubernetes does.
What it is not: CEL; rules are the work of ``validations``, which this module asks.
"""

from __future__ import annotations

import copy
from ipaddress import ip_network
from typing import Any

import jsonschema_rs

from outgate.kubeapi.status import Cause
from outgate.kubeapi.validations import Rules, compile_rules
from outgate.kubeapi.wire import JsonObject

_KEPT = (
    "type",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "required",
    "format",
)
_CHECKED_FORMATS = ("ipv4", "ipv6", "cidr", "date-time", "uuid")
_TYPE_NAMES = {
    str: "string",
    bool: "boolean",
    int: "integer",
    dict: "object",
    list: "array",
}
_ROOT_KEYS = ("apiVersion", "kind", "metadata")
_BLOCKING = frozenset(
    {
        "FieldValueRequired",
        "FieldValueTypeInvalid",
        "FieldValueNotSupported",
        "FieldValueTooMany",
        "FieldValueTooLong",
    }
)
"""Faults after which the API does not evaluate rules: they could make no sense."""

_NOT_CHECKED = Cause(
    "FieldValueInvalid",
    'Invalid value: "null": some validation rules were not checked because the object '
    "was invalid; correct the existing errors to complete validation",
    "<nil>",
)


def is_int_or_string(node: JsonObject) -> bool:
    return bool(node.get("x-kubernetes-int-or-string"))


def keeps_unknown(node: JsonObject) -> bool:
    return bool(node.get("x-kubernetes-preserve-unknown-fields"))


class Schema:
    """One kind's schema; *node* is structural, references written out."""

    def __init__(self, node: JsonObject, metadata: JsonObject) -> None:
        self.node = _with_root(node, metadata)
        self._validator: Any = None
        self._rules = Rules("object")

    def prune(self, obj: JsonObject) -> list[str]:
        """Remove fields that the schema does not know; returns their paths."""
        unknown: list[str] = []
        _prune(obj, self.node, "", unknown)
        return unknown

    def fill_defaults(self, obj: JsonObject) -> None:
        """Add every default whose field is absent, also inside list items."""
        _fill(obj, self.node)

    def compile(self) -> None:
        """
        Make ready to validate; built-in schemas do so at their first use.

        Errors: ``ValueError`` for a schema that is none, which only a CRD can bring;
        ``RuleError``, which is one, for a rule in it.
        """
        self._rules = compile_rules(self.node)
        try:
            self._validator = jsonschema_rs.Draft7Validator(
                _plain(self.node),
                formats={"cidr": _is_cidr},
                validate_formats=True,
            )
        except jsonschema_rs.ValidationError as error:
            raise ValueError(error.message) from error

    def faults(self, obj: JsonObject) -> list[Cause]:
        """Everything in *obj* that breaks the schema, in the order of its fields."""
        if self._validator is None:
            self.compile()
        faults = [_cause(error) for error in self._validator.iter_errors(obj)]
        if self._rules.is_empty:
            return faults
        if any(fault.reason in _BLOCKING for fault in faults):
            return [*faults, _NOT_CHECKED]
        return [*faults, *self._rules.faults(obj, self.node)]


def _with_root(node: JsonObject, metadata: JsonObject) -> JsonObject:
    root = dict(node)
    properties = dict(root.get("properties") or {})
    properties.setdefault("apiVersion", {"type": "string"})
    properties.setdefault("kind", {"type": "string"})
    properties["metadata"] = metadata
    root["properties"] = properties
    root["type"] = "object"
    return root


def _prune(value: object, node: JsonObject, path: str, unknown: list[str]) -> None:
    if isinstance(value, list):
        items = node.get("items")
        if isinstance(items, dict):
            for position, item in enumerate(value):
                _prune(item, items, f"{path}[{position}]", unknown)
        return
    if not isinstance(value, dict):
        return
    if node.get("x-kubernetes-embedded-resource"):
        value = {key: v for key, v in value.items() if key not in _ROOT_KEYS}
    properties = node.get("properties") or {}
    extra = node.get("additionalProperties")
    for key in list(value):
        inner = f"{path}.{key}" if path else key
        if key in properties:
            _prune(value[key], properties[key], inner, unknown)
        elif isinstance(extra, dict):
            _prune(value[key], extra, inner, unknown)
        elif extra is not True and not keeps_unknown(node):
            unknown.append(inner)
            del value[key]


def _fill(value: object, node: JsonObject) -> None:
    if isinstance(value, list):
        items = node.get("items")
        if isinstance(items, dict):
            for item in value:
                _fill(item, items)
        return
    if not isinstance(value, dict):
        return
    properties = node.get("properties") or {}
    for key, inner in properties.items():
        if "default" in inner and value.get(key) is None:
            if key in value and inner.get("nullable"):
                continue
            value[key] = copy.deepcopy(inner["default"])
        if key in value:
            _fill(value[key], inner)
    extra = node.get("additionalProperties")
    if isinstance(extra, dict):
        for key in value.keys() - properties.keys():
            _fill(value[key], extra)


def _plain(node: Any) -> Any:
    """The structural schema as plain JSON schema; nonsense stays, to be refused."""
    if not isinstance(node, dict):
        return node
    plain: JsonObject = {key: node[key] for key in _KEPT if key in node}
    if is_int_or_string(node):
        plain["type"] = ["integer", "string"]
    elif node.get("nullable") and "type" in plain:
        plain["type"] = [plain["type"], "null"]
    if plain.get("format") not in _CHECKED_FORMATS:
        plain.pop("format", None)
    for edge, limit in (("minimum", "Minimum"), ("maximum", "Maximum")):
        if node.get(f"exclusive{limit}") is True and edge in plain:
            plain[f"exclusive{limit}"] = plain.pop(edge)
    properties = node.get("properties", {})
    plain["properties"] = properties
    if isinstance(properties, dict):
        plain["properties"] = {k: _plain(v) for k, v in properties.items()}
    for key in ("items", "additionalProperties", "not"):
        if key in node:
            plain[key] = _plain(node[key])
    for key in ("allOf", "anyOf", "oneOf"):
        if key in node:
            parts = node[key]
            is_list = isinstance(parts, list)
            plain[key] = [_plain(part) for part in parts] if is_list else parts
    return plain


def _is_cidr(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


def _cause(error: Any) -> Cause:
    path = field_path(error.instance_path)
    fault = error.kind
    given = error.instance
    if isinstance(fault, jsonschema_rs.ValidationErrorKind.Required):
        missing = f"{path}.{fault.property}" if path else fault.property
        return Cause("FieldValueRequired", "Required value", missing)
    if isinstance(fault, jsonschema_rs.ValidationErrorKind.Type):
        found = _TYPE_NAMES.get(type(given), "number" if given is not None else "null")
        wanted = "/".join(fault.types)
        text = f'"{found}": {path} in body must be of type {wanted}: "{found}"'
        return Cause("FieldValueTypeInvalid", f"Invalid value: {text}", path)
    if isinstance(fault, jsonschema_rs.ValidationErrorKind.Enum):
        options = ", ".join(f'"{option}"' for option in fault.options)
        text = f"Unsupported value: {_quote(given)}: supported values: {options}"
        return Cause("FieldValueNotSupported", text, path)
    if isinstance(fault, jsonschema_rs.ValidationErrorKind.MaxItems):
        text = f"Too many: {len(given)}: must have at most {fault.limit} items"
        return Cause("FieldValueTooMany", text, path)
    if isinstance(fault, jsonschema_rs.ValidationErrorKind.MaxLength):
        text = f"Too long: may not be more than {fault.limit} bytes"
        return Cause("FieldValueTooLong", text, path)
    if isinstance(fault, jsonschema_rs.ValidationErrorKind.Pattern):
        rule = f"should match '{fault.pattern}'"
    else:
        rule = f"is wrong: {error.message}"
    text = f"Invalid value: {_quote(given)}: {path} in body {rule}"
    return Cause("FieldValueInvalid", text, path)


def _quote(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def field_path(parts: list[str | int]) -> str:
    """
    Spell a path as the API does.

    >>> field_path(["spec", "egress", 0, "podSelector"])
    'spec.egress[0].podSelector'
    """
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text
