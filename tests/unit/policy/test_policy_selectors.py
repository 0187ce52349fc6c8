"""Label selectors as Kubernetes defines them, plus the namespace as labels."""

from typing import Any

import pytest

from outgate.errors import PolicyError
from outgate.policy.endpoints import identity_labels
from outgate.policy.fields import Field
from outgate.policy.model import Endpoint, Namespace
from outgate.policy.selectors import parse_pod_rule

WEB = Endpoint("shop", "web-0", labels={"app": "web", "tier": "front"})
SHOP = Namespace("shop", {"team": "blue", "kubernetes.io/metadata.name": "shop"})


def _matches(rule: Any, pod: Endpoint = WEB, namespace: Namespace = SHOP) -> bool:
    problems: list[PolicyError] = []
    selector = parse_pod_rule(Field(rule, "rule", problems))
    assert problems == []
    assert selector is not None
    return selector.matches(identity_labels(pod, namespace))


def _expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    expression = {"key": key, "operator": operator, "values": list(values)}
    return {"podSelector": {"matchExpressions": [expression]}}


@pytest.mark.parametrize(
    ("rule", "is_match"),
    [
        ({"podSelector": {}}, True),
        ({"podSelector": {"matchLabels": {"app": "web", "tier": "front"}}}, True),
        ({"podSelector": {"matchLabels": {"app": "web", "tier": "back"}}}, False),
        (_expression("app", "In", "db", "web"), True),
        (_expression("app", "In", "db"), False),
        (_expression("missing", "In", "x"), False),
        (_expression("app", "NotIn", "db"), True),
        (_expression("app", "NotIn", "web"), False),
        (_expression("missing", "NotIn", "x"), True),
        (_expression("app", "Exists"), True),
        (_expression("missing", "Exists"), False),
        (_expression("app", "DoesNotExist"), False),
        (_expression("missing", "DoesNotExist"), True),
        ({"namespaceSelector": {}}, True),
        ({"namespaceSelector": {"matchLabels": {"team": "blue"}}}, True),
        ({"namespaceSelector": {"matchLabels": {"team": "red"}}}, False),
        (
            {
                "namespaceSelector": {"matchLabels": {"team": "blue"}},
                "podSelector": {"matchLabels": {"app": "db"}},
            },
            False,
        ),
    ],
)
def test_selector_matches(rule: Any, is_match: bool) -> None:
    assert is_match == _matches(rule)


@pytest.mark.parametrize(
    "rule",
    [
        {"podSelector": {"matchLabels": {"io.kubernetes.pod.namespace": "shop"}}},
        _expression("io.kubernetes.pod.namespace", "NotIn", "default"),
        {
            "podSelector": {
                "matchLabels": {"io.cilium.k8s.namespace.labels.team": "blue"}
            }
        },
    ],
)
def test_selector_sees_the_namespace_as_labels_of_the_pod(rule: Any) -> None:
    assert _matches(rule)


def test_pod_cannot_label_itself_into_another_namespace() -> None:
    pod = Endpoint(
        "shop",
        "liar",
        labels={
            "io.kubernetes.pod.namespace": "bank",
            "io.cilium.k8s.namespace.labels.secret": "yes",
        },
    )
    bank = {"podSelector": {"matchLabels": {"io.kubernetes.pod.namespace": "bank"}}}

    assert not _matches(bank, pod)
    assert not _matches({"namespaceSelector": {"matchLabels": {"secret": "yes"}}}, pod)


@pytest.mark.parametrize(
    ("expression", "path", "reason"),
    [
        ({"key": "a", "operator": "In"}, ".values", "needs at least one value"),
        (
            {"key": "a", "operator": "Exists", "values": ["x"]},
            ".values",
            "takes no values",
        ),
        ({"key": "a b", "operator": "Exists"}, ".key", "is no label key"),
        ({"key": "a..b/c", "operator": "Exists"}, ".key", "is no label key"),
        ({"key": "a-.b/c", "operator": "Exists"}, ".key", "is no label key"),
        ({"key": f"{'a' * 254}/c", "operator": "Exists"}, ".key", "is no label key"),
        (
            {"key": "a", "operator": "In", "values": ["é"]},
            ".values[0]",
            "is no label value",
        ),
        ({"key": "a", "operator": "Gt", "values": ["1"]}, ".operator", "no operator"),
    ],
)
def test_selector_refuses_with_the_path(
    expression: Any, path: str, reason: str
) -> None:
    problems: list[PolicyError] = []
    rule = {"podSelector": {"matchExpressions": [expression]}}
    parse_pod_rule(Field(rule, "r", problems))
    (problem,) = problems

    assert problem.path == f"r.podSelector.matchExpressions[0]{path}"
    assert reason in problem.reason
