"""
Label selectors: what they mean, and how they are read from JSON.

What it is: the full semantics of Kubernetes selectors (``matchLabels``,
``matchExpressions``), and the way in which users of egress policies reach the
namespace: as pseudo labels of the pod, which ``endpoints.identity_labels`` adds.

What it is not: it looks up no pods and no namespaces.

Source: Kubernetes ``LabelSelector``; ``labels.Requirement`` for absent keys.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from outgate.policy.fields import Field

NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
"""The pseudo label that holds the name of a pod's namespace."""

NAMESPACE_LABELS_PREFIX = "io.cilium.k8s.namespace.labels."
"""Before the keys of the namespace's own labels."""

CILIUM_PREFIX = "io.cilium.k8s.policy."
"""Before what only Cilium's agent tells of a pod: its service account, its cluster."""

MAX_EXPRESSIONS = 100
"""Items of one matchExpressions: the CRDs bound what their CEL rules may cost."""

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_KEY = re.compile(rf"(?:(?=[^/]{{1,253}}/){_LABEL}(?:\.{_LABEL})*/)?{_NAME}")
_VALUE = re.compile(rf"(?:{_NAME})?")


class Operator(StrEnum):
    """How a requirement compares; the values are what users write."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label; *values* is empty for the Exists operators."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether *labels* meet this; an absent key meets ``NotIn``."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels
            case _:
                assert_never(self.operator)


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold; without any, everything is selected."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether a pod with these identity labels is selected."""
        return all(r.matches(labels) for r in self.requirements)


def parse_pod_rule(rule: Field) -> Selector | None:
    """
    Read ``{namespaceSelector, podSelector}`` of a rule, both halves joined by *and*.

    An empty namespace selector selects whatever has a namespace, which all pods
    have; an empty pod selector selects everything.  A rule without either is
    refused, because it would be read as "all" by some and "none" by others.
    """
    namespace, pod = rule.get("namespaceSelector"), rule.get("podSelector")
    if namespace.is_absent and pod.is_absent:
        rule.refuse(
            "has neither podSelector nor namespaceSelector; to select all pods,"
            " write podSelector: {}"
        )
        return None
    requirements: list[Requirement] = []
    if not namespace.is_absent:
        of_namespace = parse_requirements(namespace)
        requirements += [
            Requirement(NAMESPACE_LABELS_PREFIX + r.key, r.operator, r.values)
            for r in of_namespace
        ] or [Requirement(NAMESPACE_LABEL, Operator.EXISTS)]
    if not pod.is_absent:
        of_pod = parse_requirements(pod)
        for requirement in of_pod:
            if requirement.key.startswith(CILIUM_PREFIX):
                pod.warn(
                    f"{requirement.key} is a label that only Cilium gives to pods: here"
                    " no pod has it; select by a label of the pod or its namespace"
                )
        requirements += of_pod
    return Selector(tuple(requirements))


def parse_requirements(selector: Field) -> tuple[Requirement, ...]:
    """Read a LabelSelector; what is wrong goes to the field's problems."""
    if not selector.require_object(("matchLabels", "matchExpressions")):
        return ()
    found: list[Requirement | None] = []
    labels = selector.get("matchLabels")
    if not labels.is_absent:
        found += [_parse_label(key, value) for key, value in labels.pairs()]
    expressions = selector.get("matchExpressions")
    if not expressions.is_absent:
        items = expressions.items(MAX_EXPRESSIONS)
        found += [_parse_expression(field) for field in items]
    return tuple(r for r in found if r is not None)


def _parse_label(key: str, field: Field) -> Requirement | None:
    is_key = _check_key(key, field)
    value = _parse_value(field)
    if not is_key or value is None:
        return None
    return Requirement(key, Operator.IN, frozenset({value}))


def _parse_expression(expression: Field) -> Requirement | None:
    if not expression.require_object(("key", "operator", "values")):
        return None
    key_field, operator_field = expression.get("key"), expression.get("operator")
    key = key_field.text()
    is_key = key is not None and _check_key(key, key_field)
    operator = _parse_operator(operator_field)
    values_field = expression.get("values")
    values = (
        []
        if values_field.is_absent
        else [_parse_value(v) for v in values_field.items()]
    )
    if operator in (Operator.IN, Operator.NOT_IN) and not values:
        values_field.refuse(f"operator {operator} needs at least one value")
    if operator in (Operator.EXISTS, Operator.DOES_NOT_EXIST) and values:
        values_field.refuse(f"operator {operator} takes no values; remove them")
    if key is None or not is_key or operator is None or None in values:
        return None
    return Requirement(key, operator, frozenset(v for v in values if v is not None))


def _parse_operator(field: Field) -> Operator | None:
    text = field.text()
    if text is None:
        return None
    try:
        return Operator(text)
    except ValueError:
        field.refuse(f"{text!r} is no operator; use one of: {', '.join(Operator)}")
        return None


def _parse_value(field: Field) -> str | None:
    value = field.text()
    if value is not None and not _VALUE.fullmatch(value):
        field.refuse(
            f"{value!r} is no label value; use at most 63 letters, digits, '-', '_'"
            " or '.', with a letter or digit at both ends"
        )
        return None
    return value


def _check_key(key: str, field: Field) -> bool:
    if _KEY.fullmatch(key):
        return True
    field.refuse(
        f"{key!r} is no label key; write NAME or DOMAIN/NAME, like example.com/tier"
    )
    return False
