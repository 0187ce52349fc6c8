"""
What users should know of a node's networks, in their words.

What it is: problems that belong to no policy.  What policies get wrong is told where
it is found (``decisions``, ``rows``, ``parse``).
"""

from collections.abc import Collection, Iterator, Sequence

from outgate.policy.model import Problem
from outgate.state.entries import Address, Family, NodeName, family_of


def missing_node(node: NodeName) -> Problem:
    """Tell that the cluster lacks *node*."""
    message = (
        "the cluster has no such node, so no pod is known here and covered traffic is"
        " dropped; is the agent's setting node the name of a Node?"
    )
    return Problem(f"Node {node}", "metadata.name", message)


def unknown_networks(
    node: NodeName, strangers: Sequence[Address], covered: Collection[Family]
) -> Iterator[Problem]:
    """
    Tell of pods in networks where a new pod would not be taken for one.

    One for each family in which policies have destinations (*covered*).
    """
    first: dict[Family, Address] = {}
    for address in strangers:
        first.setdefault(family_of(address), address)
    for family, address in first.items():
        if family in covered:
            yield Problem(
                f"Node {node}",
                "spec.podCIDRs",
                f"{address} lies in no pod network of any node, so a new pod like it"
                " may leave under its own address until its agent knows it; name the"
                f" IPv{family} pod networks in the agents' setting cluster-networks",
            )
