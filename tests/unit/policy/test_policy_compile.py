"""What one node holds: who decides, who loses, and what is dropped when in doubt."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from outgate.policy.compile import Compiled, compile_node
from outgate.policy.model import (
    BadPolicy,
    Cluster,
    EgressPolicy,
    Endpoint,
    GatewayAtAddress,
    Namespace,
    Node,
    Problem,
    Rule,
    policy_id,
)
from outgate.policy.selectors import Operator, Requirement, Selector
from outgate.state.entries import (
    CLUSTER as CLUSTER_IDENTITY,
)
from outgate.state.entries import (
    Address,
    Attachment,
    AttachmentKey,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Hook,
    InterfaceIndex,
    IpcacheEntry,
    IpcacheKey,
    NodeName,
    NoEgressIP,
    NoGateway,
    PolicyId,
    TunnelDevice,
    ViaGateway,
)
from outgate.state.facts import Link, NodeFacts
from outgate.state.snapshot import policy_rows

TUNNEL = TunnelDevice("outgate_vx", 4789)
ONE, TWO = NodeName("one"), NodeName("two")
ADDRESS_ONE, ADDRESS_TWO = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
WORLD_NET = IPv4Network("203.0.113.0/24")
POD_ONE, POD_TWO = IPv4Address("10.0.1.7"), IPv4Address("10.0.2.7")

NODES = (
    Node(ONE, (ADDRESS_ONE,), pod_networks=(IPv4Network("10.0.1.0/24"),)),
    Node(TWO, (ADDRESS_TWO,), pod_networks=(IPv4Network("10.0.2.0/24"),)),
)
PODS = (
    Endpoint("default", "p1", "u1", "2026-01-01", (POD_ONE,), {"app": "a"}, ONE),
    Endpoint("default", "p2", "u2", "2026-01-01", (POD_TWO,), {"app": "a"}, TWO),
)


def _policy(
    name: str, egress_ip: IPv4Address = ADDRESS_TWO, created: str = ""
) -> EgressPolicy:
    return EgressPolicy(
        kind="CiliumEgressNATPolicy",
        name=name,
        uid=name,
        created=created,
        id=policy_id(name, "", "", ""),
        rules=(Rule(Selector((Requirement("app", Operator.IN, frozenset({"a"})),))),),
        destinations=(WORLD_NET,),
        gateways=(GatewayAtAddress(egress_ip),),
    )


CLUSTER = Cluster(NODES, (Namespace("default"),), PODS, (_policy("p"),))


def _facts(*addresses: IPv4Address) -> NodeFacts:
    return NodeFacts((Link("eth0", InterfaceIndex(2), addresses=addresses),), "eth0")


def _compile(cluster: Cluster, node: NodeName = ONE) -> Compiled:
    address = ADDRESS_ONE if node == ONE else ADDRESS_TWO
    return compile_node(cluster, node, _facts(address), TUNNEL)


def _rows(compiled: Compiled) -> dict[Address, object]:
    return {key.source: entry for key, entry in policy_rows(compiled.snapshot)}


def test_pods_node_holds_rows_of_its_own_pods_only() -> None:
    via = ViaGateway(ADDRESS_TWO, ADDRESS_TWO, _policy("p").id)

    assert _rows(_compile(CLUSTER)) == {POD_ONE: via}


def test_gateway_holds_rows_of_all_pods_it_serves() -> None:
    via = ViaGateway(ADDRESS_TWO, ADDRESS_TWO, _policy("p").id)

    assert _rows(_compile(CLUSTER, TWO)) == {POD_ONE: via, POD_TWO: via}


def test_every_node_knows_what_is_covered() -> None:
    covered = {CoveredKey(WORLD_NET): CoveredEntry(_policy("p").id)}

    for node in (ONE, TWO, NodeName("elsewhere")):
        assert covered.items() <= _compile(CLUSTER, node).snapshot.items()


def test_egress_ip_of_no_node_drops_instead_of_leaking() -> None:
    lost = _policy("p", IPv4Address("192.0.2.99"))
    compiled = _compile(replace(CLUSTER, policies=(lost,)))

    assert _rows(compiled) == {POD_ONE: NoGateway(lost.id)}
    assert [(p.object, p.path) for p in compiled.problems] == [
        ("CiliumEgressNATPolicy p", "spec.egressSourceIP")
    ]


def test_gateway_without_the_address_drops_instead_of_leaking() -> None:
    compiled = compile_node(CLUSTER, TWO, _facts(), TUNNEL)

    dropped = NoEgressIP(ADDRESS_TWO, _policy("p").id)
    assert _rows(compiled) == {POD_ONE: dropped, POD_TWO: dropped}
    assert "add the address" in compiled.problems[0].message


def test_overlap_is_won_by_the_older_policy() -> None:
    old = _policy("z-old", ADDRESS_ONE, "2026-01-01T00:00:00Z")
    new = _policy("a-new", ADDRESS_TWO, "2026-02-01T00:00:00Z")
    compiled = _compile(replace(CLUSTER, policies=(new, old)))

    assert _rows(compiled)[POD_ONE] == ViaGateway(ADDRESS_ONE, ADDRESS_ONE, old.id)
    assert compiled.problems == (
        Problem(
            "CiliumEgressNATPolicy a-new",
            "spec.destinationCIDRs[0]",
            "203.0.113.0/24: CiliumEgressNATPolicy z-old comes first (older, then"
            " by name) and wins for one pod address of this node",
        ),
    )


def test_overlap_of_equal_age_is_won_by_name() -> None:
    first, second = _policy("a", ADDRESS_ONE), _policy("b", ADDRESS_TWO)
    compiled = _compile(replace(CLUSTER, policies=(second, first)))

    assert _rows(compiled)[POD_ONE] == ViaGateway(ADDRESS_ONE, ADDRESS_ONE, first.id)


def test_gateway_of_a_beaten_policy_holds_no_row_of_it() -> None:
    first, second = _policy("a", ADDRESS_ONE), _policy("b", ADDRESS_TWO)
    compiled = _compile(replace(CLUSTER, policies=(first, second)), TWO)

    via_one = ViaGateway(ADDRESS_ONE, ADDRESS_ONE, first.id)
    assert _rows(compiled) == {POD_TWO: via_one}


def test_repeated_destination_does_not_beat_itself() -> None:
    policy = replace(_policy("p"), destinations=(WORLD_NET, WORLD_NET))

    assert _compile(replace(CLUSTER, policies=(policy,))).problems == ()


def test_host_network_and_finished_pods_never_match() -> None:
    pods = (
        replace(PODS[0], is_host_network=True),
        replace(PODS[0], name="done", is_finished=True),
    )
    compiled = _compile(replace(CLUSTER, endpoints=pods))

    assert _rows(compiled) == {}
    assert EndpointKey(POD_ONE) not in compiled.snapshot


def test_terminating_pod_is_covered_until_it_is_gone() -> None:
    pod = replace(PODS[0], is_terminating=True)

    assert POD_ONE in _rows(_compile(replace(CLUSTER, endpoints=(pod,))))


def test_reused_address_never_inherits() -> None:
    """The old pod's delete is late: the new pod, which nothing selects, holds it."""
    old = replace(PODS[0], is_terminating=True)
    new = replace(
        PODS[0], name="new", uid="u9", created="2026-03-01", labels={"app": "b"}
    )

    for pods in ((old, new), (new, old)):
        compiled = _compile(replace(CLUSTER, endpoints=pods))
        assert _rows(compiled) == {}
        assert compiled.problems == (
            Problem(
                "Pod default/p1",
                "status.podIPs",
                "10.0.1.7 belongs to Pod default/new now",
            ),
        )


def test_pod_of_an_unknown_namespace_is_not_entered() -> None:
    """Left out, it is unknown to the datapath, which drops its covered packets."""
    compiled = _compile(replace(CLUSTER, namespaces=()))

    assert EndpointKey(POD_ONE) not in compiled.snapshot
    assert _rows(compiled) == {}


def test_bad_policy_without_a_good_version_keeps_what_the_kernel_holds() -> None:
    problem = Problem("CiliumEgressNATPolicy bad", "spec.egress", "must be a list")
    bad = BadPolicy("CiliumEgressNATPolicy", "bad", "u", PolicyId(77), (problem,))
    compiled = _compile(replace(CLUSTER, bad_policies=(bad,)))

    assert compiled.kept_policies == {77}
    assert compiled.problems == (problem,)
    assert POD_ONE in _rows(compiled)


def test_bad_policy_with_a_good_version_is_compiled_from_that() -> None:
    """Nothing need be kept blindly: rows follow the pods."""
    good = _policy("p")
    bad = BadPolicy(good.kind, good.name, good.uid, good.id, ())
    compiled = _compile(replace(CLUSTER, bad_policies=(bad,)))

    assert compiled.kept_policies == frozenset()
    assert POD_ONE in _rows(compiled)


def test_host_addresses_are_marked_where_they_are_egress_ips() -> None:
    host = EndpointFlag.HOST
    entry = EndpointEntry(host, is_egress_ip=True)

    assert _compile(CLUSTER, TWO).snapshot[EndpointKey(ADDRESS_TWO)] == entry
    assert _compile(CLUSTER).snapshot[EndpointKey(ADDRESS_ONE)] == EndpointEntry(host)


def test_loopback_is_no_address_of_the_node() -> None:
    loopback = Link("lo", InterfaceIndex(1), addresses=(IPv4Address("127.0.0.1"),))
    compiled = compile_node(CLUSTER, ONE, NodeFacts((loopback,)), TUNNEL)

    assert EndpointKey(IPv4Address("127.0.0.1")) not in compiled.snapshot
    assert not any(
        isinstance(key, AttachmentKey) and key.interface == "lo"
        for key in compiled.snapshot
    )


def test_pod_outside_all_known_networks_is_inside_the_cluster() -> None:
    stray = IPv4Address("100.64.0.9")
    pod = replace(PODS[1], addresses=(stray,))
    compiled = _compile(replace(CLUSTER, endpoints=(pod,)))

    expected = IpcacheEntry(CLUSTER_IDENTITY, ADDRESS_TWO)
    assert compiled.snapshot[IpcacheKey(IPv4Network(stray))] == expected


def test_hooks_go_on_pod_veths_uplinks_and_the_tunnel() -> None:
    """A node's own uplink may be a veth too, as in the lab: it is no pod's."""
    links = (
        Link("eth0", InterfaceIndex(2), "veth", (ADDRESS_ONE,), peer_elsewhere=True),
        Link("eth1", InterfaceIndex(3)),
        Link("vethpod", InterfaceIndex(4), "veth", peer_elsewhere=True),
        Link("vethhere", InterfaceIndex(5), "veth"),
        Link("cbr0", InterfaceIndex(6), "bridge"),
        Link("outgate_vx", InterfaceIndex(7), "vxlan"),
    )
    compiled = compile_node(CLUSTER, ONE, NodeFacts(links, "eth1"), TUNNEL)
    attached = {
        (key.interface, key.hook): value
        for key, value in compiled.snapshot.items()
        if isinstance(key, AttachmentKey)
    }

    assert attached == {
        ("", Hook.FORWARD_GUARD): Attachment.CURRENT,
        ("eth0", Hook.TO_NETDEV): Attachment.CURRENT,
        ("eth0", Hook.FROM_NETDEV): Attachment.CURRENT,
        ("eth1", Hook.TO_NETDEV): Attachment.CURRENT,
        ("eth1", Hook.FROM_NETDEV): Attachment.CURRENT,
        ("vethpod", Hook.FROM_CONTAINER): Attachment.CURRENT,
        ("vethpod", Hook.TO_CONTAINER): Attachment.CURRENT,
        ("outgate_vx", Hook.FROM_OVERLAY): Attachment.CURRENT,
    }


def test_agent_of_a_node_that_the_cluster_lacks_is_told() -> None:
    """A misspelt node has no pods: all of them would be dropped without a word."""
    (problem,) = _compile(CLUSTER, NodeName("tow")).problems

    assert problem.object == "Node tow"
    assert "setting node" in problem.message
