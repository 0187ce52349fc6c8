"""Which node is a policy's gateway, and under which addresses its pods leave."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from outgate.policy.gateways import (
    canonical_text,
    choose,
    needed_families,
    resolve_egress_ips,
    share,
)
from outgate.policy.model import (
    EgressPolicy,
    GatewayAtAddress,
    GatewayHealth,
    GatewayOnNodes,
    Node,
    Rule,
    policy_id,
)
from outgate.policy.nodes import NodeIndex
from outgate.policy.selectors import Operator, Requirement, Selector
from outgate.state.entries import Family, InterfaceIndex, NodeName
from outgate.state.facts import Link, NodeFacts

GATEWAYS = Selector((Requirement("role", Operator.IN, frozenset({"gateway"})),))
EGRESS_IP = ip_address("198.51.100.9")
A, B, C = NodeName("a"), NodeName("b"), NodeName("c")


def _node(name: NodeName, last: int, **changes: Any) -> Node:
    node = Node(name, (ip_address(f"192.0.2.{last}"),), labels={"role": "gateway"})
    return replace(node, **changes)


NODES = (_node(A, 1), _node(B, 2), _node(C, 3))


def _policy(
    *gateways: GatewayOnNodes | GatewayAtAddress, **changes: Any
) -> EgressPolicy:
    policy = EgressPolicy(
        kind="CiliumEgressGatewayPolicy",
        name="p",
        uid="p",
        created="",
        id=policy_id("p", "", "", ""),
        rules=(Rule(Selector()),),
        destinations=(ip_network("203.0.113.0/24"),),
        gateways=gateways or (GatewayOnNodes(GATEWAYS),),
    )
    return replace(policy, **changes)


def _chosen(policy: EgressPolicy, *nodes: Node) -> list[NodeName | None]:
    return [chosen.node for chosen in choose(policy, NodeIndex(nodes))]


def test_first_matching_node_by_name_is_the_gateway() -> None:
    other = _node(NodeName("0"), 9, labels={"role": "worker"})

    assert _chosen(_policy(), *reversed(NODES), other) == [A]


@pytest.mark.parametrize("fault", [{"is_ready": False}, {"is_deleted": True}])
def test_node_that_cannot_do_the_job_comes_last(fault: Any) -> None:
    first, bad = NODES[1], replace(NODES[0], **fault)
    (chosen,) = choose(_policy(), NodeIndex((bad, first)))

    assert (chosen.node, chosen.is_usable, chosen.candidates) == (B, True, 2)


def test_node_that_is_known_to_be_unusable_comes_last() -> None:
    policy = _policy(health=(GatewayHealth(A, is_usable=False),))

    assert _chosen(policy, *NODES) == [B]


def test_node_that_is_known_to_be_usable_is_not_preferred_for_that() -> None:
    """Else pods would move only because the controller looked at another node."""
    policy = _policy(health=(GatewayHealth(B, is_usable=True),))

    assert _chosen(policy, *NODES) == [A]


def test_bad_node_is_used_when_there_is_no_better() -> None:
    (chosen,) = choose(_policy(), NodeIndex((replace(NODES[1], is_ready=False),)))

    assert (chosen.node, chosen.is_usable, chosen.is_selected) == (B, False, True)
    assert chosen.reason == "node b is not ready"


def test_node_without_any_address_is_no_gateway() -> None:
    bare = replace(NODES[0], internal_addresses=())

    assert _chosen(_policy(), bare, NODES[1]) == [B]
    assert _chosen(_policy(), bare) == [None]


def test_node_that_has_the_egress_ip_comes_first() -> None:
    wanted = GatewayOnNodes(GATEWAYS, egress_ip=EGRESS_IP)
    has = replace(NODES[2], external_addresses=(EGRESS_IP,))

    assert _chosen(_policy(wanted), *NODES[:2], has) == [C]


def test_controller_tells_who_has_the_egress_ip() -> None:
    wanted = GatewayOnNodes(GATEWAYS, egress_ip=EGRESS_IP)
    health = (GatewayHealth(B, is_usable=True, egress_ips=(EGRESS_IP,)),)

    assert _chosen(_policy(wanted, health=health), *NODES) == [B]


def test_node_that_is_not_ready_is_no_choice_for_its_egress_ip() -> None:
    """Others may have it as well: unknown is better than down."""
    wanted = GatewayOnNodes(GATEWAYS, egress_ip=EGRESS_IP)
    has = replace(NODES[2], external_addresses=(EGRESS_IP,), is_ready=False)

    assert _chosen(_policy(wanted), *NODES[:2], has) == [A]


def test_among_bad_nodes_the_one_with_the_egress_ip_comes_first() -> None:
    wanted = GatewayOnNodes(GATEWAYS, egress_ip=EGRESS_IP)
    bad = [replace(node, is_ready=False) for node in NODES]
    has = replace(bad[1], external_addresses=(EGRESS_IP,))

    assert _chosen(_policy(wanted), bad[0], has, bad[2]) == [B]


def test_usable_gateways_share_and_others_wait() -> None:
    one = GatewayOnNodes(Selector((Requirement("name", Operator.IN, frozenset("a")),)))
    two = GatewayOnNodes(Selector((Requirement("name", Operator.IN, frozenset("b")),)))
    a = replace(NODES[0], labels={"name": "a"})
    b = replace(NODES[1], labels={"name": "b"})
    policy = _policy(one, two)

    def _selected(*nodes: Node) -> list[bool]:
        return [c.is_selected for c in choose(policy, NodeIndex(nodes))]

    assert _selected(a, b) == [True, True]
    assert _selected(replace(a, is_ready=False), b) == [False, True]
    assert _selected(b) == [False, True]
    assert _selected(replace(a, is_ready=False), replace(b, is_ready=False)) == [
        True,
        True,
    ]
    assert _selected() == [False, False]


def test_node_of_an_egress_source_ip_is_its_owner_whatever_its_state() -> None:
    policy = _policy(GatewayAtAddress(ip_address("192.0.2.2")))
    bad = replace(NODES[1], is_ready=False)
    (chosen,) = choose(policy, NodeIndex((NODES[0], bad)))

    assert (chosen.node, chosen.is_selected) == (B, True)
    assert chosen.tunnel_endpoint == ip_address("192.0.2.2")


def test_share_of_a_gateway_depends_on_what_it_asks_for_not_on_its_place() -> None:
    texts = [canonical_text(GatewayOnNodes(GATEWAYS, name)) for name in ("x", "y", "z")]
    moved = [texts[2], texts[0], texts[1]]
    for index in range(50):
        pod = f"default/pod{index}"
        assert texts[share(pod, texts)] == moved[share(pod, moved)]


def test_gateways_get_about_equal_shares() -> None:
    texts = ["one", "two", "three", "four"]
    counts = [0] * 4
    for index in range(4000):
        counts[share(f"default/pod{index}", texts)] += 1

    assert all(900 < count < 1100 for count in counts)


FACTS = NodeFacts(
    (
        Link("lo", InterfaceIndex(1), addresses=(ip_address("127.0.0.1"),)),
        Link(
            "eth0",
            InterfaceIndex(2),
            addresses=tuple(
                map(ip_address, ("192.0.2.1", "192.0.2.11", "fe80::1", "2001:db8::1"))
            ),
            altnames=("enp0s1", "uplink"),
        ),
        Link("eth1", InterfaceIndex(3), addresses=(EGRESS_IP,)),
    ),
    default_interface="eth0",
)
V4, V6 = Family.V4, Family.V6


@pytest.mark.parametrize("name", ["eth0", "enp0s1", "uplink"])
def test_interface_gives_its_first_address_by_any_of_its_names(name: str) -> None:
    """An address of the link is none that the world could answer to."""
    found = resolve_egress_ips(GatewayOnNodes(GATEWAYS, name), FACTS)

    assert found == (
        {V4: ip_address("192.0.2.1"), V6: ip_address("2001:db8::1")},
        "eth0",
        "",
    )


def test_interface_that_does_not_exist_is_told_with_those_that_do() -> None:
    found = resolve_egress_ips(GatewayOnNodes(GATEWAYS, "eth9"), FACTS)

    assert found.egress_ips == {}
    assert "'eth9'; it has: lo, eth0, eth1" in found.reason


def test_interface_without_an_address_of_a_needed_family_is_told() -> None:
    gateway = GatewayOnNodes(GATEWAYS, "eth1")

    assert resolve_egress_ips(gateway, FACTS, {V4}).reason == ""
    found = resolve_egress_ips(gateway, FACTS, {V4, V6})
    assert found.egress_ips == {V4: EGRESS_IP}
    assert found.reason == "its interface eth1 has no IPv6 address; add one"


def test_egress_ip_takes_the_other_family_from_its_interface() -> None:
    wanted = ip_address("192.0.2.11")
    found = resolve_egress_ips(GatewayOnNodes(GATEWAYS, egress_ip=wanted), FACTS)

    assert found == ({V4: wanted, V6: ip_address("2001:db8::1")}, "eth0", "")


def test_egress_ip_that_no_interface_has_is_nothing_of_any_family() -> None:
    lost = ip_address("198.51.100.77")
    found = resolve_egress_ips(GatewayOnNodes(GATEWAYS, egress_ip=lost), FACTS)

    assert found.egress_ips == {}
    assert found.reason == (
        "none of its interfaces carries 198.51.100.77; add the address"
    )


def test_default_routes_give_an_address_each() -> None:
    facts = replace(FACTS, default_interface="eth1", default_interface_v6="eth0")
    found = resolve_egress_ips(GatewayOnNodes(GATEWAYS), facts)

    assert found.egress_ips == {V4: EGRESS_IP, V6: ip_address("2001:db8::1")}


def test_missing_default_route_is_told_where_it_is_needed() -> None:
    gateway = GatewayOnNodes(GATEWAYS)

    assert resolve_egress_ips(gateway, FACTS, {V4}).reason == ""
    assert "no default route of IPv6" in resolve_egress_ips(gateway, FACTS).reason


def test_needed_families_are_those_of_networks_that_can_have_rows() -> None:
    networks = tuple(map(ip_network, ("203.0.113.0/24", "fe80::/64")))

    assert needed_families(_policy(destinations=networks)) == {V4}
