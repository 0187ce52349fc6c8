"""What a node holds for policies with gateways on nodes, and what follows a change."""

from collections.abc import Set
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from outgate.policy.answers import LocalPolicy
from outgate.policy.engine import Engine
from outgate.policy.model import (
    BadPolicy,
    ClusterChanges,
    EgressPolicy,
    Endpoint,
    GatewayHealth,
    GatewayOnNodes,
    Namespace,
    Node,
    PodQuery,
    Problem,
    Rule,
    policy_id,
)
from outgate.policy.scope import ALL_PODS
from outgate.policy.selectors import Operator, Requirement, Selector
from outgate.state.entries import (
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
    InterfaceIndex,
    IpcacheKey,
    Key,
    NodeKey,
    NodeName,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    RowSet,
    RowsKey,
    TunnelDevice,
    ViaGateway,
)
from outgate.state.facts import Link, NodeFacts

TUNNEL = TunnelDevice("outgate_vx", 4789)
ONE, TWO, THREE = NodeName("n1"), NodeName("n2"), NodeName("n3")
ADDRESS = {
    ONE: ip_address("192.0.2.1"),
    TWO: ip_address("192.0.2.2"),
    THREE: ip_address("192.0.2.3"),
}
EGRESS_IP = ip_address("198.51.100.9")
WORLD, PART = ip_network("203.0.113.0/24"), ip_network("203.0.113.128/25")


def _in(key: str, *values: str) -> Selector:
    return Selector((Requirement(key, Operator.IN, frozenset(values)),))


GATEWAYS = _in("role", "gateway")


def _node(name: NodeName, **changes: Any) -> Node:
    number = list(ADDRESS).index(name) + 1
    node = Node(
        name,
        (ADDRESS[name],),
        labels={} if name == ONE else {"role": "gateway"},
        pod_networks=(ip_network(f"10.0.{number}.0/24"),),
    )
    return replace(node, **changes)


def _pod(name: str, address: str, node: NodeName = ONE, **changes: Any) -> Endpoint:
    pod = Endpoint(
        "default", name, name, "2026-01-01", (ip_address(address),), {"app": "a"}, node
    )
    return replace(pod, **changes)


def _policy(name: str = "p", **changes: Any) -> EgressPolicy:
    policy = EgressPolicy(
        kind="CiliumEgressGatewayPolicy",
        name=name,
        uid=name,
        created="",
        id=policy_id(name, "", "", ""),
        rules=(Rule(_in("app", "a")),),
        destinations=(WORLD,),
        gateways=(GatewayOnNodes(GATEWAYS),),
    )
    return replace(policy, **changes)


POD, FAR = _pod("web", "10.0.1.7"), _pod("far", "10.0.3.7", THREE)


def _facts(*more: Link, **changes: Any) -> NodeFacts:
    eth0 = Link("eth0", InterfaceIndex(2), addresses=(ADDRESS[TWO],))
    return replace(NodeFacts((eth0, *more), "eth0"), **changes)


def _engine(
    at: NodeName, *policies: EgressPolicy | BadPolicy, facts: NodeFacts | None = None
) -> Engine:
    engine = Engine(at, TUNNEL)
    engine.observe(facts or _facts())
    _change(
        engine,
        nodes={name: _node(name) for name in ADDRESS},
        namespaces={"default": Namespace("default", {"team": "blue"})},
        pods={f"default/{pod.name}": pod for pod in (POD, FAR)},
        policies={f"{p.kind}/{p.name}": p for p in policies},
    )
    return engine


def _change(engine: Engine, **changes: Any) -> Set[Key]:
    engine.change(ClusterChanges(**changes))
    return engine.settle()


def _rows(engine: Engine, address: str = "10.0.1.7") -> dict[str, PolicyEntry]:
    rows = engine.desired.get(RowsKey(ip_address(address)), RowSet({}))
    assert isinstance(rows, RowSet)
    return {str(network): entry for network, entry in rows.items()}


def test_pods_node_needs_no_egress_ip_that_only_the_gateway_knows() -> None:
    engine = _engine(ONE, _policy())

    assert _rows(engine) == {
        str(WORLD): ViaGateway(None, ADDRESS[TWO], _policy().id),
    }


def test_gateway_finds_the_egress_ip_of_its_default_route() -> None:
    engine = _engine(TWO, _policy())
    (entry,) = _rows(engine).values()

    assert entry == ViaGateway(ADDRESS[TWO], ADDRESS[TWO], _policy().id)
    assert isinstance(entry, ViaGateway)
    assert entry.interface == "eth0"
    assert engine.desired[EndpointKey(ADDRESS[TWO])] == EndpointEntry(
        EndpointFlag.HOST, is_egress_ip=True
    )


def test_status_of_the_policy_tells_other_nodes_the_egress_ip() -> None:
    health = (GatewayHealth(TWO, True, (EGRESS_IP,), "wan0"),)
    engine = _engine(ONE, _policy(health=health))
    (entry,) = _rows(engine).values()

    assert entry == ViaGateway(EGRESS_IP, ADDRESS[TWO], _policy().id)
    assert isinstance(entry, ViaGateway)
    assert entry.interface == "wan0"


def test_egress_ip_is_followed_when_it_comes_and_goes() -> None:
    """Missing, it is a drop on the gateway, never another source address."""
    wanted = _policy(gateways=(GatewayOnNodes(GATEWAYS, egress_ip=EGRESS_IP),))
    engine = _engine(TWO, wanted)
    lost = {str(WORLD): NoEgressIP(ADDRESS[TWO], wanted.id)}

    assert _rows(engine) == lost
    assert engine.problems == (
        Problem(
            "CiliumEgressGatewayPolicy p",
            "spec.egressGateway.egressIP",
            "node n2 is the gateway, but none of its interfaces carries"
            " 198.51.100.9; add the address; until then what has no egress IP is"
            " dropped there",
        ),
    )
    engine.observe(_facts(Link("eth1", InterfaceIndex(3), addresses=(EGRESS_IP,))))
    touched = engine.settle()
    via = ViaGateway(EGRESS_IP, ADDRESS[TWO], wanted.id)

    assert RowsKey(ip_address("10.0.1.7")) in touched
    assert _rows(engine) == {str(WORLD): via}
    assert not engine.problems
    engine.observe(_facts())
    engine.settle()
    assert _rows(engine) == lost


def test_interface_that_is_missing_is_named_with_its_field() -> None:
    wanted = _policy(gateways=(GatewayOnNodes(GATEWAYS, "wan0"),))
    engine = _engine(TWO, wanted)
    (problem,) = engine.problems

    assert problem.path == "spec.egressGateway.interface"
    assert "'wan0'; it has: eth0" in problem.message
    assert _rows(engine) == {str(WORLD): NoEgressIP(ADDRESS[TWO], wanted.id)}


def test_no_matching_node_is_a_drop_and_tells_the_labels() -> None:
    nobody = _policy(gateways=(GatewayOnNodes(_in("role", "router")),))
    engine = _engine(ONE, nobody)
    (problem,) = engine.problems

    assert _rows(engine) == {str(WORLD): NoGateway(nobody.id)}
    assert problem.path == "spec.egressGateway.nodeSelector"
    assert "role In router" in problem.message
    assert "kubectl label node" in problem.message


def test_gateway_without_ipv4_takes_no_ipv4_packets_and_is_told() -> None:
    """Rows of IPv4 have no room for its address; those of IPv6 have."""
    world_6 = ip_network("2001:db8:ff::/48")
    policy = _policy(destinations=(WORLD, world_6))
    engine = _engine(ONE, policy)
    only_6 = ip_address("2001:db8::2")
    _change(
        engine,
        nodes={TWO: _node(TWO, internal_addresses=(only_6,)), THREE: None},
        pods={"default/web6": _pod("web6", "fd00::7")},
    )

    assert _rows(engine) == {str(WORLD): NoGateway(policy.id)}
    assert _rows(engine, "fd00::7") == {
        str(world_6): ViaGateway(None, only_6, policy.id)
    }
    (problem,) = (p for p in engine.problems if p.object == policy.reference)
    assert "node n2 has no IPv4 address" in problem.message


def test_gateway_that_goes_down_is_followed_by_the_next() -> None:
    engine = _engine(ONE, _policy())
    touched = _change(engine, nodes={TWO: _node(TWO, is_ready=False)})

    assert touched == {RowsKey(ip_address("10.0.1.7"))}
    assert _rows(engine) == {
        str(WORLD): ViaGateway(None, ADDRESS[THREE], _policy().id),
    }


def test_last_gateway_stays_though_it_is_not_ready_and_is_told() -> None:
    engine = _engine(ONE, _policy())
    _change(
        engine,
        nodes={name: _node(name, is_ready=False) for name in (TWO, THREE)},
    )
    (problem,) = engine.problems

    assert _rows(engine) == {
        str(WORLD): ViaGateway(None, ADDRESS[TWO], _policy().id),
    }
    assert problem.message.startswith("node n2 is not ready; it is used because")


def test_excluded_network_is_a_row_on_both_nodes() -> None:
    policy = _policy(excluded=(PART,))
    expected = Excluded(policy.id)

    assert _rows(_engine(ONE, policy))[str(PART)] == expected
    assert _rows(_engine(TWO, policy))[str(PART)] == expected
    assert CoveredKey(PART) not in _engine(ONE, policy).desired


def test_excluded_beats_a_destination_of_the_same_policy() -> None:
    policy = _policy(destinations=(WORLD, PART), excluded=(PART,))
    engine = _engine(ONE, policy)

    assert _rows(engine)[str(PART)] == Excluded(policy.id)
    assert engine.problems == ()


@pytest.mark.parametrize("is_excluding_older", [True, False])
def test_excluded_network_competes_with_other_policies(
    is_excluding_older: bool,
) -> None:
    dates = ("2026-01-01", "2026-02-01")
    covers = _policy("covers", created=dates[is_excluding_older], destinations=(PART,))
    excludes = _policy(
        "excludes", created=dates[not is_excluding_older], excluded=(PART,)
    )
    engine = _engine(ONE, covers, excludes)
    winner, loser = (excludes, covers) if is_excluding_older else (covers, excludes)
    field = "destinationCIDRs[0]" if is_excluding_older else "excludedCIDRs[0]"
    entry = _rows(engine)[str(PART)]

    assert entry.policy == winner.id
    assert isinstance(entry, Excluded) == is_excluding_older
    assert engine.problems == (
        Problem(
            loser.reference,
            f"spec.{field}",
            f"{PART}: {winner.reference} comes first (older, then by name) and wins"
            " for one pod address of this node",
        ),
    )


def test_rule_with_nodes_selects_pods_of_these_nodes_only() -> None:
    """And follows the labels of nodes."""
    policy = _policy(rules=(Rule(_in("app", "a"), _in("zone", "x")),))
    engine = _engine(ONE, policy)
    assert _rows(engine) == {}

    _change(engine, nodes={ONE: _node(ONE, labels={"zone": "x"})})
    assert set(_rows(engine)) == {str(WORLD)}

    _change(engine, nodes={ONE: _node(ONE, labels={"zone": "y"})})
    assert _rows(engine) == {}


def test_labels_of_a_namespace_are_followed() -> None:
    key = "io.cilium.k8s.namespace.labels.team"
    engine = _engine(ONE, _policy(rules=(Rule(_in(key, "red")),)))
    assert _rows(engine) == {}

    _change(engine, namespaces={"default": Namespace("default", {"team": "red"})})
    assert set(_rows(engine)) == {str(WORLD)}


def test_both_families_of_a_pod_leave_through_one_of_several_gateways() -> None:
    world_6 = ip_network("2001:db8:ff::/48")
    two = GatewayOnNodes(_in("name", "n2"))
    three = GatewayOnNodes(_in("name", "n3"))
    policy = _policy(destinations=(WORLD, world_6), gateways=(two, three))
    engine = _engine(ONE, policy)
    _change(
        engine,
        nodes={name: _node(name, labels={"name": name}) for name in (TWO, THREE)},
    )
    used = set()
    for index in range(8, 40):
        addresses = (ip_address(f"10.0.1.{index}"), ip_address(f"fd00::{index}"))
        pod = replace(POD, name=f"pod{index}", addresses=addresses)
        _change(engine, pods={f"default/{pod.name}": pod})
        (first,) = _rows(engine, str(addresses[0])).values()
        (second,) = _rows(engine, str(addresses[1])).values()
        assert isinstance(first, ViaGateway)
        assert first == second
        used.add(first.tunnel_endpoint)

    assert used == {ADDRESS[TWO], ADDRESS[THREE]}


def test_gateway_holds_rows_of_its_own_share_only() -> None:
    two = GatewayOnNodes(_in("name", "n2"))
    three = GatewayOnNodes(_in("name", "n3"))
    policy = _policy(gateways=(two, three))
    labels = {name: _node(name, labels={"name": name}) for name in (TWO, THREE)}
    pods = {
        f"default/pod{index}": replace(
            POD, name=f"pod{index}", addresses=(ip_address(f"10.0.1.{index}"),)
        )
        for index in range(8, 40)
    }
    served = []
    for name in (TWO, THREE):
        engine = _engine(name, policy)
        _change(engine, nodes=labels, pods=pods)
        served.append(
            {
                key
                for key in engine.desired
                if isinstance(key, RowsKey) and key.source != FAR.addresses[0]
            }
        )

    assert all(served)
    assert served[0].isdisjoint(served[1])


def test_ipv4_networks_that_are_never_routed_are_in_no_row() -> None:
    never = ("127.0.0.0/8", "169.254.169.254/32", "224.0.0.0/4", "255.255.255.255/32")
    networks = tuple(map(ip_network, never))
    engine = _engine(ONE, _policy(destinations=(*networks, WORLD)))

    assert set(_rows(engine)) == {str(WORLD)}
    assert [p.path for p in engine.problems] == [
        f"spec.destinationCIDRs[{index}]" for index in range(4)
    ]


@pytest.mark.parametrize("is_new_first", [True, False])
def test_reused_address_never_inherits_in_any_order(is_new_first: bool) -> None:
    """The new pod, which nothing selects, comes before or after the old one goes."""
    new = _pod("new", "10.0.1.7", labels={"app": "b"}, created="2026-03-01")
    engine = _engine(ONE, _policy())
    coming: dict[str, Endpoint | None] = {"default/new": new}
    going: dict[str, Endpoint | None] = {"default/web": None}
    for pods in (coming, going) if is_new_first else (going, coming):
        _change(engine, pods=pods)
        assert _rows(engine) == {}

    assert engine.desired[EndpointKey(new.addresses[0])] == EndpointEntry(
        EndpointFlag.POD
    )


def test_pod_that_stays_holds_an_address_before_a_newer_one_that_goes() -> None:
    engine = _engine(ONE, _policy())
    going = _pod(
        "going", "10.0.1.7", labels={}, created="2026-03-01", is_terminating=True
    )
    _change(engine, pods={"default/going": going})

    assert set(_rows(engine)) == {str(WORLD)}


def test_pod_that_keeps_its_name_leaves_its_old_address() -> None:
    engine = _engine(ONE, _policy())
    _change(engine, pods={"default/web": _pod("web", "10.0.1.8", uid="another")})

    assert _rows(engine) == {}
    assert set(_rows(engine, "10.0.1.8")) == {str(WORLD)}


def test_pods_with_the_same_fate_share_their_rows() -> None:
    engine = _engine(ONE, _policy())
    _change(engine, pods={"default/web2": _pod("web2", "10.0.1.8")})

    rows = [engine.desired[RowsKey(ip_address(f"10.0.1.{n}"))] for n in (7, 8)]
    assert rows[0] is rows[1]


def test_change_of_a_policys_status_touches_nothing() -> None:
    """Each heartbeat of a gateway would else be work for all pods."""
    engine = _engine(ONE, _policy())
    _change(engine, policies={f"{_policy().kind}/p": _policy(generation=3)})
    health = (GatewayHealth(THREE, is_usable=False),)

    assert _change(
        engine, policies={f"{_policy().kind}/p": _policy(health=health)}
    ) == (frozenset())
    assert _change(engine) == frozenset()


def test_one_pod_touches_only_its_own_entries() -> None:
    engine = _engine(ONE, _policy())
    pod = _pod("new", "10.0.1.9")

    assert _change(engine, pods={"default/new": pod}) == {
        RowsKey(pod.addresses[0]),
        EndpointKey(pod.addresses[0]),
    }
    assert _change(engine, pods={"default/new": pod}) == frozenset()


def test_bad_version_of_a_recreated_policy_is_not_the_old_ones() -> None:
    """Its last good version was another object, and is gone."""
    engine = _engine(ONE, _policy())
    bad = BadPolicy(_policy().kind, "p", "new-uid", policy_id("n", "", "", ""), ())
    _change(engine, policies={f"{bad.kind}/p": bad})

    assert _rows(engine) == {}
    assert engine.kept_policies == {bad.id}


def test_bad_version_keeps_the_good_one_and_its_generation() -> None:
    good = _policy(generation=3)
    problem = Problem(good.reference, "spec", "is bad")
    bad = BadPolicy(good.kind, "p", "p", good.id, (problem,), generation=4)
    engine = _engine(ONE, good)
    _change(engine, policies={f"{bad.kind}/p": bad})

    assert set(_rows(engine)) == {str(WORLD)}
    assert engine.problems == (problem,)
    assert engine.policy_names == {good.id: good.reference}
    assert engine.local_policies() == (
        LocalPolicy(good.kind, "p", "p", 3, good.id, rows=1),
    )


def test_policy_that_comes_second_everywhere_is_carried_out_all_the_same() -> None:
    """It has no rows: who waits for its rows to be programmed would wait for ever."""
    older = _policy("older", created="2026-01-01T00:00:00Z")
    second = _policy("second", created="2026-01-02T00:00:00Z")
    for name in (ONE, TWO):
        found = _engine(name, older, second).local_policies()

        assert [("older", True), ("second", False)] == [
            (local.name, local.rows > 0) for local in found
        ]


def test_policy_that_comes_second_is_told_to_whom_its_networks_belong() -> None:
    older = _policy("older", created="2026-01-01T00:00:00Z")
    second = _policy("second", created="2026-01-02T00:00:00Z")
    told = (f"{WORLD} belongs to {older.reference}",)

    assert [(), told] == [
        local.beaten for local in _engine(ONE, older, second).local_policies()
    ]


def test_policy_of_another_family_is_carried_out_without_rows() -> None:
    policy = _policy(destinations=(ip_network("2001:db8:ff::/48"),))

    assert [0] == [local.rows for local in _engine(ONE, policy).local_policies()]


def test_policy_that_selects_no_pod_here_is_not_told() -> None:
    policy = _policy(rules=(Rule(_in("app", "of-nobody")),))

    assert () == _engine(ONE, policy).local_policies()


def test_only_a_chosen_gateway_asks_for_pods() -> None:
    query = frozenset({PodQuery("", "app=a")})

    assert _engine(ONE, _policy()).pod_queries == frozenset()
    assert _engine(TWO, _policy()).pod_queries == query
    assert _engine(THREE, _policy()).pod_queries == frozenset()


def test_candidates_are_told_though_they_are_not_chosen() -> None:
    assert [_engine(name, _policy()).is_candidate for name in ADDRESS] == [
        False,
        True,
        True,
    ]


def test_pod_in_a_network_that_nobody_names_makes_its_node_ask_for_all_pods() -> None:
    """Other nodes may have such pods too, and only their entries tell them apart."""
    engine = _engine(ONE, _policy())
    _change(engine, pods={"default/web": _pod("web", "10.9.9.9")})
    assert engine.pod_queries == ALL_PODS

    _change(engine, networks={"setting": (ip_network("10.9.0.0/16"),)})
    assert engine.pod_queries == frozenset()


def test_node_without_pod_networks_makes_others_ask_for_all_pods() -> None:
    """Not before it is ready: until then its networks are still being given out."""
    engine = _engine(ONE, _policy())
    bare = _node(TWO, pod_networks=(), is_ready=False)
    _change(engine, nodes={TWO: bare})
    assert engine.pod_queries == frozenset()

    _change(engine, nodes={TWO: replace(bare, is_ready=True)})
    assert engine.pod_queries == ALL_PODS

    _change(engine, networks={"setting": (ip_network("10.0.0.0/8"),)})
    assert engine.pod_queries == frozenset()


@pytest.mark.parametrize("later", [None, _node(TWO)], ids=["gone", "named"])
def test_node_that_is_bare_no_more_makes_nobody_ask_for_all_pods(
    later: Node | None,
) -> None:
    engine = _engine(ONE, _policy())
    _change(engine, nodes={TWO: _node(TWO, pod_networks=())})
    assert engine.pod_queries == ALL_PODS

    _change(engine, nodes={TWO: later})

    assert engine.pod_queries == frozenset()


def test_pods_are_unclear_only_in_families_that_a_policy_covers_still() -> None:
    engine = _engine(ONE, _policy())
    _change(engine, nodes={TWO: _node(TWO, pod_networks=())})
    assert engine.pod_queries == ALL_PODS

    _change(engine, policies={"CiliumEgressGatewayPolicy/p": None})

    assert engine.pod_queries == frozenset()


def test_node_that_goes_takes_its_entries_along() -> None:
    engine = _engine(ONE, _policy())
    _change(engine, nodes={THREE: None}, pods={"default/far": None})

    assert NodeKey(ADDRESS[THREE]) not in engine.desired
    assert IpcacheKey(ip_network("10.0.3.0/24")) not in engine.desired
    assert IpcacheKey(ip_network("192.0.2.3/32")) not in engine.desired
