"""
Why a policy does not select a pod: the requirements that fail, in the user's words.

What it is: pure; of several rules the nearest one counts, the one with the fewest
failing requirements.
What it is not: the selection itself; ``Requirement.matches`` decides, here it is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from outgate.policy.model import EgressPolicy, Labels, Rule
from outgate.policy.selectors import (
    NAMESPACE_LABEL,
    NAMESPACE_LABELS_PREFIX,
    Operator,
    Requirement,
)

RULES_FIELD = {"CiliumEgressNATPolicy": "spec.egress"}
"""Where a kind has its rules; ``spec.selectors`` elsewhere."""


@dataclass(frozen=True, slots=True)
class Miss:
    """*policy* names the destination, but its nearest rule fails at *path*."""

    policy: str
    path: str
    message: str


def nearest_misses(
    policy: EgressPolicy, identity: Labels, node_labels: Labels
) -> tuple[Miss, ...]:
    """
    Return what fails in the nearest rule of *policy*, which does not select the pod.

    *identity* are the pod's identity labels, *node_labels* those of its node.
    """
    field = RULES_FIELD.get(policy.kind, "spec.selectors")
    found = [
        [
            Miss(policy.reference, f"{field}[{index}].{selector}", message)
            for selector, message in _failures(rule, identity, node_labels)
        ]
        for index, rule in enumerate(policy.rules)
    ]
    nearest: list[Miss] = min(found, key=len) if found else []
    return tuple(nearest)


def _failures(
    rule: Rule, identity: Labels, node_labels: Labels
) -> list[tuple[str, str]]:
    of_nodes = rule.nodes.requirements if rule.nodes is not None else ()
    return [
        *(
            _tell_pod(requirement, identity)
            for requirement in rule.pods.requirements
            if not requirement.matches(identity)
        ),
        *(
            ("nodeSelector", _tell("the pod's node", r, r.key, node_labels))
            for r in of_nodes
            if not r.matches(node_labels)
        ),
    ]


def _tell_pod(requirement: Requirement, identity: Labels) -> tuple[str, str]:
    key = requirement.key
    if key.startswith(NAMESPACE_LABELS_PREFIX):
        plain = key.removeprefix(NAMESPACE_LABELS_PREFIX)
        namespace = f"namespace {identity[NAMESPACE_LABEL]}"
        return "namespaceSelector", _tell(namespace, requirement, plain, identity)
    return "podSelector", _tell("the pod", requirement, key, identity)


def _tell(who: str, asked: Requirement, name: str, labels: Mapping[str, str]) -> str:
    value = labels.get(asked.key)
    has = f"no label {name}" if value is None else f"{name}={value}"
    return f"asks for {requirement_text(asked, name)}; {who} has {has}"


def requirement_text(asked: Requirement, name: str) -> str:
    """
    Return *asked* as ``kubectl -l`` takes it, its key called *name*.

    >>> requirement_text(Requirement("a", Operator.IN, frozenset({"y", "x"})), "a")
    'a in (x,y)'
    """
    values = ",".join(sorted(asked.values))
    match asked.operator:
        case Operator.IN if len(asked.values) == 1:
            return f"{name}={values}"
        case Operator.IN:
            return f"{name} in ({values})"
        case Operator.NOT_IN:
            return f"{name} notin ({values})"
        case Operator.EXISTS:
            return name
        case Operator.DOES_NOT_EXIST:
            return f"!{name}"
