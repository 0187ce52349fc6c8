"""The engine: however changes come, what it wants is what a fresh compile wants."""

from hypothesis import given, settings
from hypothesis import strategies as st

from outgate.policy.compile import as_changes, compile_node
from outgate.policy.endpoints import identity_labels
from outgate.policy.engine import Engine
from outgate.policy.gateways import share
from outgate.policy.model import (
    Cluster,
    ClusterChanges,
    EgressPolicy,
    Endpoint,
    Namespace,
    Node,
)
from outgate.policy.scope import ALL_PODS
from outgate.policy.selection import Selection
from outgate.state.entries import (
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Key,
    NodeName,
    PolicyKey,
    RowsKey,
    Value,
)
from outgate.state.facts import NodeFacts
from outgate.state.plan import Put, diff
from outgate.state.snapshot import Snapshot, policy_rows
from property.histories import ME, Change, change, spoilt
from property.worlds import (
    TUNNEL,
    clusters,
    facts_of,
)

changes = st.lists(change(), max_size=12)


def _as_changes(found: list[Change]) -> ClusterChanges:
    merged = ClusterChanges()
    for kind, key, value in found:
        getattr(merged, kind)[key] = value
    return merged


def _feed(engine: Engine, found: list[Change], settles: list[bool]) -> set[Key]:
    """Feed changes in batches; return all keys that were said to be touched."""
    touched: set[Key] = set()
    batch: list[Change] = []
    for index, item in enumerate(found):
        batch.append(item)
        if settles[index % len(settles)]:
            engine.change(_as_changes(batch))
            touched |= engine.settle()
            batch = []
    engine.change(_as_changes(batch))
    return touched | engine.settle()


def _in_the_end(found: list[Change]) -> ClusterChanges:
    last = _as_changes(found)
    for kind in ("nodes", "namespaces", "pods", "policies", "networks"):
        held = getattr(last, kind)
        setattr(last, kind, {k: v for k, v in held.items() if v is not None})
    return last


def _fresh(found: list[Change], facts: NodeFacts) -> Engine:
    engine = Engine(ME, TUNNEL)
    engine.change(_in_the_end(found))
    engine.observe(facts)
    engine.settle()
    return engine


def _answers(engine: Engine) -> dict[str, object]:
    return {
        "desired": engine.desired,
        "problems": engine.problems,
        "kept": engine.kept_policies,
        "doubtful": engine.doubtful_pods,
        "names": engine.policy_names,
        "queries": engine.pod_queries,
        "local": engine.local_policies(),
        "candidate": engine.is_candidate,
    }


@settings(max_examples=300)
@given(changes, st.lists(st.booleans(), min_size=1, max_size=6), st.booleans())
def test_history_of_changes_does_not_matter(
    found: list[Change], settles: list[bool], is_late: bool
) -> None:
    """Any batches, repetitions and removals: only the last state counts."""
    engine = Engine(ME, TUNNEL)
    if not is_late:
        engine.observe(facts_of(0))
    _feed(engine, found, settles)
    engine.observe(facts_of(1))
    engine.observe(facts_of(0))
    engine.settle()

    assert _answers(engine) == _answers(_fresh(found, facts_of(0)))


@settings(max_examples=200)
@given(clusters(), st.data())
def test_order_of_events_does_not_matter(cluster: Cluster, data: st.DataObject) -> None:
    """Each object comes by itself, in any order, some of them twice."""
    whole, _ = as_changes(cluster)
    single: list[Change] = [
        (kind, key, value)
        for kind in ("nodes", "namespaces", "pods", "policies", "networks")
        for key, value in getattr(whole, kind).items()
    ]
    order = data.draw(st.permutations(single + single[::3]))
    engine = Engine(ME, TUNNEL)
    engine.observe(facts_of(0))
    _feed(engine, list(order), [data.draw(st.booleans()), True])
    compiled = compile_node(cluster, ME, facts_of(0), TUNNEL)

    assert engine.desired == compiled.snapshot
    assert engine.problems == compiled.problems


@settings(max_examples=200)
@given(changes, changes)
def test_touched_keys_are_all_that_differ(
    before: list[Change], after: list[Change]
) -> None:
    engine = _fresh(before, facts_of(0))
    was = dict(engine.desired)
    touched = _feed(engine, after, [False, True])
    differing = {
        key
        for key in was.keys() | engine.desired.keys()
        if was.get(key) != engine.desired.get(key)
    }

    assert differing <= touched
    assert engine.settle() == frozenset()


@settings(max_examples=200)
@given(changes, changes)
def test_plan_of_touched_keys_reaches_what_is_desired(
    before: list[Change], after: list[Change]
) -> None:
    engine = _fresh(before, facts_of(0))
    was = dict(engine.desired)
    actual = dict(was)
    touched = _feed(engine, after, [False])
    wanted = _pairs(actual) & _pairs(engine.desired)
    for operation in diff(engine.desired, actual, touched=touched):
        if isinstance(operation, Put):
            actual[operation.key] = operation.value
        else:
            del actual[operation.key]

        assert wanted <= _pairs(actual), "a covered pair was without a row"
        if isinstance(operation, Put) and isinstance(operation.key, EndpointKey):
            rows = RowsKey(operation.key.address)
            if _owner(was.get(operation.key)) != _owner(operation.value):
                assert actual.get(rows) == engine.desired.get(rows), "it inherits"

    assert actual == engine.desired


def _owner(value: Value | None) -> tuple[EndpointFlag, int] | None:
    """Return who has an address, as the datapath tells one pod from another."""
    if not isinstance(value, EndpointEntry) or value.flags is EndpointFlag.HOST:
        return None
    return value.flags, value.owner


def _pairs(snapshot: Snapshot) -> set[PolicyKey]:
    return {key for key, _ in policy_rows(snapshot)}


@settings(max_examples=200)
@given(changes, changes)
def test_bad_version_leaves_the_last_good_one_in_force(
    before: list[Change], after: list[Change]
) -> None:
    """Pods and nodes go on changing; rows follow by the good version."""
    bad_versions: list[Change] = [
        (kind, key, spoilt(value))
        for kind, key, value in before
        if isinstance(value, EgressPolicy)
    ]
    others = [item for item in after if item[0] != "policies"]
    good, bad = _fresh(before, facts_of(0)), _fresh(before, facts_of(0))
    held = {key for key, v in _in_the_end(before).policies.items() if v is not None}
    _feed(bad, [item for item in bad_versions if item[1] in held], [True])
    _feed(good, others, [True])
    _feed(bad, others, [True])

    assert bad.desired == good.desired
    assert bad.kept_policies == frozenset()


@given(changes)
def test_gateway_asks_for_every_pod_that_leaves_through_it(
    found: list[Change],
) -> None:
    """What its queries leave out changes nothing that it holds for others."""
    engine = _fresh(found, facts_of(0))
    if engine.pod_queries == ALL_PODS:
        return
    kept = [
        item
        for item in found
        if not isinstance(item[2], Endpoint)
        or item[2].node == ME
        or any(_is_asked(item[2], q.namespace, q.labels) for q in engine.pod_queries)
    ]
    fewer = _fresh(kept, facts_of(0))

    assert _rows(fewer.desired) == _rows(engine.desired)


def _rows(snapshot: Snapshot) -> dict[PolicyKey, object]:
    return dict(policy_rows(snapshot))


def _is_asked(endpoint: Endpoint, namespace: str, labels: str) -> bool:
    """Match as an API server does; the queries of these tests are simple."""
    if namespace not in ("", endpoint.namespace):
        return False
    return all(_holds(part, endpoint.labels) for part in _split(labels))


def _split(labels: str) -> list[str]:
    parts, depth = [""], 0
    for character in labels:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part]


def _holds(part: str, labels: object) -> bool:
    assert isinstance(labels, dict)
    if " in (" in part or " notin (" in part:
        key, word, values = part.split(" ", 2)
        return (labels.get(key) in values[1:-1].split(",")) == (word == "in")
    if "!=" in part:
        key, value = part.split("!=")
        return labels.get(key) != value
    if "=" in part:
        key, value = part.split("=")
        return labels.get(key) == value
    return part[1:] not in labels if part.startswith("!") else part in labels


NAMES = [NodeName(f"gateway{index}") for index in range(5)]


@given(
    st.lists(st.sampled_from(NAMES), min_size=2, unique=True),
    st.permutations(NAMES),
    st.data(),
)
def test_removing_one_of_several_gateways_moves_only_its_pods(
    names: list[NodeName], order: list[NodeName], data: st.DataObject
) -> None:
    """The order of gateways in the policy does not matter either."""
    gone = data.draw(st.sampled_from(names))
    pods = [f"default/pod{index}" for index in range(20)]
    before = {pod: names[share(pod, names)] for pod in pods}
    rest = [name for name in order if name in names and name != gone]
    after = {pod: rest[share(pod, rest)] for pod in pods}

    assert {pod for pod in pods if before[pod] != after[pod]} == {
        pod for pod in pods if before[pod] == gone
    }


@settings(max_examples=100)
@given(changes)
def test_selection_knows_what_a_naive_reading_selects(found: list[Change]) -> None:
    selection = Selection()
    for kind, key, value in found:
        match kind, value:
            case "pods", (Endpoint() | None):
                selection.put_pod(key, value)
            case "namespaces", (Namespace() | None):
                selection.put_namespace(key, value)
            case "nodes", _:
                labels = value.labels if isinstance(value, Node) else None
                selection.put_node(NodeName(key), labels)
            case "policies", _:
                rules = value.rules if isinstance(value, EgressPolicy) else None
                selection.put_policy(key, rules)
    last = _in_the_end(found)
    for key, policy_ in last.policies.items():
        assert isinstance(policy_, EgressPolicy)
        expected = {
            name
            for name, pod_ in last.pods.items()
            if pod_ is not None and _selects(policy_, pod_, last)
        }
        assert set(selection.pods_of(key)) == expected
        for name in last.pods:
            assert (key in selection.policies_of(name)) == (name in expected)


def _selects(policy: EgressPolicy, pod: Endpoint, last: ClusterChanges) -> bool:
    namespace = last.namespaces.get(pod.namespace)
    if namespace is None:
        return False
    labels = identity_labels(pod, namespace)
    node = last.nodes.get(pod.node)
    return any(
        rule.pods.matches(labels)
        and (rule.nodes is None or (node and rule.nodes.matches(node.labels)))
        for rule in policy.rules
    )
