"""Clusters that nobody thought of, for property tests."""

from ipaddress import ip_address, ip_network
from itertools import chain

from hypothesis import strategies as st

from outgate.policy.model import (
    Cluster,
    EgressPolicy,
    Endpoint,
    GatewayAtAddress,
    GatewayHealth,
    GatewayOnNodes,
    Namespace,
    Node,
    Rule,
    policy_id,
)
from outgate.policy.selectors import Operator, Requirement, Selector
from outgate.state.entries import Address, InterfaceIndex, NodeName, TunnelDevice
from outgate.state.facts import Link, NodeFacts

TUNNEL = TunnelDevice("outgate_vx", 4789)
NODE_NAMES = [NodeName(f"n{index}") for index in range(3)]
NODE_ADDRESSES: list[tuple[Address, Address]] = [
    (ip_address(f"192.0.2.{n}"), ip_address(f"2001:db8::{n}")) for n in (1, 2, 3)
]
LOST_ADDRESSES = [ip_address("192.0.2.99"), ip_address("2001:db8::99")]
POD_ADDRESSES = [
    ip_address(form.format(n, p))
    for form in ("10.0.{}.{}", "fd00:0:0:{}::{}")
    for n in range(3)
    for p in range(3)
]
NETWORKS = [
    ip_network(text)
    for text in (
        *("0.0.0.0/0", "203.0.113.0/24", "203.0.113.9/32", "10.0.0.0/8"),
        *("::/0", "2001:db8:ff::/48", "2001:db8:ff::9/128", "ff00::/8"),
    )
]
KEYS, VALUES = ("app", "tier"), ("a", "b", "")
DATES = ("", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")

seldom = st.sampled_from((False, False, False, False, True))
labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
requirements = st.builds(
    Requirement,
    key=st.sampled_from(KEYS),
    operator=st.sampled_from(Operator),
    values=st.frozensets(st.sampled_from(VALUES), min_size=1),
)
selectors = st.builds(
    Selector, st.lists(requirements, max_size=2).map(lambda found: tuple(found))
)


node_selectors = st.sampled_from(
    (
        Selector(),
        Selector((Requirement("egress", Operator.IN, frozenset({"a"})),)),
        Selector((Requirement("egress", Operator.IN, frozenset({"a", "b"})),)),
        Selector((Requirement("egress", Operator.EXISTS),)),
    )
)
rules = st.builds(Rule, selectors, st.none() | node_selectors)
egress_ips = st.sampled_from([*chain(*NODE_ADDRESSES), *LOST_ADDRESSES])
gateways = st.one_of(
    st.builds(GatewayOnNodes, node_selectors),
    st.builds(GatewayOnNodes, node_selectors, st.sampled_from(("eth0", "wan", "no"))),
    st.builds(GatewayOnNodes, node_selectors, st.just(""), egress_ips),
)
health = st.builds(
    GatewayHealth,
    st.sampled_from(NODE_NAMES),
    st.booleans(),
    st.lists(egress_ips, max_size=2).map(tuple),
)


@st.composite
def policy(draw: st.DrawFn, index: int) -> EgressPolicy:
    is_at_address = draw(st.booleans())
    networks = st.lists(st.sampled_from(NETWORKS), max_size=4)
    return EgressPolicy(
        kind="CiliumEgressNATPolicy" if is_at_address else "CiliumEgressGatewayPolicy",
        name=f"p{index}",
        uid=f"u{index}",
        created=draw(st.sampled_from(DATES)),
        id=policy_id(f"u{index}", "", "", ""),
        rules=tuple(draw(st.lists(rules, min_size=1, max_size=2))),
        destinations=tuple(draw(networks)),
        gateways=(GatewayAtAddress(draw(egress_ips)),)
        if is_at_address
        else tuple(draw(st.lists(gateways, min_size=1, max_size=3))),
        excluded=() if is_at_address else tuple(draw(networks)),
        health=tuple(draw(st.lists(health, max_size=2))),
    )


@st.composite
def policies(draw: st.DrawFn) -> tuple[EgressPolicy, ...]:
    return tuple(draw(policy(index)) for index in range(draw(st.integers(0, 4))))


@st.composite
def node(draw: st.DrawFn, index: int) -> Node:
    addresses = NODE_ADDRESSES[index]
    return Node(
        NODE_NAMES[index],
        draw(st.sampled_from([addresses, addresses[:1], addresses[1:]])),
        labels=draw(st.sampled_from(({}, {"egress": "a"}, {"egress": "b"}))),
        pod_networks=(
            ip_network(f"10.0.{index}.0/24"),
            ip_network(f"fd00:0:0:{index}::/64"),
        ),
        is_ready=draw(st.booleans()),
        is_deleted=draw(seldom),
    )


@st.composite
def pod(draw: st.DrawFn, index: int) -> Endpoint:
    return Endpoint(
        namespace=draw(st.sampled_from(("default", "shop", "unknown"))),
        name=f"pod{index}",
        uid=f"uid{index}",
        created=draw(st.sampled_from(DATES)),
        addresses=tuple(draw(st.lists(st.sampled_from(POD_ADDRESSES), max_size=3))),
        labels=draw(labels),
        node=draw(st.sampled_from(NODE_NAMES)),
        is_host_network=draw(seldom),
        is_terminating=draw(seldom),
        is_finished=draw(seldom),
        incarnation=draw(st.integers(0, 2)),
    )


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    nodes = tuple(draw(node(index)) for index in range(len(NODE_NAMES)))
    endpoints = tuple(draw(pod(index)) for index in range(draw(st.integers(0, 6))))
    namespaces = (Namespace("default"), Namespace("shop", {"app": "x"}))
    return Cluster(nodes, namespaces, endpoints, draw(policies()))


def facts_of(index: int) -> NodeFacts:
    """Return what a node observes that has all of its addresses, and one more."""
    more = (ip_address(f"198.51.100.{index}"), ip_address(f"2001:db8:a::{index}"))
    links = (
        Link("eth0", InterfaceIndex(2), addresses=NODE_ADDRESSES[index]),
        Link("wan", InterfaceIndex(3), addresses=more),
    )
    return NodeFacts(links, "wan", "wan")
