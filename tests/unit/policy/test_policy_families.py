"""IPv6 beside IPv4: whose rows, which endpoint, and what a policy does not name."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from outgate.policy.compile import Compiled, compile_node
from outgate.policy.model import (
    Cluster,
    EgressPolicy,
    Endpoint,
    GatewayAtAddress,
    Namespace,
    Node,
    Rule,
    policy_id,
)
from outgate.policy.selectors import Selector
from outgate.state.entries import (
    CLUSTER,
    REMOTE_NODE,
    WORLD,
    Address,
    AttachmentKey,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Hook,
    InterfaceIndex,
    IpcacheEntry,
    IpcacheKey,
    NodeKey,
    NodeName,
    NoEgressIP,
    NoGateway,
    TunnelDevice,
    ViaGateway,
)
from outgate.state.facts import Link, NodeFacts
from outgate.state.snapshot import policy_rows

TUNNEL = TunnelDevice("outgate_vx", 4789)
ONE, TWO = NodeName("one"), NodeName("two")
ONE_4, ONE_6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
TWO_4, TWO_6 = IPv4Address("192.0.2.2"), IPv6Address("2001:db8::2")
POD_4, POD_6 = IPv4Address("10.0.1.7"), IPv6Address("fd00:10:1::7")
WORLD_4, WORLD_6 = "203.0.113.0/24", "2001:db8:ff::/48"

POD_NETWORKS = (
    (ip_network("10.0.1.0/24"), ip_network("fd00:10:1::/64")),
    (ip_network("10.0.2.0/24"), ip_network("fd00:10:2::/64")),
)


def _node(name: NodeName, *addresses: Address) -> Node:
    return Node(name, addresses, pod_networks=POD_NETWORKS[name == TWO])


def _policy(egress_ip: Address, *networks: str, name: str = "p") -> EgressPolicy:
    return EgressPolicy(
        kind="CiliumEgressNATPolicy",
        name=name,
        uid=name,
        created="",
        id=policy_id(name, "", "", ""),
        rules=(Rule(Selector()),),
        destinations=tuple(ip_network(text) for text in networks),
        gateways=(GatewayAtAddress(egress_ip),),
    )


POD = Endpoint("default", "web", "u1", "2026-01-01", (POD_4, POD_6), {}, ONE)
DUAL = Cluster(
    # IPv6 first, as a cluster whose first family it is writes them.
    (_node(ONE, ONE_6, ONE_4), _node(TWO, TWO_6, TWO_4)),
    (Namespace("default"),),
    (POD,),
)
ONLY_6 = replace(
    DUAL,
    nodes=(_node(ONE, ONE_6), _node(TWO, TWO_6)),
    endpoints=(replace(POD, addresses=(POD_6,)),),
)


def _compile(cluster: Cluster, *policies: EgressPolicy, at: NodeName = ONE) -> Compiled:
    addresses = next(node.addresses for node in cluster.nodes if node.name == at)
    link = Link("eth0", InterfaceIndex(2), addresses=addresses)
    facts = NodeFacts((link,), None, "eth0")
    return compile_node(replace(cluster, policies=policies), at, facts, TUNNEL)


def _rows(compiled: Compiled) -> dict[tuple[str, str], object]:
    return {
        (str(key.source), str(key.destination)): entry
        for key, entry in policy_rows(compiled.snapshot)
    }


def test_ipv6_policy_gives_a_dual_stack_pod_ipv6_rows_through_ipv4() -> None:
    """The outer header is IPv4 wherever the nodes have IPv4 addresses."""
    policy = _policy(TWO_6, WORLD_6)
    compiled = _compile(DUAL, policy)

    assert _rows(compiled) == {
        (str(POD_6), WORLD_6): ViaGateway(TWO_6, TWO_4, policy.id)
    }
    assert compiled.problems == ()


def test_nodes_without_ipv4_tunnel_over_ipv6() -> None:
    policy = _policy(TWO_6, WORLD_6)
    compiled = _compile(ONLY_6, policy)

    assert _rows(compiled) == {
        (str(POD_6), WORLD_6): ViaGateway(TWO_6, TWO_6, policy.id)
    }
    assert NodeKey(TWO_6) in compiled.snapshot


def test_egress_ip_of_one_family_drops_what_is_covered_in_the_other() -> None:
    policy = _policy(TWO_4, WORLD_4, WORLD_6)
    compiled = _compile(DUAL, policy)

    assert _rows(compiled) == {
        (str(POD_4), WORLD_4): ViaGateway(TWO_4, TWO_4, policy.id),
        (str(POD_6), WORLD_6): NoEgressIP(TWO_4, policy.id),
    }
    (problem,) = compiled.problems
    assert problem.path == "spec.destinationCIDRs[1]"
    assert problem.message == (
        "2001:db8:ff::/48: no pod can leave to an IPv6 network under 192.0.2.2, so what"
        " this policy covers there is dropped; put the network into a policy with an"
        " IPv6 egressSourceIP"
    )


def test_ipv4_rows_without_an_ipv4_tunnel_have_no_gateway() -> None:
    cluster = replace(ONLY_6, endpoints=(POD,))
    policy = _policy(TWO_6, WORLD_4)
    compiled = _compile(cluster, policy)

    assert _rows(compiled) == {(str(POD_4), WORLD_4): NoGateway(policy.id)}
    assert [p.path for p in compiled.problems] == ["spec.destinationCIDRs[0]"]


def test_two_policies_cover_both_families_of_a_pod() -> None:
    four, six = _policy(TWO_4, WORLD_4, name="a"), _policy(TWO_6, "::/0", name="b")
    compiled = _compile(DUAL, four, six)

    assert _rows(compiled) == {
        (str(POD_4), WORLD_4): ViaGateway(TWO_4, TWO_4, four.id),
        (str(POD_6), "::/0"): ViaGateway(TWO_6, TWO_4, six.id),
    }
    for address in (POD_4, POD_6):
        assert compiled.snapshot[EndpointKey(address)] == EndpointEntry(
            EndpointFlag.POD, is_selected=True
        )


def test_address_that_policies_cover_in_the_other_family_only_is_marked() -> None:
    pod, selected, marked = (
        EndpointEntry(EndpointFlag.POD),
        EndpointEntry(EndpointFlag.POD, is_selected=True),
        EndpointEntry(EndpointFlag.POD, is_other_family=True),
    )
    for policies, expected in (
        ((), (pod, pod)),
        ((_policy(TWO_4, WORLD_4),), (selected, marked)),
        ((_policy(TWO_6, WORLD_6),), (marked, selected)),
    ):
        snapshot = _compile(DUAL, *policies).snapshot
        found = snapshot[EndpointKey(POD_4)], snapshot[EndpointKey(POD_6)]

        assert found == expected


def test_pod_of_one_address_is_marked_by_a_policy_of_the_other_family() -> None:
    snapshot = _compile(ONLY_6, _policy(TWO_4, WORLD_4)).snapshot

    assert snapshot[EndpointKey(POD_6)] == EndpointEntry(
        EndpointFlag.POD, is_other_family=True
    )


def test_networks_that_are_never_routed_are_in_no_row() -> None:
    never = ("fe80::/10", "fe80::/64", "ff02::1/128", "::1/128")
    compiled = _compile(DUAL, _policy(TWO_6, *never, "fc00::/6"))

    assert [network for _, network in _rows(compiled)] == ["fc00::/6"]
    assert [k for k in compiled.snapshot if isinstance(k, CoveredKey)] == [
        CoveredKey(ip_network("fc00::/6"))
    ]
    assert [p.path for p in compiled.problems] == [
        f"spec.destinationCIDRs[{index}]" for index in range(4)
    ]


def test_ipcache_has_each_family_and_one_tunnel_endpoint() -> None:
    snapshot = _compile(DUAL).snapshot
    expected = {
        "0.0.0.0/0": IpcacheEntry(WORLD, None),
        "::/0": IpcacheEntry(WORLD, None),
        "10.0.2.0/24": IpcacheEntry(CLUSTER, TWO_4),
        "fd00:10:2::/64": IpcacheEntry(CLUSTER, TWO_4),
        "2001:db8::2/128": IpcacheEntry(REMOTE_NODE, TWO_4),
    }

    for text, entry in expected.items():
        assert snapshot[IpcacheKey(ip_network(text))] == entry


def test_pod_outside_the_pod_networks_of_its_family_is_its_own_nodes() -> None:
    """The bits of its address are looked at in its own family only."""
    stray = ip_address(int(IPv4Address("10.0.2.9")))
    assert isinstance(stray, IPv4Address)
    outside = IPv6Address(int(stray))
    pod = replace(POD, addresses=(outside,), node=TWO)
    snapshot = _compile(replace(DUAL, endpoints=(pod,))).snapshot

    assert snapshot[IpcacheKey(ip_network(outside))] == IpcacheEntry(CLUSTER, TWO_4)


def test_believed_tunnel_sources_are_every_internal_address_of_the_others() -> None:
    snapshot = _compile(DUAL).snapshot

    assert {k.address for k in snapshot if isinstance(k, NodeKey)} == {TWO_4, TWO_6}


def test_gateway_marks_its_ipv6_egress_ip() -> None:
    snapshot = _compile(DUAL, _policy(TWO_6, WORLD_6), at=TWO).snapshot
    host = EndpointFlag.HOST

    assert snapshot[EndpointKey(TWO_6)] == EndpointEntry(host, is_egress_ip=True)
    assert snapshot[EndpointKey(TWO_4)] == EndpointEntry(host)


def test_gateway_without_its_ipv6_address_drops_instead_of_leaking() -> None:
    policy = _policy(TWO_6, WORLD_6)
    link = Link("eth0", InterfaceIndex(2), addresses=(TWO_4,))
    cluster = replace(DUAL, policies=(policy,))
    compiled = compile_node(cluster, TWO, NodeFacts((link,)), TUNNEL)

    assert _rows(compiled) == {(str(POD_6), WORLD_6): NoEgressIP(TWO_4, policy.id)}
    assert "add the address" in compiled.problems[0].message


def test_interface_of_the_ipv6_default_route_is_an_uplink() -> None:
    facts = NodeFacts((Link("wan6", InterfaceIndex(3)),), None, "wan6")
    snapshot = compile_node(DUAL, ONE, facts, TUNNEL).snapshot

    assert AttachmentKey("wan6", Hook.TO_NETDEV) in snapshot


def test_pods_in_networks_that_nobody_names_are_told_by_family() -> None:
    """There, a pod that is still unknown counts as the world: it would leak."""
    only_4 = tuple(replace(n, pod_networks=n.pod_networks[:1]) for n in DUAL.nodes)
    cluster = replace(DUAL, nodes=only_4)
    six = _policy(ONE_6, WORLD_6)
    (problem,) = _compile(cluster, six).problems
    named = replace(cluster, cluster_networks=(POD_NETWORKS[0][1],))

    assert (problem.object, problem.path) == ("Node one", "spec.podCIDRs")
    assert str(POD_6) in problem.message
    assert "IPv6 pod networks in the agents' setting" in problem.message
    assert _compile(cluster, _policy(ONE_4, WORLD_4)).problems == ()
    assert _compile(named, six).problems == ()
    assert _compile(cluster, six, at=TWO).problems == ()
