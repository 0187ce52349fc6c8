"""Selectors against a naive oracle that reads the JSON as the documentation does."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from outgate.policy.endpoints import identity_labels
from outgate.policy.fields import Field
from outgate.policy.model import Endpoint, Namespace
from outgate.policy.selectors import parse_pod_rule

KEYS = st.sampled_from(("app", "tier", "example.com/x"))
POD_KEYS = st.one_of(KEYS, st.just("io.kubernetes.pod.namespace"))
VALUES = st.sampled_from(("a", "b", "", "default", "shop"))
NAMES = st.sampled_from(("default", "shop"))


def _expressions(keys: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    with_values = st.fixed_dictionaries(
        {
            "key": keys,
            "operator": st.sampled_from(("In", "NotIn")),
            "values": st.lists(VALUES, min_size=1, max_size=3),
        }
    )
    without = st.fixed_dictionaries(
        {"key": keys, "operator": st.sampled_from(("Exists", "DoesNotExist"))}
    )
    return st.one_of(with_values, without)


def _selectors(keys: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "matchLabels": st.dictionaries(keys, VALUES, max_size=2),
            "matchExpressions": st.lists(_expressions(keys), max_size=2),
        },
    )


RULES = st.one_of(
    st.fixed_dictionaries({"podSelector": _selectors(POD_KEYS)}),
    st.fixed_dictionaries({"namespaceSelector": _selectors(KEYS)}),
    st.fixed_dictionaries(
        {"podSelector": _selectors(POD_KEYS), "namespaceSelector": _selectors(KEYS)}
    ),
)
LABELS = st.dictionaries(KEYS, VALUES)


def _naive(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if key not in labels or labels[key] != value:
            return False
    for expression in selector.get("matchExpressions", []):
        key, operator = expression["key"], expression["operator"]
        is_there = key in labels
        is_in = is_there and labels[key] in expression.get("values", [])
        holds = {
            "In": is_in,
            "NotIn": not is_in,
            "Exists": is_there,
            "DoesNotExist": not is_there,
        }[operator]
        if not holds:
            return False
    return True


@given(RULES, LABELS, NAMES, LABELS)
def test_rule_selects_what_a_naive_reading_selects(
    rule: dict[str, Any],
    pod_labels: dict[str, str],
    namespace: str,
    namespace_labels: dict[str, str],
) -> None:
    selector = parse_pod_rule(Field(rule, "rule", []))
    assert selector is not None
    endpoint = Endpoint(namespace, "pod", labels=pod_labels)
    labels = identity_labels(endpoint, Namespace(namespace, namespace_labels))
    pod_view = {**pod_labels, "io.kubernetes.pod.namespace": namespace}

    expected = _naive(rule.get("podSelector", {}), pod_view) and _naive(
        rule.get("namespaceSelector", {}), namespace_labels
    )
    assert expected == selector.matches(labels)
