"""The compiler and the plan, for thousands of clusters that nobody thought of."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from outgate.kernel.maps import decode_entry, decode_row, encode_key, encode_value
from outgate.policy.compile import Compiled, compile_node
from outgate.policy.endpoints import identity_labels
from outgate.policy.model import (
    Cluster,
    EgressPolicy,
    policy_id,
)
from outgate.state.entries import (
    Address,
    AttachmentKey,
    CoveredKey,
    EndpointEntry,
    EndpointKey,
    Excluded,
    Family,
    Key,
    Network,
    NoGateway,
    PolicyEntry,
    PolicyKey,
    RowSet,
    RowsKey,
    TunnelKey,
    Value,
    ViaGateway,
)
from outgate.state.plan import Put, diff
from outgate.state.snapshot import Snapshot, key_family, policy_rows, render
from property.worlds import (
    NODE_ADDRESSES,
    NODE_NAMES,
    TUNNEL,
    clusters,
    facts_of,
    policies,
)


def _compile(cluster: Cluster, index: int = 0) -> Compiled:
    return compile_node(cluster, NODE_NAMES[index], facts_of(index), TUNNEL)


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
            source = operation.key.address
            assert _fate_of(desired, source) <= _fate_of(held, source)


@given(clusters(), clusters())
def test_new_owner_of_an_address_is_known_only_without_the_former_ones_rows(
    before: Cluster, after: Cluster
) -> None:
    actual, desired = _compile(before).snapshot, _compile(after).snapshot
    held: dict[Key, Value] = dict(actual)
    for operation in diff(desired, actual):
        held = dict(_apply((operation,), held))
        if isinstance(operation, Put) and isinstance(operation.key, EndpointKey):
            source = operation.key.address
            if _owner(actual, source) != _owner(desired, source):
                assert _fate_of(desired, source) == _fate_of(held, source)


def _owner(snapshot: Snapshot, source: Address) -> int | None:
    entry = snapshot.get(EndpointKey(source))
    return entry.owner if isinstance(entry, EndpointEntry) else None


def _fate_of(snapshot: Snapshot, source: Address) -> set[tuple[Network, PolicyEntry]]:
    rows = snapshot.get(RowsKey(source))
    return set(rows.items()) if isinstance(rows, RowSet) else set()


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
    for key, value in snapshot.items():
        if not isinstance(key, TunnelKey | AttachmentKey | RowsKey):
            name, encoded = encode_key(key)
            row = decode_entry(name, encoded, encode_value(key, value))
            assert row == (key, value)
    for policy_key, entry in policy_rows(snapshot):
        name, encoded = encode_key(policy_key)
        found = decode_row(name, encoded, encode_value(policy_key, entry))
        assert found == (policy_key, entry)


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
