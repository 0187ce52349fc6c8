"""
Pods as policies meet them: which labels they show, and who holds which address.

What it is: the rules for pseudo labels, and for two pods that claim one address.
What it is not: the choice of pods for a policy (``rows`` does that).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from outgate.policy.model import BadPolicy, Endpoint, Namespace, Problem
from outgate.policy.selectors import NAMESPACE_LABEL, NAMESPACE_LABELS_PREFIX
from outgate.state.entries import Address, NodeName


@dataclass(frozen=True, slots=True)
class DoubtfulPod:
    """A pod that *policy* selects, of which no good version is known."""

    address: Address
    reference: str
    policy: BadPolicy


def identity_labels(endpoint: Endpoint, namespace: Namespace) -> dict[str, str]:
    """
    Return what selectors look at: the pod's labels, its namespace and that one's.

    Labels of the pod that look like the pseudo labels do not count: who may label
    a pod must not be able to move it into another namespace's policies.
    """
    labels = {
        key: value
        for key, value in endpoint.labels.items()
        if not key.startswith(NAMESPACE_LABELS_PREFIX)
    }
    labels[NAMESPACE_LABEL] = namespace.name
    labels.update(
        (NAMESPACE_LABELS_PREFIX + key, value)
        for key, value in namespace.labels.items()
    )
    return labels


def address_holders(
    endpoints: Iterable[Endpoint],
) -> tuple[Mapping[Address, Endpoint], tuple[Problem, ...]]:
    """
    Return which pod each pod address belongs to now, and who claims it in vain.

    Pods of the host network and finished pods hold nothing.  When events arrive
    late, an old pod and the new one with its address are seen together: the one
    that is not terminating holds it, then the newer, then the greater uid.
    """
    claims: dict[Address, list[Endpoint]] = {}
    for endpoint in endpoints:
        if not endpoint.is_host_network and not endpoint.is_finished:
            for address in set(endpoint.addresses):
                claims.setdefault(address, []).append(endpoint)
    holders = {address: max(pods, key=_claim) for address, pods in claims.items()}
    problems = tuple(
        Problem(
            pod.reference,
            "status.podIPs",
            f"{address} belongs to {holders[address].reference} now",
        )
        for address, pods in claims.items()
        for pod in pods
        if pod is not holders[address]
    )
    return holders, problems


def find_doubtful_pods(
    node: NodeName,
    holders: Mapping[Address, Endpoint],
    namespaces: Mapping[str, Namespace],
    policies: Iterable[BadPolicy],
) -> tuple[DoubtfulPod, ...]:
    """Return the pods of *node* that *policies* select, as far as these can be read."""
    policies = tuple(policy for policy in policies if policy.selectors)
    found = []
    for address, pod in holders.items() if policies else ():
        namespace = namespaces.get(pod.namespace)
        if pod.node != node or namespace is None:
            continue
        labels = identity_labels(pod, namespace)
        found += [
            DoubtfulPod(address, pod.reference, policy)
            for policy in policies
            if any(selector.matches(labels) for selector in policy.selectors)
        ]
    return tuple(sorted(found, key=_doubt_order))


def _doubt_order(doubt: DoubtfulPod) -> tuple[int, Address, str]:
    return doubt.address.version, doubt.address, doubt.policy.name


def _claim(endpoint: Endpoint) -> tuple[bool, str, str, str]:
    return (
        not endpoint.is_terminating,
        endpoint.created,
        endpoint.uid,
        endpoint.reference,
    )
