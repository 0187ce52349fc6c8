"""
What an engine knows beside entries: for status, reports and requests.

What it is: answers found when they are asked for, from the engine's indexes.
What it is not: kept current; ``engine`` says when an answer is out of date.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from outgate.policy.addresses import Inside
from outgate.policy.endpoints import AddressBook, DoubtfulPod, holds_addresses
from outgate.policy.model import PodQuery
from outgate.policy.policies import PolicyBook
from outgate.policy.rows import Defeat, RowPool
from outgate.policy.scope import ALL_PODS, pod_queries
from outgate.policy.selection import Selection
from outgate.state.entries import Address, NodeName, PolicyId, family_of


@dataclass(frozen=True, slots=True)
class LocalPolicy:
    """
    A policy that this node carries out, and how many rows it has here.

    No row where other policies come first, or the pods lack the family.  *beaten* names
    the networks that belong to other policies for some of its pods, and to which.
    """

    kind: str
    name: str
    uid: str
    generation: int
    id: PolicyId
    rows: int
    beaten: tuple[str, ...] = ()


def local_policies(
    node: NodeName, pool: RowPool, book: PolicyBook, selection: Selection
) -> tuple[LocalPolicy, ...]:
    """Return the policies that select pods of *node*, or whose gateway it is."""
    keys = set(book.here)
    for pod in selection.pods_on(node):
        keys.update(selection.policies_of(pod))
    rows: Counter[str] = Counter()
    beaten: dict[str, set[str]] = {}
    for shared in pool.in_use():
        for key, count in shared.counts.items():
            rows[key] += count * shared.addresses
        for defeat in shared.defeats:
            told = f"{defeat.network} belongs to {defeat.winner.reference}"
            beaten.setdefault(defeat.loser.key, set()).add(told)
    return tuple(
        LocalPolicy(
            kind=policy.kind,
            name=policy.name,
            uid=policy.uid,
            generation=policy.generation,
            id=policy.id,
            rows=rows[key],
            beaten=tuple(sorted(beaten.get(key, ()))),
        )
        for key in sorted(keys | rows.keys())
        if (policy := book.good.get(key)) is not None
    )


def doubtful_pods(
    node: NodeName, book: PolicyBook, selection: Selection, holders: AddressBook
) -> tuple[DoubtfulPod, ...]:
    """Return the pods of *node* that kept policies select."""
    found = {
        DoubtfulPod(address, pod.reference, bad)
        for policy, bad in book.kept
        for key in selection.pods_of(policy)
        for pod in [selection.pod(key)]
        if pod is not None and pod.node == node
        for address in pod.addresses
        if holders.holder(address) is pod
    }
    return tuple(sorted(found, key=_doubt_order))


def pod_addresses(
    node: NodeName, selection: Selection, holders: AddressBook
) -> Iterator[Address]:
    """Return the pod addresses of *node* whose namespace is known."""
    for key, address in claimed_addresses(node, selection):
        if holders.holder(address) is selection.pod(key):
            yield address


def claimed_addresses(
    node: NodeName, selection: Selection
) -> Iterator[tuple[str, Address]]:
    """Return the same with the pods' keys, also where another pod has the address."""
    for key in selection.pods_on(node):
        pod = selection.pod(key)
        if pod is not None and holds_addresses(pod) and selection.is_known(key):
            for address in set(pod.addresses):
                yield key, address


def needed_pods(
    node: NodeName, book: PolicyBook, selection: Selection, inside: Inside
) -> frozenset[PodQuery]:
    """Return which pods *node* needs beside its own."""
    covered = book.families
    # Also those that other nodes' pods have now: who is asked for must not depend on
    # who has come, or it changes with each answer.
    claimed = claimed_addresses(node, selection)
    own = [pod for _, pod in claimed if family_of(pod) in covered]
    if inside.strangers(own) or inside.has_unclear_networks(own):
        return ALL_PODS
    return pod_queries(book.rules_here)


def defeats(pool: RowPool) -> Mapping[Defeat, int]:
    """Return which networks policies lost, each with its count of pod addresses."""
    found: Counter[Defeat] = Counter()
    for shared in pool.in_use():
        for defeat in shared.defeats:
            found[defeat] += shared.addresses
    return found


def _doubt_order(doubt: DoubtfulPod) -> tuple[int, Address, str, str]:
    policy = doubt.policy
    return doubt.address.version, doubt.address, policy.name, policy.kind
