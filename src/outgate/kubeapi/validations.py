"""
CEL rules of custom resources: ``x-kubernetes-validations``.

What it is: rules compiled once per schema and evaluated on every write, worded as
Kubernetes words them. The language itself is ``common-expression-language``.
What it is not: transition rules. A rule that asks for ``oldSelf`` is refused with its
CRD, because it would never be evaluated. Nor is cost counted, nor are dates and byte
strings more than strings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cel

from outgate.kubeapi.status import Cause
from outgate.kubeapi.wire import JsonObject

MARK = "x-kubernetes-validations"

_REASONS = {
    "FieldValueInvalid": 'Invalid value: "{type}": {text}',
    "FieldValueForbidden": "Forbidden: {text}",
    "FieldValueRequired": "Required value: {text}",
    "FieldValueDuplicate": 'Duplicate value: "{type}": {text}',
}
_FAILURES = (KeyError, RuntimeError, TypeError, ValueError)
_ROOT = "<nil>"
_RESERVED = frozenset(
    (
        *("true", "false", "null", "in", "as"),
        *("break", "const", "continue", "else", "for"),
        *("function", "if", "import", "let", "loop"),
        *("package", "namespace", "return"),
    )
)
_ESCAPES = {
    "__": "__underscores__",
    ".": "__dot__",
    "-": "__dash__",
    "/": "__slash__",
}


class RuleError(ValueError):
    """A rule that cannot be compiled; *path* leads to it inside the schema."""

    def __init__(self, path: str, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Rule:
    """One item of ``x-kubernetes-validations``; *field* is its ``fieldPath``."""

    program: cel.Program
    message: str
    message_program: cel.Program | None
    reason: str
    field: str

    def fault(self, value: Any, path: str, type_name: str) -> Cause | None:
        """Return what *value* breaks; a rule that cannot be evaluated is broken."""
        try:
            verdict = self.program.execute({"self": value})
        except _FAILURES as error:
            text = f'Invalid value: "{type_name}": rule evaluation error: {error}'
            return Cause("FieldValueInvalid", text, path or _ROOT)
        if verdict is True:
            return None
        text = _REASONS[self.reason].format(type=type_name, text=self._tell(value))
        place = f"{path}{self.field}".lstrip(".")
        return Cause(self.reason, text, place or _ROOT)

    def _tell(self, value: Any) -> str:
        if self.message_program is None:
            return self.message
        try:
            told = self.message_program.execute({"self": value})
        except _FAILURES:
            return self.message
        return told if isinstance(told, str) and told.strip() else self.message


@dataclass(slots=True)
class Rules:
    """The rules at one place of a schema, and those below it."""

    type_name: str
    here: list[Rule] = field(default_factory=list)
    properties: dict[str, Rules] = field(default_factory=dict)
    elements: Rules | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing here or below asks for anything."""
        return not self.here and not self.properties and self.elements is None

    def faults(self, value: Any, node: JsonObject, path: str = "") -> Iterator[Cause]:
        """Yield everything in *value* that breaks a rule; *node* is its schema."""
        if self.here:
            bound = _bind(value, node)
            for rule in self.here:
                if (fault := rule.fault(bound, path, self.type_name)) is not None:
                    yield fault
        if isinstance(value, dict):
            yield from self._member_faults(value, node, path)
        elif isinstance(value, list) and self.elements is not None:
            for position, item in enumerate(value):
                inner = f"{path}[{position}]"
                yield from self.elements.faults(item, node["items"], inner)

    def _member_faults(
        self, value: JsonObject, node: JsonObject, path: str
    ) -> Iterator[Cause]:
        for key, inner in value.items():
            if key in self.properties:
                below, place = self.properties[key], f"{path}.{key}" if path else key
                yield from below.faults(inner, node["properties"][key], place)
            elif self.elements is not None and key not in node.get("properties", {}):
                schema = node["additionalProperties"]
                yield from self.elements.faults(inner, schema, f"{path}[{key}]")


def compile_rules(node: Any, path: str = "") -> Rules:
    """
    Compile all rules of the schema *node*.

    Errors: ``RuleError`` for the first that cannot be compiled.
    """
    if not isinstance(node, dict):
        return Rules("object")
    rules = Rules(str(node.get("type", "object")))
    given = node.get(MARK) or []
    if not isinstance(given, list):
        raise RuleError(f"{path}.{MARK}", "", "must be a list")
    for position, item in enumerate(given):
        rules.here.append(_compile(item, f"{path}.{MARK}[{position}]"))
    properties = node.get("properties")
    for key, inner in (properties if isinstance(properties, dict) else {}).items():
        below = compile_rules(inner, f"{path}.properties[{key}]")
        if not below.is_empty:
            rules.properties[key] = below
    for key in ("items", "additionalProperties"):
        below = compile_rules(node.get(key), f"{path}.{key}")
        if not below.is_empty:
            rules.elements = below
    return rules


def _compile(item: Any, path: str) -> Rule:
    rule = item.get("rule") if isinstance(item, dict) else None
    if not isinstance(rule, str) or not rule.strip():
        raise RuleError(f"{path}.rule", "", "rule is not specified")
    reason = item.get("reason", "FieldValueInvalid")
    if reason not in _REASONS:
        raise RuleError(f"{path}.reason", str(reason), f"use one of {list(_REASONS)}")
    message, expression = item.get("message"), item.get("messageExpression")
    return Rule(
        program=_program(rule, f"{path}.rule"),
        message=str(message).strip() if message else f"failed rule: {rule.strip()}",
        message_program=_program(expression, f"{path}.messageExpression")
        if expression
        else None,
        reason=reason,
        field=str(item.get("fieldPath") or ""),
    )


def _program(expression: object, path: str) -> cel.Program:
    text = str(expression)
    try:
        program = cel.compile(text)
    except ValueError as error:
        raise RuleError(path, text, f"compilation failed: {error}") from error
    if "oldSelf" in program.variables():
        reason = "rules about oldSelf (transition rules) are not evaluated here"
        raise RuleError(path, text, reason)
    return program


def _bind(value: Any, node: Any) -> Any:
    """Return *value* as a rule sees it: names escaped, numbers of the right type."""
    node = node if isinstance(node, dict) else {}
    if isinstance(value, list):
        return [_bind(item, node.get("items")) for item in value]
    if isinstance(value, dict):
        properties = node.get("properties") or {}
        extra = node.get("additionalProperties")
        return {
            _escape(key) if key in properties else key: _bind(
                inner, properties.get(key, extra)
            )
            for key, inner in value.items()
        }
    if node.get("type") == "number" and isinstance(value, int):
        return float(value)
    return value


def _escape(name: str) -> str:
    """
    Spell a field's name as CEL rules must.

    >>> [_escape(name) for name in ("namespace", "x-prop", "podIP", "a__b")]
    ['__namespace__', 'x__dash__prop', 'podIP', 'a__underscores__b']
    """
    if name in _RESERVED:
        return f"__{name}__"
    for text, escaped in _ESCAPES.items():
        name = name.replace(text, escaped)
    return name
