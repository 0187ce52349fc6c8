"""The compiler and the plan, for thousands of clusters that nobody thought of."""

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from outgate.kernel.maps import decode_entry, encode_key, encode_value
from outgate.policy.compile import Compiled, compile_node
from outgate.policy.endpoints import identity_labels
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
from outgate.state.entries import (
    Address,
    AttachmentKey,
    CoveredKey,
    EndpointEntry,
    EndpointKey,
    Excluded,
    Family,
    InterfaceIndex,
    Key,
    NodeName,
    NoGateway,
    PolicyKey,
    RowsKey,
    TunnelDevice,
    TunnelKey,
    Value,
    ViaGateway,
    key_family,
)
from outgate.state.facts import Link, NodeFacts
from outgate.state.plan import Put, diff
from outgate.state.snapshot import Snapshot, policy_rows, render

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
        is_deleted=draw(st.booleans()),
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
        is_host_network=draw(st.booleans()),
        is_terminating=draw(st.booleans()),
        is_finished=draw(st.booleans()),
    )


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    nodes = tuple(draw(node(index)) for index in range(len(NODE_NAMES)))
    endpoints = tuple(draw(pod(index)) for index in range(draw(st.integers(0, 6))))
    namespaces = (Namespace("default"), Namespace("shop", {"app": "x"}))
    return Cluster(nodes, namespaces, endpoints, draw(policies()))


def _facts(index: int) -> NodeFacts:
    link = Link("eth0", InterfaceIndex(2), addresses=NODE_ADDRESSES[index])
    return NodeFacts((link,), "eth0")


def _compile(cluster: Cluster, index: int = 0) -> Compiled:
    return compile_node(cluster, NODE_NAMES[index], _facts(index), TUNNEL)


def _apply(plan: tuple[object, ...], actual: Snapshot) -> Snapshot:
    held: dict[Key, Value] = dict(actual)
    for operation in plan:
        if isinstance(operation, Put):
            held[operation.key] = operation.value
        else:
            assert hasattr(operation, "key")
            del held[operation.key]
    return held


@given(clusters(), st.randoms(use_true_random=False))
def test_compile_ignores_the_order_of_objects(
    cluster: Cluster, chance: random.Random
) -> None:
    mixed = replace(
        cluster,
        nodes=tuple(chance.sample(cluster.nodes, len(cluster.nodes))),
        namespaces=tuple(chance.sample(cluster.namespaces, len(cluster.namespaces))),
        endpoints=tuple(chance.sample(cluster.endpoints, len(cluster.endpoints))),
        policies=tuple(chance.sample(cluster.policies, len(cluster.policies))),
    )

    assert _compile(cluster) == _compile(mixed)
    assert render(_compile(cluster).snapshot) == render(_compile(mixed).snapshot)


@given(clusters(), clusters())
def test_applied_plan_reaches_what_is_desired(before: Cluster, after: Cluster) -> None:
    actual, desired = _compile(before).snapshot, _compile(after).snapshot

    assert _apply(diff(desired, actual), actual) == desired
    assert diff(desired, desired) == ()


@given(clusters(), clusters())
def test_covered_pair_is_never_without_a_row_between_two_rounds(
    before: Cluster, after: Cluster
) -> None:
    """After each single operation, a row that both rounds want is there."""
    actual, desired = _compile(before).snapshot, _compile(after).snapshot
    wanted = _pairs(desired) & _pairs(actual)
    held: dict[Key, Value] = dict(actual)
    for operation in diff(desired, actual):
        held = dict(_apply((operation,), held))
        assert wanted <= _pairs(held)


@given(clusters(), clusters())
def test_new_pod_is_known_only_after_its_rows(before: Cluster, after: Cluster) -> None:
    actual, desired = _compile(before).snapshot, _compile(after).snapshot
    held: dict[Key, Value] = dict(actual)
    for operation in diff(desired, actual):
        held = dict(_apply((operation,), held))
        if isinstance(operation, Put) and isinstance(operation.key, EndpointKey):
            rows = RowsKey(operation.key.address)
            assert held.get(rows) == desired.get(rows)


def _pairs(snapshot: Snapshot) -> set[PolicyKey]:
    return {key for key, _ in policy_rows(snapshot)}


@given(clusters(), policies())
def test_new_policy_leaves_other_pods_alone(
    cluster: Cluster, drawn: tuple[EgressPolicy, ...]
) -> None:
    """Rows of pods that it does not select stay exactly as they were."""
    newcomers = tuple(
        replace(p, name=f"new-{p.name}", id=policy_id(p.name, "", "", ""))
        for p in drawn
    )
    wider = replace(cluster, policies=(*cluster.policies, *newcomers))
    selected = _selected_addresses(cluster, newcomers)
    for index in range(3):
        before = _rows_except(_compile(cluster, index).snapshot, selected)
        after = _rows_except(_compile(wider, index).snapshot, selected)

        assert before == after


def _selected_addresses(
    cluster: Cluster, found: tuple[EgressPolicy, ...]
) -> set[Address]:
    namespaces = {namespace.name: namespace for namespace in cluster.namespaces}
    return {
        address
        for pod in cluster.endpoints
        if pod.namespace in namespaces
        for policy in found
        for rule in policy.rules
        if rule.pods.matches(identity_labels(pod, namespaces[pod.namespace]))
        for address in pod.addresses
    }


def _rows_except(snapshot: Snapshot, sources: set[Address]) -> Snapshot:
    return {
        key: value
        for key, value in snapshot.items()
        if isinstance(key, RowsKey) and key.source not in sources
    }


@given(clusters())
def test_pods_node_and_gateway_agree(cluster: Cluster) -> None:
    """Where a pod's node sends it, the gateway has the same row, or must drop it."""
    snapshots = [_compile(cluster, index).snapshot for index in range(3)]
    tables = [dict(policy_rows(snapshot)) for snapshot in snapshots]
    for table in tables:
        for key, entry in table.items():
            if isinstance(entry, ViaGateway):
                (gateway,) = (
                    index
                    for index, addresses in enumerate(NODE_ADDRESSES)
                    if entry.tunnel_endpoint in addresses
                )
                there = tables[gateway][key]
                assert not isinstance(there, NoGateway | Excluded)
                assert there.tunnel_endpoint == entry.tunnel_endpoint
                assert there.policy == entry.policy


@given(clusters())
def test_every_row_is_of_a_covered_network(cluster: Cluster) -> None:
    """An excluded one needs not be: nothing there is to be dropped."""
    snapshot = _compile(cluster).snapshot

    for key, entry in policy_rows(snapshot):
        assert isinstance(entry, Excluded) or CoveredKey(key.destination) in snapshot


@given(clusters())
def test_every_row_survives_its_bytes(cluster: Cluster) -> None:
    """So none mixes families, and none needs an endpoint that it has no room for."""
    snapshot = _compile(cluster).snapshot
    rows = [
        (key, value)
        for key, value in snapshot.items()
        if not isinstance(key, TunnelKey | AttachmentKey | RowsKey)
    ]
    for key, value in (*rows, *policy_rows(snapshot)):
        name, encoded = encode_key(key)

        assert decode_entry(name, encoded, encode_value(key, value)) == (key, value)


@given(clusters(), st.sampled_from(Family))
def test_what_a_policy_says_of_one_family_changes_no_row_of_the_other(
    cluster: Cluster, family: Family
) -> None:
    policies = tuple(
        replace(
            policy,
            destinations=tuple(d for d in policy.destinations if d.version == family),
            excluded=tuple(d for d in policy.excluded if d.version == family),
        )
        for policy in cluster.policies
    )
    whole, half = _compile(cluster), _compile(replace(cluster, policies=policies))

    assert _rows_of(whole.snapshot, family) == _rows_of(half.snapshot, family)


def _rows_of(snapshot: Snapshot, family: Family) -> Snapshot:
    return {
        key: value
        for key, value in snapshot.items()
        if isinstance(key, RowsKey) and key_family(key) is family
    }


@given(clusters())
def test_address_of_the_other_family_has_no_row(cluster: Cluster) -> None:
    snapshot = _compile(cluster).snapshot
    covered = {key.source for key in snapshot if isinstance(key, RowsKey)}
    marked = {
        key.address
        for key, value in snapshot.items()
        if isinstance(key, EndpointKey)
        and isinstance(value, EndpointEntry)
        and value.is_other_family
    }

    assert covered.isdisjoint(marked)
