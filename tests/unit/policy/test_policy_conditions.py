"""Each condition in each situation, as text: status, reason, and what to do."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from outgate.policy.conditions import Listed, Situation, judge
from outgate.policy.health import Verdict
from outgate.policy.model import (
    BadPolicy,
    EgressPolicy,
    GatewayAtAddress,
    GatewayOnNodes,
    Problem,
)
from outgate.policy.reports import NodeReport, PolicyReport
from outgate.policy.selectors import Selector
from outgate.policy.status import Aspect, Condition
from outgate.state.entries import Family, NodeName, PolicyId

KIND = "CiliumEgressGatewayPolicy"
EVERY = Selector(())
GATEWAY = GatewayOnNodes(EVERY)
OTHER = replace(GATEWAY, interface="eth1", path="spec.egressGateways[1]")
AT = GatewayAtAddress(IPv4Address("198.51.100.9"))
POLICY = EgressPolicy(
    kind=KIND,
    name="p",
    uid="u",
    created="",
    id=PolicyId(1),
    rules=(),
    destinations=(ip_network("203.0.113.0/24"),),
    gateways=(GATEWAY,),
    generation=3,
)
WRONG = Problem("p", "spec.destinationCIDRs[0]", "'10.0.0.1/8' has host bits set")
BAD = BadPolicy(KIND, "p", "u", PolicyId(1), (WRONG,), generation=4)
IP, IP6 = IPv4Address("198.51.100.4"), IPv6Address("2001:db8::4")
FINE = Verdict(True, "Usable", "", (IP,), "eth0")
UNKNOWN = Verdict(None, "NotReported", "no agent has reported from node g1")
SILENT = Verdict(False, "AgentSilent", "the agent on node g1 is silent", (IP,), "eth0")
LACKING = Verdict(
    False,
    "NoEgressIP",
    "node g1: its interface eth1 has no IPv4 address; add one",
    missing=frozenset({Family.V4}),
)
N1, G1, G2 = NodeName("n1"), NodeName("g1"), NodeName("g2")
DONE = PolicyReport(KIND, "p", 3, True)


def listed(
    node: NodeName = G1,
    verdict: Verdict = FINE,
    is_selected: bool = True,
    gateway: GatewayOnNodes | GatewayAtAddress = GATEWAY,
) -> Listed:
    return Listed(gateway, node, verdict, is_selected, IPv4Address("192.0.2.1"))


def reports(**policies: PolicyReport | None) -> Mapping[NodeName, NodeReport]:
    return {
        NodeName(name): NodeReport(
            NodeName(name), True, policies={} if report is None else {"u": report}
        )
        for name, report in policies.items()
    }


WELL = Situation(
    policy=POLICY,
    listed=(listed(),),
    pods={N1: 2},
    serving=frozenset({G1}),
    reports=reports(n1=DONE, g1=DONE),
)


def condition(situation: Situation, aspect: Aspect) -> Condition:
    return next(c for c in judge(situation).conditions if c.aspect is aspect)


def text(situation: Situation, aspect: Aspect) -> str:
    found = condition(situation, aspect)
    return f"{found.truth} {found.reason}: {found.message}"


SITUATIONS = [
    (
        "a policy without a fault",
        WELL,
        Aspect.ACCEPTED,
        "True Valid: every field is right",
    ),
    (
        "a policy that is right and still not what the user may think",
        replace(
            WELL,
            policy=replace(POLICY, warnings=(Problem("p", "spec.a", "is ignored"),)),
        ),
        Aspect.ACCEPTED,
        "True Valid: every field is right; note: spec.a: is ignored",
    ),
    (
        "a policy that turned bad",
        replace(WELL, bad=BAD),
        Aspect.ACCEPTED,
        "False Invalid: spec.destinationCIDRs[0]: '10.0.0.1/8' has host bits set;"
        " generation 3 stays in force",
    ),
    (
        "a policy that never was right",
        Situation(None, BAD),
        Aspect.ACCEPTED,
        "False Invalid: spec.destinationCIDRs[0]: '10.0.0.1/8' has host bits set;"
        " nothing of it is in force",
    ),
    (
        "a policy of which only agents know a good version",
        Situation(None, BAD, reports=reports(n1=DONE)),
        Aspect.ACCEPTED,
        "False Invalid: spec.destinationCIDRs[0]: '10.0.0.1/8' has host bits set;"
        " generation 3 stays in force",
    ),
    (
        "a policy with more faults than one can read",
        Situation(None, replace(BAD, problems=(WRONG,) * 5)),
        Aspect.ACCEPTED,
        "False Invalid: "
        + "spec.destinationCIDRs[0]: '10.0.0.1/8' has host bits set; " * 3
        + "and 2 more; nothing of it is in force",
    ),
    (
        "a policy that never was right",
        Situation(None, BAD),
        Aspect.PROGRAMMED,
        "Unknown NotAccepted: nothing is known of it before the policy is mended",
    ),
    (
        "one gateway",
        WELL,
        Aspect.GATEWAY_SELECTED,
        "True Selected: g1 is the gateway",
    ),
    (
        "two gateways",
        replace(WELL, listed=(listed(), listed(G2, gateway=OTHER))),
        Aspect.GATEWAY_SELECTED,
        "True Selected: g1, g2 share the pods",
    ),
    (
        "a candidate that is passed over",
        replace(WELL, listed=(listed(verdict=SILENT, is_selected=False), listed(G2))),
        Aspect.GATEWAY_SELECTED,
        "True Selected: g2 is the gateway; passed over: the agent on node g1 is silent",
    ),
    (
        "one of two gateways without a node",
        replace(WELL, lacking=(OTHER,)),
        Aspect.GATEWAY_SELECTED,
        "True Selected: g1 is the gateway; spec.egressGateways[1].nodeSelector: no node"
        " has these labels; label a node with `kubectl label node`",
    ),
    (
        "no node with the labels",
        replace(WELL, listed=(), lacking=(GATEWAY,)),
        Aspect.GATEWAY_SELECTED,
        "False NoMatchingNode: spec.egressGateway.nodeSelector: no node has these"
        " labels; label a node with `kubectl label node`; until then what the policy"
        " covers is dropped",
    ),
    (
        "no node with the address",
        replace(WELL, listed=(), lacking=(AT,)),
        Aspect.GATEWAY_SELECTED,
        "False NoMatchingNode: spec.egressSourceIP: no node has the address"
        " 198.51.100.9; use one that `kubectl get nodes -o wide` shows; until then what"
        " the policy covers is dropped",
    ),
    (
        "no usable candidate",
        replace(WELL, listed=(listed(verdict=SILENT),)),
        Aspect.GATEWAY_SELECTED,
        "False NoUsableGateway: no candidate is usable, so g1 stays selected: the agent"
        " on node g1 is silent",
    ),
    (
        "a gateway of which nothing is known",
        replace(WELL, listed=(listed(verdict=UNKNOWN),)),
        Aspect.GATEWAY_SELECTED,
        "True Selected: g1 is the gateway",
    ),
    (
        "a gateway that has its address",
        WELL,
        Aspect.EGRESS_IP_READY,
        "True Ready: pods leave as 198.51.100.4 on g1",
    ),
    (
        "a gateway with both families",
        replace(WELL, listed=(listed(verdict=replace(FINE, egress_ips=(IP, IP6))),)),
        Aspect.EGRESS_IP_READY,
        "True Ready: pods leave as 198.51.100.4, 2001:db8::4 on g1",
    ),
    (
        "a gateway that lacks its address",
        replace(WELL, listed=(listed(verdict=LACKING),)),
        Aspect.EGRESS_IP_READY,
        "False NoEgressIP: node g1: its interface eth1 has no IPv4 address; add one",
    ),
    (
        "a gateway of which nothing is known",
        replace(WELL, listed=(listed(verdict=UNKNOWN),)),
        Aspect.EGRESS_IP_READY,
        "Unknown NotReported: no agent has reported from node g1",
    ),
    (
        "a gateway whose agent is silent",
        replace(WELL, listed=(listed(verdict=SILENT),)),
        Aspect.EGRESS_IP_READY,
        "Unknown AgentSilent: the agent on node g1 is silent",
    ),
    (
        "no gateway",
        replace(WELL, listed=(), lacking=(GATEWAY,)),
        Aspect.EGRESS_IP_READY,
        "False NoGateway: no gateway, so no egress IP",
    ),
    (
        "rows everywhere",
        WELL,
        Aspect.PROGRAMMED,
        "True Programmed: the rows are in the kernel of every node concerned",
    ),
    (
        "a policy that another one beats for some pods",
        replace(
            WELL,
            reports=reports(
                n1=replace(DONE, message="for some pods 203.0.113.0/24 belongs to q"),
                g1=DONE,
            ),
        ),
        Aspect.PROGRAMMED,
        "True Programmed: the rows are in the kernel of every node concerned; note: for"
        " some pods 203.0.113.0/24 belongs to q",
    ),
    (
        "no pods",
        replace(WELL, pods={}, serving=frozenset(), reports={}),
        Aspect.PROGRAMMED,
        "True NoPods: no pod is selected; see the labels of pods and namespaces",
    ),
    (
        "no agents at all",
        replace(WELL, reports={}),
        Aspect.PROGRAMMED,
        "Unknown NotReported: no agent has reported; run the DaemonSet on every node",
    ),
    (
        "a pod's node without an agent",
        replace(WELL, reports=reports(g1=DONE)),
        Aspect.PROGRAMMED,
        "False AgentMissing: n1: no agent reports; run the DaemonSet there",
    ),
    (
        "a gateway that has not heard of the policy",
        replace(WELL, reports=reports(n1=DONE, g1=None)),
        Aspect.PROGRAMMED,
        "False Pending: g1: generation 3 is not programmed yet",
    ),
    (
        "a gateway that no pod leaves through",
        replace(WELL, serving=frozenset(), reports=reports(n1=DONE, g1=None)),
        Aspect.PROGRAMMED,
        "True Programmed: the rows are in the kernel of every node concerned",
    ),
    (
        "an agent that is a generation behind",
        replace(WELL, reports=reports(n1=replace(DONE, generation=2), g1=DONE)),
        Aspect.PROGRAMMED,
        "False Pending: n1: generation 3 is not programmed yet",
    ),
    (
        "a kernel that refuses rows",
        replace(
            WELL,
            reports=reports(
                n1=replace(DONE, is_programmed=False, message="2 rows: map is full"),
                g1=replace(DONE, is_programmed=False),
            ),
        ),
        Aspect.PROGRAMMED,
        "False Failed: n1: 2 rows: map is full; g1: not all rows are in the kernel yet",
    ),
    (
        "more nodes behind than one can read",
        replace(
            WELL,
            pods={NodeName(f"n{number}"): 1 for number in range(6)},
            serving=frozenset(),
            reports=reports(g1=DONE, **{f"n{number}": None for number in range(6)}),
        ),
        Aspect.PROGRAMMED,
        "False Pending: n0: generation 3 is not programmed yet; n1: generation 3 is not"
        " programmed yet; n2: generation 3 is not programmed yet; and 3 more",
    ),
    (
        "an older version in force that is programmed",
        replace(WELL, bad=BAD),
        Aspect.PROGRAMMED,
        "True Programmed: the rows are in the kernel of every node concerned",
    ),
]


@pytest.mark.parametrize(
    ("situation", "aspect", "expected"),
    [row[1:] for row in SITUATIONS],
    ids=[f"{row[2]}-{row[0]}" for row in SITUATIONS],
)
def test_condition(situation: Situation, aspect: Aspect, expected: str) -> None:
    assert expected == text(situation, aspect)


def test_programmed_of_an_agent_that_is_not_ready_says_why() -> None:
    report = replace(reports(n1=None)[N1], is_ready=False, message="no round has ended")
    situation = replace(WELL, reports={**WELL.reports, N1: report})

    expected = "False Failed: n1: the agent is not ready: no round has ended"
    assert expected == text(situation, Aspect.PROGRAMMED)


def test_status_has_every_condition_in_its_order() -> None:
    found = [condition.aspect for condition in judge(WELL).conditions]
    never_right = judge(Situation(None, BAD)).conditions

    assert list(Aspect) == found
    assert list(Aspect) == [condition.aspect for condition in never_right]


def test_status_of_a_bad_policy_is_of_the_generation_that_is_bad() -> None:
    assert 4 == judge(replace(WELL, bad=BAD)).generation
    assert 4 == judge(Situation(None, BAD)).generation


def test_status_counts_pods_of_all_nodes() -> None:
    assert 5 == judge(replace(WELL, pods={N1: 2, G2: 3})).matched_pods


def test_status_lists_candidates_in_their_order() -> None:
    passed = listed(verdict=SILENT, is_selected=False)
    found = judge(replace(WELL, listed=(passed, listed(G2)))).gateways

    assert found is not None
    assert [("g1", False, False, "AgentSilent"), ("g2", True, True, "Usable")] == [
        (g.node, g.is_usable, g.is_selected, g.reason) for g in found
    ]


def test_status_keeps_gateways_that_agents_still_use() -> None:
    """Only agents know the good version: what stands is what they choose by."""
    assert judge(Situation(None, BAD, reports=reports(n1=DONE))).gateways is None
    assert () == judge(Situation(None, BAD)).gateways
