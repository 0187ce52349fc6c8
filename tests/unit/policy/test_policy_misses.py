"""Why a policy does not select a pod, in the user's words."""

from ipaddress import ip_address

import pytest

from outgate.policy.misses import Miss, nearest_misses, requirement_text
from outgate.policy.model import EgressPolicy, GatewayAtAddress, Rule, policy_id
from outgate.policy.selectors import Operator, Requirement, Selector

IN, EXISTS = Operator.IN, Operator.EXISTS
IDENTITY = {
    "app": "web",
    "io.kubernetes.pod.namespace": "shop",
    "io.cilium.k8s.namespace.labels.team": "a",
}


def needs(key: str, *values: str, operator: Operator = IN) -> Requirement:
    return Requirement(key, operator, frozenset(values))


def policy(*rules: Rule, kind: str = "CiliumEgressGatewayPolicy") -> EgressPolicy:
    return EgressPolicy(
        kind=kind,
        name="p",
        uid="u",
        created="",
        id=policy_id("u", "", "", ""),
        rules=rules,
        destinations=(),
        gateways=(GatewayAtAddress(ip_address("192.0.2.1")),),
    )


def test_miss_names_the_field_what_it_asks_and_what_there_is() -> None:
    rule = Rule(Selector((needs("app", "db"), needs("tier", "x"))))

    assert nearest_misses(policy(rule), IDENTITY, {}) == tuple(
        Miss("CiliumEgressGatewayPolicy p", "spec.selectors[0].podSelector", text)
        for text in (
            "asks for app=db; the pod has app=web",
            "asks for tier=x; the pod has no label tier",
        )
    )


def test_nearest_rule_counts() -> None:
    far = Rule(Selector((needs("app", "db"), needs("tier", "x"))))
    near = Rule(Selector((needs("app", "web"), needs("tier", "x"))))
    (miss,) = nearest_misses(policy(far, near), IDENTITY, {})

    assert miss.path == "spec.selectors[1].podSelector"


@pytest.mark.parametrize(
    ("rule", "path", "message"),
    [
        (
            Rule(Selector((needs("io.cilium.k8s.namespace.labels.team", "b"),))),
            "spec.selectors[0].namespaceSelector",
            "asks for team=b; namespace shop has team=a",
        ),
        (
            Rule(Selector((needs("io.kubernetes.pod.namespace", "db"),))),
            "spec.selectors[0].podSelector",
            "asks for io.kubernetes.pod.namespace=db;"
            " the pod has io.kubernetes.pod.namespace=shop",
        ),
        (
            Rule(Selector(), Selector((needs("zone", operator=EXISTS),))),
            "spec.selectors[0].nodeSelector",
            "asks for zone; the pod's node has no label zone",
        ),
    ],
)
def test_miss_says_whose_labels_were_looked_at(
    rule: Rule, path: str, message: str
) -> None:
    (miss,) = nearest_misses(policy(rule), IDENTITY, {})

    assert (miss.path, miss.message) == (path, message)


def test_rules_of_the_older_kind_are_under_egress() -> None:
    rule = Rule(Selector((needs("app", "db"),)))
    (miss,) = nearest_misses(policy(rule, kind="CiliumEgressNATPolicy"), IDENTITY, {})

    assert miss.path == "spec.egress[0].podSelector"


@pytest.mark.parametrize(
    ("operator", "values", "text"),
    [
        (Operator.IN, ("a",), "k=a"),
        (Operator.IN, ("b", "a"), "k in (a,b)"),
        (Operator.NOT_IN, ("a",), "k notin (a)"),
        (Operator.EXISTS, (), "k"),
        (Operator.DOES_NOT_EXIST, (), "!k"),
    ],
)
def test_requirements_read_as_for_kubectl(
    operator: Operator, values: tuple[str, ...], text: str
) -> None:
    assert requirement_text(needs("k", *values, operator=operator), "k") == text
