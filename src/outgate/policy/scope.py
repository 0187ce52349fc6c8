"""
Which pods an agent asks an API server for, beside those of its own node.

What it is: pure.  A gateway needs the pods that its policies select; what cannot be
said in a request asks for more than is needed, never for less.
What it is not: the requests (``source``).
"""

from collections.abc import Iterable
from typing import NamedTuple

from outgate.policy.model import PodQuery, Rule
from outgate.policy.selectors import (
    NAMESPACE_LABEL,
    NAMESPACE_LABELS_PREFIX,
    Operator,
    Requirement,
    Selector,
)

ALL_PODS = frozenset({PodQuery()})

MOST_QUERIES = 32
"""Each is a list and a watch of its own; more connections than these are too many."""

_NAME_LABEL = NAMESPACE_LABELS_PREFIX + "kubernetes.io/metadata.name"
"""The API server gives every namespace this label, with its name."""


class _Query(NamedTuple):
    namespace: str
    labels: frozenset[str]

    def implies(self, other: "_Query") -> bool:
        """Return whether all pods of *other* are asked for by this one."""
        return self.namespace in ("", other.namespace) and self.labels <= other.labels


def pod_queries(rules: Iterable[Rule]) -> frozenset[PodQuery]:
    """Return what to ask for, so that all pods that *rules* select are among it."""
    wanted = {query for rule in set(rules) for query in _queries(rule.pods)}
    needed: list[_Query] = []
    # What implies a query comes before it.
    for query in sorted(wanted, key=lambda q: (len(q.labels), q.namespace != "")):
        if any(other.implies(query) for other in needed):
            continue
        needed.append(query)
        if len(needed) > MOST_QUERIES:
            return ALL_PODS
    return frozenset(
        PodQuery(query.namespace, ",".join(sorted(query.labels))) for query in needed
    )


def _queries(selector: Selector) -> set[_Query]:
    """Return one query for each namespace, or one for all of them."""
    namespaces: frozenset[str] | None = None
    labels = set()
    for requirement in selector.requirements:
        if requirement.key in (NAMESPACE_LABEL, _NAME_LABEL):
            if requirement.operator is Operator.IN:
                here = requirement.values
                namespaces = here if namespaces is None else namespaces & here
        elif not requirement.key.startswith(NAMESPACE_LABELS_PREFIX):
            labels.add(_text(requirement))
    found = frozenset(labels - {""})
    if namespaces is None:
        return {_Query("", found)}
    return {_Query(namespace, found) for namespace in namespaces if namespace}


def _text(requirement: Requirement) -> str:
    """Return *requirement* as ``kubectl -l`` takes it, empty when it cannot be said."""
    key, values = requirement.key, sorted(requirement.values)
    match requirement.operator:
        case Operator.EXISTS:
            return key
        case Operator.DOES_NOT_EXIST:
            return f"!{key}"
        case Operator.IN if len(values) == 1:
            return f"{key}={values[0]}"
        case Operator.NOT_IN if len(values) == 1:
            return f"{key}!={values[0]}"
    if "" in values:
        return ""
    word = "in" if requirement.operator is Operator.IN else "notin"
    return f"{key} {word} ({','.join(values)})"
