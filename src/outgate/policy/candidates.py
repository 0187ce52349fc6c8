"""
The nodes that a pod could leave through, and why it is that one: for ``explain``.

What it is: pure; the choice of ``gateways`` in words.  What speaks against a node is
what ``choose`` says when there is no other.
What it is not: the choice.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from outgate.policy.decisions import decide, reach_of
from outgate.policy.endpoints import pod_key
from outgate.policy.gateways import Chosen, choose
from outgate.policy.model import (
    NO_NODE,
    EgressPolicy,
    Endpoint,
    Gateway,
    GatewayAtAddress,
    Node,
)
from outgate.policy.nodes import NodeIndex
from outgate.state.entries import Family, NodeName, PolicyEntry
from outgate.state.facts import NodeFacts

MOST_TOLD = 8
"""Of a selector that matches thousands of nodes, this many are told, in order."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    A node that an entry of a policy matches.

    *path* is the field of the entry, as ``spec.egressGateways[1]``; *node* is None
    where nothing matches.  One candidate at most *is_chosen*: what the pod leaves
    through.
    """

    path: str
    node: NodeName | None
    is_chosen: bool
    why: str


def candidates_for(
    policy: EgressPolicy, pod: Endpoint, nodes: Iterable[Node]
) -> tuple[Candidate, ...]:
    """Return the candidates of each entry of *policy*, those that count first."""
    index = NodeIndex(nodes)
    choices = choose(policy, index)
    own = _seat_of(policy, pod, index, choices)
    return tuple(
        candidate
        for choice in choices
        for candidate in _candidates(policy, choice, index, is_own=choice is own)
    )


def entry_elsewhere(
    policy: EgressPolicy, pod: Endpoint, nodes: Iterable[Node], family: Family
) -> PolicyEntry:
    """Return what the rows of *pod* say on nodes that are not its gateway."""
    index = NodeIndex(nodes)
    fate = decide(policy, reach_of(policy), index, NO_NODE, NodeFacts()).fate
    return fate.seats[fate.seat_of(pod_key(pod))].entry(family)


def _seat_of(
    policy: EgressPolicy,
    pod: Endpoint,
    index: NodeIndex,
    choices: tuple[Chosen, ...],
) -> Chosen | None:
    """Return the entry that *pod* has, of those that share the pods."""
    sharing = [choice for choice in choices if choice.is_selected]
    if not sharing:
        return None
    fate = decide(policy, reach_of(policy), index, pod.node, NodeFacts()).fate
    return sharing[fate.seat_of(pod_key(pod))]


def _candidates(
    policy: EgressPolicy, choice: Chosen, index: NodeIndex, *, is_own: bool
) -> list[Candidate]:
    gateway = choice.gateway
    if choice.node is None:
        return [Candidate(gateway.path, None, is_chosen=False, why=choice.reason)]
    first = Candidate(gateway.path, choice.node, is_own, _why_first(choice, is_own))
    matching = _matching(gateway, index)
    others = [name for name in matching if name != choice.node]
    found = [
        Candidate(
            gateway.path, name, is_chosen=False, why=_why_not(policy, name, index)
        )
        for name in others[: MOST_TOLD - 1]
    ]
    return [first, *found]


def _matching(gateway: Gateway, index: NodeIndex) -> tuple[NodeName, ...]:
    if isinstance(gateway, GatewayAtAddress):
        return tuple(sorted(index.claimants(gateway.egress_ip)))
    return index.matching(gateway.nodes)


def _why_first(choice: Chosen, is_own: bool) -> str:
    if not choice.is_selected:
        return f"{choice.reason}; other entries carry its pods"
    state = f"{choice.reason}, but none is better" if choice.reason else "ready"
    if choice.candidates > 1:
        state += f", the first of {choice.candidates} nodes"
    return state if is_own else f"{state}; carries other pods"


def _why_not(policy: EgressPolicy, name: NodeName, index: NodeIndex) -> str:
    """Return what ``choose`` would have to say of *name* alone."""
    node = index.get(name)
    assert node is not None
    reasons = {c.reason for c in choose(policy, NodeIndex([node])) if c.node == name}
    return "; ".join(sorted(reasons - {""})) or "ready, but comes later"
