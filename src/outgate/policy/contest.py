"""
Which networks of which policies hold a destination, and why one of them wins.

What it is: the contest of ``rows`` and of the map (longest prefix, then the older
policy, then its name; within one policy an exclusion), told for one destination.
What it is not: what decides; rows do.  A property test holds the two together.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from outgate.policy.model import EgressPolicy
from outgate.policy.never import is_never_routed
from outgate.state.entries import Address, Network


@dataclass(frozen=True, slots=True)
class Contender:
    """
    A network of a policy that selects the pod, and that holds the destination.

    *path* is its field; *lost_because* is empty for the winner.
    """

    policy: EgressPolicy = field(repr=False)
    network: Network
    path: str
    is_excluded: bool = False
    lost_because: str = ""


def contend(
    policies: Iterable[EgressPolicy], destination: Address
) -> tuple[Contender, ...]:
    """Return who contends for *destination*, the winner first."""
    found = [c for policy in policies for c in networks_for(policy, destination)]
    found.sort(key=_strength)
    return tuple(
        Contender(
            each.policy,
            each.network,
            each.path,
            each.is_excluded,
            _why_lost(each, found[0]) if place else "",
        )
        for place, each in enumerate(found)
    )


def networks_for(policy: EgressPolicy, destination: Address) -> list[Contender]:
    """Return the networks of *policy* that hold *destination*."""
    named = (
        ("spec.excludedCIDRs", True, policy.excluded),
        ("spec.destinationCIDRs", False, policy.destinations),
    )
    return [
        Contender(policy, network, f"{field_name}[{index}]", is_excluded)
        for field_name, is_excluded, networks in named
        for index, network in enumerate(networks)
        if destination in network and not is_never_routed(network)
    ]


def _strength(each: Contender) -> tuple[int, tuple[bool, str, str, str], bool, str]:
    return (
        -each.network.prefixlen,
        each.policy.seniority,
        not each.is_excluded,
        each.path,
    )


def _why_lost(loser: Contender, winner: Contender) -> str:
    ours, theirs = loser.network.prefixlen, winner.network.prefixlen
    if ours != theirs:
        return f"/{theirs} is longer than /{ours}"
    if loser.policy is winner.policy:
        if loser.is_excluded == winner.is_excluded:
            return "the same network twice"
        return "an exclusion beats a destination of the same prefix"
    if loser.policy.created != winner.policy.created:
        return f"{winner.policy.reference} is older"
    return f"{winner.policy.reference} is as old and comes first by name"
