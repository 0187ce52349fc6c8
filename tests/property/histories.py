"""What may happen to a cluster, one object after another."""

from dataclasses import replace

from hypothesis import strategies as st

from outgate.policy.model import BadPolicy, EgressPolicy, Namespace, Problem
from property.worlds import NETWORKS, NODE_NAMES, node, pod, policy

Change = tuple[str, str, object]
"""A field of ``ClusterChanges``, a key, an object or None."""

ME = NODE_NAMES[0]


def spoilt(policy: EgressPolicy) -> BadPolicy:
    """Return *policy* as it is after a wrong edit of something else than its rules."""
    problem = Problem(policy.reference, "spec", "is bad")
    return BadPolicy(
        policy.kind, policy.name, policy.uid, policy.id, (problem,), policy.rules
    )


@st.composite
def change(draw: st.DrawFn) -> Change:
    """Return an object that came or changed, or went."""
    kind = draw(
        st.sampled_from(("nodes", "namespaces", "pods", "policies", "networks"))
    )
    is_gone = draw(st.integers(0, 3)) == 0
    index = draw(st.integers(0, 2))
    key: str
    match kind:
        case "nodes":
            value: object = draw(node(index))
            key = NODE_NAMES[index]
        case "namespaces":
            key = draw(st.sampled_from(("default", "shop", "unknown")))
            value = Namespace(key, draw(st.sampled_from(({}, {"app": "x"}))))
        case "pods":
            found = draw(pod(index))
            # The namespace is part of the key: a pod never moves.
            found = replace(found, namespace=("default", "shop", "unknown")[index])
            key, value = f"{found.namespace}/{found.name}", found
        case "policies":
            good = replace(draw(policy(index)), kind="CiliumEgressGatewayPolicy")
            key, value = f"{good.kind}/{good.name}", good
        case _:
            key = draw(st.sampled_from(("setting", "ServiceCIDR")))
            value = tuple(draw(st.lists(st.sampled_from(NETWORKS[1:]), max_size=2)))
    return kind, key, None if is_gone else value
