"""Which policies a change concerns, and which candidates their status lists."""

from dataclasses import replace
from ipaddress import IPv4Address, ip_network

import pytest

from outgate.controller.freshness import PATIENCE, Freshness
from outgate.controller.statuses import MOST_LISTED, Statuses
from outgate.policy.gateways import choose
from outgate.policy.model import (
    BadPolicy,
    ClusterChanges,
    EgressPolicy,
    Endpoint,
    GatewayAtAddress,
    GatewayHealth,
    GatewayOnNodes,
    Namespace,
    Node,
    Problem,
    Rule,
)
from outgate.policy.nodes import NodeIndex
from outgate.policy.reports import NodeReport, PolicyReport
from outgate.policy.selectors import Operator, Requirement, Selector
from outgate.policy.status import PolicyStatus
from outgate.state.entries import InterfaceIndex, NodeName, PolicyId
from outgate.state.facts import Link, NodeFacts

KIND = "CiliumEgressGatewayPolicy"
KEY = f"{KIND}/p"
GATEWAYS = Selector((Requirement("egress", Operator.IN, frozenset({"yes"})),))
EVERY = Selector(())
GATEWAY = GatewayOnNodes(GATEWAYS)
POLICY = EgressPolicy(
    kind=KIND,
    name="p",
    uid="u",
    created="",
    id=PolicyId(1),
    rules=(Rule(EVERY),),
    destinations=(ip_network("203.0.113.0/24"),),
    gateways=(GATEWAY,),
    generation=1,
)


def address(number: int) -> IPv4Address:
    return IPv4Address(f"192.0.2.{number}")


def node(number: int, **labels: str) -> Node:
    return Node(NodeName(f"n{number:02}"), (address(number),), labels=labels)


def report(number: int, renewed: str = "t0", *, has_ip: bool = True) -> NodeReport:
    link = Link(
        "eth0", InterfaceIndex(2), addresses=(address(number),) if has_ip else ()
    )
    name = NodeName(f"n{number:02}")
    return NodeReport(name, True, renew_time=renewed, facts=NodeFacts((link,), "eth0"))


class World:
    """Nodes n01 to n03, the last two of them candidates, and a pod on the first."""

    def __init__(self, policy: EgressPolicy = POLICY, nodes: int = 3) -> None:
        self.now = 1000.0
        self.freshness = Freshness()
        self.statuses = Statuses(self.freshness)
        self.nodes = {
            n.name: n
            for n in [node(1), *(node(i, egress="yes") for i in range(2, nodes + 1))]
        }
        pod = Endpoint(
            "default",
            "web",
            "w",
            addresses=(IPv4Address("10.0.1.7"),),
            node=node(1).name,
        )
        self.change(
            nodes=dict(self.nodes),
            namespaces={"default": Namespace("default")},
            pods={"default/web": pod},
            policies={KEY: policy},
        )

    def change(self, **changes: object) -> None:
        self.statuses.change(ClusterChanges(**changes), self.now)  # type: ignore[arg-type]

    def report(self, *reports: NodeReport) -> None:
        for each in reports:
            self.statuses.report(each.node, each, self.now)
        self.statuses.note_time(self.freshness.take_turned(self.now))

    def concerned(self) -> set[str]:
        return self.statuses.take_concerned()

    def status(self) -> PolicyStatus:
        status = self.statuses.judge(KEY, self.now)
        assert status is not None
        return status

    def listed(self) -> list[tuple[str, bool, bool]]:
        """Return (node, usable, selected) of all that is listed."""
        found = self.status().gateways or ()
        return [(g.node, g.is_usable, g.is_selected) for g in found]


def test_policy_without_reports_takes_the_first_candidate() -> None:
    assert [("n02", True, True)] == World().listed()


def test_candidate_that_lacks_its_address_is_listed_and_passed_over() -> None:
    world = World()
    world.report(report(2, has_ip=False), report(3))

    assert [("n02", False, False), ("n03", True, True)] == world.listed()


def test_candidate_that_fell_silent_is_passed_over() -> None:
    world = World()
    world.report(report(2), report(3))
    assert [("n02", True, True)] == world.listed()

    world.now += PATIENCE
    world.report(report(3, "t1"))
    assert [("n02", False, False), ("n03", True, True)] == world.listed()


def test_candidate_keeps_its_name_for_bad_while_nothing_new_is_known() -> None:
    """A controller that has just started moves no pods back to a dead gateway."""
    bad = GatewayHealth(NodeName("n02"), False)
    world = World(replace(POLICY, health=(bad,)))
    world.statuses.report(node(1).name, report(1), world.now, is_old=True)
    world.statuses.report(node(2).name, report(2), world.now, is_old=True)

    assert [("n02", False, False), ("n03", True, True)] == world.listed()


def test_what_is_listed_makes_agents_choose_what_is_selected() -> None:
    world = World(nodes=6)
    world.report(*(report(i, has_ip=i in (4, 6)) for i in range(2, 7)))
    found = world.status().gateways or ()
    health = tuple(GatewayHealth(g.node, g.is_usable, g.egress_ips) for g in found)
    read = replace(POLICY, health=health)
    chosen = choose(read, NodeIndex(world.nodes.values()))

    selected = [g.node for g in found if g.is_selected]
    assert ["n04"] == selected == [c.node for c in chosen if c.is_selected]


def test_list_has_an_end_and_its_last_stays_selected() -> None:
    world = World(nodes=40)
    world.report(*(report(i, has_ip=False) for i in range(2, 41)))
    found = world.listed()

    assert MOST_LISTED == len(found)
    assert (f"n{MOST_LISTED + 1:02}", True, True) == found[-1]
    assert {False} == {usable for _, usable, _ in found[:-1]}


def test_two_gateways_on_one_node_are_listed_each() -> None:
    by_name = replace(GATEWAY, interface="eth0", path="spec.egressGateways[0]")
    by_route = replace(GATEWAY, path="spec.egressGateways[1]")
    world = World(replace(POLICY, gateways=(by_name, by_route)))
    world.report(report(2))

    assert [("n02", True, True)] * 2 == world.listed()


@pytest.mark.parametrize(
    ("changes", "concerned"),
    [
        ({"nodes": {"n02": replace(node(2, egress="yes"), is_ready=False)}}, {KEY}),
        ({"nodes": {"n02": None}}, {KEY}),
        ({"nodes": {"n01": replace(node(1), is_ready=False)}}, set()),
        ({"nodes": {"n01": node(1, egress="yes")}}, {KEY}),
        ({"pods": {"default/web": None}}, {KEY}),
        ({"namespaces": {"other": Namespace("other")}}, set()),
        ({"policies": {KEY: None}}, {KEY}),
    ],
)
def test_change_concerns(changes: dict[str, object], concerned: set[str]) -> None:
    world = World()
    world.concerned()
    world.change(**changes)

    assert concerned == world.concerned()


def test_address_that_moves_concerns_the_policy_that_names_it() -> None:
    world = World(replace(POLICY, gateways=(GatewayAtAddress(address(9)),)))
    world.status()
    world.concerned()
    moved = replace(node(1), external_addresses=(address(9),))
    world.change(nodes={moved.name: moved})

    assert {KEY} == world.concerned()
    assert ["n01"] == [g.node for g in world.status().gateways or ()]


def test_sign_of_life_alone_concerns_nobody() -> None:
    world = World()
    world.report(report(2), report(3))
    world.status()
    world.concerned()
    world.now += 5
    world.report(report(2, "t1"), report(3, "t1"))

    assert set() == world.concerned()


def test_first_report_concerns_all() -> None:
    """Without any report nothing is known of agents; with one, others are missing."""
    world = World()
    world.report()
    world.status()
    world.concerned()
    stranger = replace(report(9), node=NodeName("n99"))
    world.report(stranger)

    assert {KEY} == world.concerned()


def test_report_of_rows_concerns_their_policy() -> None:
    world = World()
    world.report(report(1), report(2))
    world.status()
    world.concerned()
    done = PolicyReport(KIND, "p", 1, True)
    world.report(replace(report(1), policies={"u": done}))

    assert {KEY} == world.concerned()


def test_silence_concerns_the_policies_that_list_the_node() -> None:
    world = World()
    world.report(report(2))
    world.status()
    world.concerned()
    world.now += PATIENCE
    world.report()

    assert {KEY} == world.concerned()


def test_bad_version_keeps_the_good_one_in_force() -> None:
    world = World()
    problem = Problem("p", "spec", "is wrong")
    bad = BadPolicy(KIND, "p", "u", PolicyId(1), (problem,), generation=2)
    world.change(policies={KEY: bad})

    status = world.status()
    assert (2, 1) == (status.generation, status.matched_pods)
    assert "generation 1 stays in force" in status.conditions[0].message


def test_another_policy_of_the_same_name_inherits_nothing() -> None:
    world = World()
    problem = Problem("p", "spec", "is wrong")
    bad = BadPolicy(KIND, "p", "another", PolicyId(2), (problem,), generation=1)
    world.change(policies={KEY: bad})

    status = world.status()
    assert 0 == status.matched_pods
    assert "nothing of it is in force" in status.conditions[0].message


def test_deleted_policy_has_no_status() -> None:
    world = World()
    world.change(policies={KEY: None})

    assert world.statuses.judge(KEY, world.now) is None
