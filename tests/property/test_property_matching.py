"""The index of labels and the choice of gateways, against naive readings."""

from hypothesis import example, given
from hypothesis import strategies as st

from outgate.policy.gateways import choose
from outgate.policy.matching import Matches, Watched
from outgate.policy.model import Cluster, EgressPolicy, GatewayOnNodes, Labels, Node
from outgate.policy.nodes import NodeIndex
from outgate.policy.selectors import Operator, Requirement, Selector
from property.worlds import clusters, labels, node_selectors, policy, selectors

IS_A, IS_B = (
    Selector((Requirement("app", Operator.IN, frozenset({value})),)) for value in "ab"
)
SUBJECTS = st.sampled_from(("x", "y", "z"))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), SUBJECTS, labels),
            st.tuples(st.just("remove"), SUBJECTS, st.none()),
            st.tuples(st.just("watch"), st.just(""), selectors),
            st.tuples(st.just("unwatch"), st.just(""), st.integers(0, 9)),
        ),
        max_size=20,
    )
)
@example(
    [
        ("watch", "", IS_B),
        ("put", "x", {"app": "a"}),
        ("put", "x", {"app": "b"}),
        ("remove", "x", None),
        ("watch", "", IS_A),
    ]
)
def test_index_matches_what_comparing_everything_matches(
    steps: list[tuple[str, str, object]],
) -> None:
    """And each change names exactly the selectors that it concerns."""
    index: Matches[str] = Matches()
    held: dict[str, Labels] = {}
    watched: list[Watched[str]] = []
    for step, subject, value in steps:
        before = {w: set(w.subjects) for w in watched}
        changed: frozenset[Watched[str]] = frozenset()
        if step == "put":
            assert isinstance(value, dict)
            held[subject] = value
            changed = index.put(subject, value)
        elif step == "remove":
            held.pop(subject, None)
            changed = index.remove(subject)
        elif step == "watch":
            assert isinstance(value, Selector)
            watched.append(index.watch(value))
        elif watched:
            assert isinstance(value, int)
            index.unwatch(watched.pop(value % len(watched)))
        if step in ("put", "remove"):
            assert changed == {w for w in watched if w.subjects != before[w]}
        for found in watched:
            assert found.subjects == {
                s for s, of in held.items() if found.selector.matches(of)
            }
        for known in ("x", "y", "z"):
            assert set(index.selectors_of(known)) == {
                w for w in watched if known in w.subjects
            }


@given(clusters(), policy(0), st.lists(node_selectors))
def test_best_gateway_is_found_without_looking_at_all_nodes(
    cluster: Cluster, wanted: EgressPolicy, watched: list[Selector]
) -> None:
    nodes = NodeIndex(cluster.nodes)
    for selector in watched:
        nodes.watch(selector)
    for chosen in choose(wanted, nodes):
        gateway = chosen.gateway
        if isinstance(gateway, GatewayOnNodes):
            ranked = sorted(
                (_rank(wanted, gateway, node), node.name)
                for node in cluster.nodes
                if gateway.nodes.matches(node.labels)
            )
            assert chosen.node == (ranked[0][1] if ranked else None)
            assert chosen.candidates == len(ranked)


def _rank(
    policy: EgressPolicy, gateway: GatewayOnNodes, node: Node
) -> tuple[bool, int]:
    """Rank by what the text says: can do the job, then has the address."""
    wanted = gateway.egress_ip
    said = [health for health in policy.health if health.node == node.name]
    said.sort(
        key=lambda h: (
            not (wanted in h.egress_ips or (h.interface == gateway.interface != "")),
            h.is_usable,
        )
    )
    is_usable = not said or said[0].is_usable
    knowledge = 1
    if wanted is None or wanted in node.addresses:
        knowledge = 0
    elif said:
        knowledge = 0 if wanted in said[0].egress_ips else 1 + (not is_usable)
    return not (node.is_ready and not node.is_deleted and is_usable), knowledge
