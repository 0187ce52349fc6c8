"""What ``explain`` tells is what the compiler does, for clusters nobody thought of."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from outgate.policy.compile import compile_node
from outgate.policy.explain import TUNNEL, Explanation, Outcome, Row, explain
from outgate.policy.model import (
    Cluster,
    EgressPolicy,
    Endpoint,
    Gateway,
    GatewayAtAddress,
    GatewayHealth,
    GatewayOnNodes,
    Namespace,
    Node,
    Rule,
    policy_id,
)
from outgate.policy.selectors import Operator, Requirement, Selector
from outgate.state.entries import (
    Address,
    Excluded,
    InterfaceIndex,
    Network,
    NodeName,
    NoEgressIP,
    PolicyEntry,
    RowSet,
    RowsKey,
    ViaGateway,
)
from outgate.state.facts import Link, NodeFacts

NAMES = [NodeName(f"n{index}") for index in range(3)]
ADDRESSES: list[tuple[Address, Address]] = [
    (ip_address(f"192.0.2.{n}"), ip_address(f"2001:db8::{n}")) for n in (1, 2, 3)
]
FLOATING = ip_address("192.0.2.77")
NETWORKS: list[Network] = [
    ip_network(text)
    for text in (
        *("0.0.0.0/0", "203.0.113.0/24", "203.0.113.9/32", "10.0.0.0/8"),
        *("::/0", "2001:db8:ff::/48", "2001:db8:ff::9/128", "ff00::/8"),
    )
]
DESTINATIONS = [
    ip_address(text)
    for text in (
        *("203.0.113.9", "203.0.113.1", "198.51.100.1", "10.0.1.5", "192.0.2.1"),
        *(
            "2001:db8:ff::9",
            "2001:db8:ff::1",
            "2001:db8::2",
            "fd00:0:0:1::5",
            "ff02::1",
        ),
    )
]
KEYS, VALUES = ("app", "tier"), ("a", "b", "")
DATES = ("", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")

labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
requirements = st.builds(
    Requirement,
    key=st.sampled_from(KEYS),
    operator=st.sampled_from(Operator),
    values=st.frozensets(st.sampled_from(VALUES), min_size=1),
)
selectors = st.builds(Selector, st.lists(requirements, max_size=1).map(tuple))
rarely = st.sampled_from([False, False, False, False, True])
rules = st.builds(Rule, selectors, st.none() | st.none() | selectors)
hosts = st.sampled_from(NAMES).map(
    lambda name: Selector((Requirement("host", Operator.IN, frozenset({name})),))
)
candidates = hosts | selectors
gateways: st.SearchStrategy[tuple[Gateway, ...]] = st.one_of(
    st.sampled_from([ADDRESSES[0][0], ADDRESSES[1][1], FLOATING]).map(
        lambda address: (GatewayAtAddress(address),)
    ),
    st.lists(
        st.builds(
            GatewayOnNodes,
            candidates,
            st.sampled_from(("", "eth0", "eth0", "eth9")),
            path=st.just("spec.egressGateway"),
        )
        | st.builds(GatewayOnNodes, candidates, egress_ip=st.just(FLOATING)),
        min_size=1,
        max_size=3,
    ).map(tuple),
)
health = st.builds(
    GatewayHealth,
    st.sampled_from(NAMES),
    st.booleans(),
    st.sampled_from([(), (FLOATING,)]),
)
destinations = st.lists(st.sampled_from(NETWORKS), min_size=1, max_size=4).map(tuple)
excluded = st.lists(st.sampled_from(NETWORKS), max_size=2).map(tuple)


@st.composite
def policies(draw: st.DrawFn) -> tuple[EgressPolicy, ...]:
    return tuple(
        EgressPolicy(
            kind="CiliumEgressGatewayPolicy",
            name=f"p{index}",
            uid=f"u{index}",
            created=draw(st.sampled_from(DATES)),
            id=policy_id(f"u{index}", "", "", ""),
            rules=tuple(draw(st.lists(rules, min_size=1, max_size=2))),
            destinations=draw(destinations),
            gateways=draw(gateways),
            excluded=draw(excluded),
            health=tuple(draw(st.lists(health, max_size=2))),
        )
        for index in range(draw(st.integers(1, 4)))
    )


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    nodes = tuple(
        Node(
            name,
            draw(st.sampled_from([addresses, addresses[:1], addresses[1:]])),
            labels={**draw(labels), "host": name},
            pod_networks=(
                ip_network(f"10.0.{index}.0/24"),
                ip_network(f"fd00:0:0:{index}::/64"),
            ),
            is_ready=not draw(rarely),
        )
        for index, (name, addresses) in enumerate(zip(NAMES, ADDRESSES, strict=True))
    )
    endpoints = tuple(
        Endpoint(
            namespace=draw(st.sampled_from(("default", "default", "shop", "unknown"))),
            name=f"pod{index}",
            uid=f"uid{index}",
            created=draw(st.sampled_from(DATES)),
            addresses=draw(
                st.sampled_from(
                    [
                        (ip_address("10.0.1.5"), ip_address("fd00:0:0:1::5")),
                        (ip_address("fd00:0:0:1::7"), ip_address("10.0.1.7")),
                        (ip_address("10.0.2.6"),),
                        (ip_address("fd00:0:0:2::6"),),
                        (),
                    ]
                )
            ),
            labels=draw(labels),
            node=draw(st.sampled_from(NAMES)),
            is_host_network=draw(rarely),
            is_terminating=draw(rarely),
            is_finished=draw(rarely),
        )
        for index in range(draw(st.integers(1, 4)))
    )
    namespaces = (Namespace("default"), Namespace("shop", {"app": "x"}))
    return Cluster(nodes, namespaces, endpoints, draw(policies()))


@st.composite
def facts(draw: st.DrawFn) -> dict[NodeName, NodeFacts]:
    """What the nodes observe; one of them may have the floating address."""
    holder = draw(st.sampled_from([None, *NAMES]))
    return {
        name: NodeFacts(
            (
                Link(
                    "eth0",
                    InterfaceIndex(2),
                    addresses=(*own, *([FLOATING] if name == holder else [])),
                ),
            ),
            "eth0",
            "eth0",
        )
        for name, own in zip(NAMES, ADDRESSES, strict=True)
    }


def row_in_kernel(
    cluster: Cluster, node: NodeName, own: NodeFacts, told: Explanation
) -> Row | None:
    """What the map of *node* finds, row by row."""
    snapshot = compile_node(cluster, node, own, TUNNEL).snapshot
    found: Row | None = None
    for key, rows in snapshot.items():
        if not isinstance(key, RowsKey) or not isinstance(rows, RowSet):
            continue
        for network, entry in rows.items():
            if key.source not in told.pod.addresses or told.destination not in network:
                continue
            if found is None or network.prefixlen > found.destination.prefixlen:
                found = Row(key.source, network, entry)
    return found


KNOWN = set(Outcome) - {Outcome.UNKNOWN}
explained = st.tuples(clusters(), facts(), st.sampled_from(DESTINATIONS))


def is_addressed(told: Explanation) -> bool:
    """Whether the pod has an address of its own to be looked up."""
    return (
        not told.pod.is_host_network
        and not told.pod.is_finished
        and told.outcome in KNOWN
        and not told.destination.is_multicast
    )


@given(explained)
def test_explained_row_is_the_one_that_the_map_finds(
    given: tuple[Cluster, dict[NodeName, NodeFacts], Address],
) -> None:
    cluster, observed, destination = given
    for pod in cluster.endpoints:
        told = explain(cluster, pod, destination, observed)
        if is_addressed(told):
            own = observed[pod.node]

            assert told.row == row_in_kernel(cluster, pod.node, own, told)


@given(explained)
def test_first_contender_is_the_winner_in_the_row(
    given: tuple[Cluster, dict[NodeName, NodeFacts], Address],
) -> None:
    cluster, observed, destination = given
    for pod in cluster.endpoints:
        told = explain(cluster, pod, destination, observed)
        if not is_addressed(told):
            continue
        assert (told.row is None) == (not told.contenders)
        if told.row is not None:
            winner = told.contenders[0]

            assert winner.policy.id == told.row.entry.policy
            assert winner.network == told.row.destination
            assert winner.is_excluded == isinstance(told.row.entry, Excluded)
            assert [c for c in told.contenders if not c.lost_because] == [winner]


@given(explained)
def test_explained_gateway_is_where_the_packet_goes(
    given: tuple[Cluster, dict[NodeName, NodeFacts], Address],
) -> None:
    """Its row there has the egress IP that was told, or drops as was told."""
    cluster, observed, destination = given
    for pod in cluster.endpoints:
        told = explain(cluster, pod, destination, observed)
        if told.outcome not in (Outcome.GATEWAY, Outcome.NO_EGRESS_IP):
            continue
        assert told.row is not None
        assert told.gateway is not None
        node = next(n for n in cluster.nodes if n.name == told.gateway)
        there = row_in_kernel(cluster, node.name, observed[node.name], told)

        assert isinstance(told.row.entry, ViaGateway | NoEgressIP)
        assert told.row.entry.tunnel_endpoint in node.addresses
        assert there is not None
        assert told.outcome is outcome_of(there.entry)
        if isinstance(there.entry, ViaGateway):
            assert told.egress_ip == there.entry.egress_ip


several = st.lists(st.sampled_from(NAMES), min_size=2, unique=True)
not_ready = st.sets(st.sampled_from(NAMES), max_size=2)


@given(several, not_ready, st.text("abc", min_size=1, max_size=9))
def test_explained_gateway_of_several_is_that_of_the_row(
    hosts: list[NodeName], bad: set[NodeName], name: str
) -> None:
    nodes = tuple(
        Node(each, own, labels={"host": each}, is_ready=each not in bad)
        for each, own in zip(NAMES, ADDRESSES, strict=True)
    )
    sharing = tuple(
        GatewayOnNodes(Selector((Requirement("host", Operator.IN, frozenset({host})),)))
        for host in hosts
    )
    policy = EgressPolicy(
        kind="CiliumEgressGatewayPolicy",
        name="p",
        uid="u",
        created="",
        id=policy_id("u", "", "", ""),
        rules=(Rule(Selector()),),
        destinations=(ip_network("203.0.113.0/24"),),
        gateways=sharing,
    )
    pod = Endpoint("default", name, addresses=(ip_address("10.0.0.7"),), node=NAMES[0])
    cluster = Cluster(nodes, (Namespace("default"),), (pod,), (policy,))
    told = explain(cluster, pod, DESTINATIONS[0], {})
    (chosen,) = (c.node for c in told.candidates if c.is_chosen and c.node)

    assert told.row is not None
    assert isinstance(told.row.entry, ViaGateway | NoEgressIP)
    assert told.row.entry.tunnel_endpoint == ADDRESSES[NAMES.index(chosen)][0]
    assert told.gateway == chosen
    assert len(told.candidates) == len(hosts)


def outcome_of(entry: PolicyEntry) -> Outcome:
    return Outcome.GATEWAY if isinstance(entry, ViaGateway) else Outcome.NO_EGRESS_IP


@given(explained)
def test_missed_policies_do_not_select_the_pod(
    given: tuple[Cluster, dict[NodeName, NodeFacts], Address],
) -> None:
    cluster, observed, destination = given
    for pod in cluster.endpoints:
        told = explain(cluster, pod, destination, observed)
        selecting = {contender.policy.reference for contender in told.contenders}

        assert not selecting & {miss.policy for miss in told.misses}
