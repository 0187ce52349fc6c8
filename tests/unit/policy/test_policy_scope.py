"""Which pods a gateway asks an API server for."""

import pytest

from outgate.policy.model import PodQuery, Rule
from outgate.policy.scope import ALL_PODS, MOST_QUERIES, pod_queries
from outgate.policy.selectors import (
    NAMESPACE_LABEL,
    NAMESPACE_LABELS_PREFIX,
    Operator,
    Requirement,
    Selector,
)

IN, NOT_IN = Operator.IN, Operator.NOT_IN
NAME = NAMESPACE_LABELS_PREFIX + "kubernetes.io/metadata.name"


def _in(key: str, *values: str, operator: Operator = IN) -> Requirement:
    return Requirement(key, operator, frozenset(values))


def _rule(*requirements: Requirement, nodes: Selector | None = None) -> Rule:
    return Rule(Selector(requirements), nodes)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (_rule(_in("app", "a")), {PodQuery("", "app=a")}),
        (_rule(_in("app", "b", "a")), {PodQuery("", "app in (a,b)")}),
        (_rule(_in("app", "a", operator=NOT_IN)), {PodQuery("", "app!=a")}),
        (
            _rule(_in("app", "b", "a", operator=NOT_IN)),
            {PodQuery("", "app notin (a,b)")},
        ),
        (_rule(Requirement("app", Operator.EXISTS)), {PodQuery("", "app")}),
        (_rule(Requirement("app", Operator.DOES_NOT_EXIST)), {PodQuery("", "!app")}),
        (_rule(_in(NAMESPACE_LABEL, "shop")), {PodQuery("shop")}),
        (_rule(_in(NAME, "shop"), _in("app", "a")), {PodQuery("shop", "app=a")}),
        (_rule(_in(NAMESPACE_LABEL, "x", "y")), {PodQuery("x"), PodQuery("y")}),
        (_rule(_in(NAMESPACE_LABEL, "x", "y"), _in(NAME, "y")), {PodQuery("y")}),
        (_rule(_in("app", "a"), _in("tier", "b")), {PodQuery("", "app=a,tier=b")}),
    ],
)
def test_rule_becomes_what_a_server_can_be_asked(
    rule: Rule, expected: set[PodQuery]
) -> None:
    assert pod_queries([rule]) == expected


@pytest.mark.parametrize(
    "rule",
    [
        _rule(),
        _rule(_in(NAMESPACE_LABELS_PREFIX + "team", "blue")),
        _rule(Requirement(NAMESPACE_LABEL, Operator.EXISTS)),
        _rule(_in(NAMESPACE_LABEL, "shop", operator=NOT_IN)),
        _rule(_in("app", "", "a")),
    ],
)
def test_what_cannot_be_said_asks_for_more(rule: Rule) -> None:
    assert pod_queries([rule]) == ALL_PODS


def test_nothing_is_asked_without_a_rule() -> None:
    assert pod_queries([]) == frozenset()


def test_query_that_another_one_implies_is_left_out() -> None:
    wide, narrow = _rule(_in("app", "a")), _rule(_in("app", "a"), _in("tier", "b"))
    in_shop = _rule(_in("app", "a"), _in(NAMESPACE_LABEL, "shop"))

    assert pod_queries([wide, narrow, in_shop]) == {PodQuery("", "app=a")}


def test_equal_rules_on_other_nodes_are_one_query() -> None:
    rules = [_rule(_in("app", "a")), _rule(_in("app", "a"), nodes=Selector())]

    assert pod_queries(rules) == {PodQuery("", "app=a")}


def test_too_many_queries_ask_for_everything() -> None:
    rules = [_rule(_in("app", str(index))) for index in range(MOST_QUERIES + 1)]

    assert pod_queries(rules) == ALL_PODS
    assert len(pod_queries(rules[1:])) == MOST_QUERIES
