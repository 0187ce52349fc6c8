"""
Pods as policies meet them: which labels they show, and who holds which address.

What it is: the rules for pseudo labels, and for two pods that claim one address.
What it is not: the choice of pods for a policy (``selection`` does that).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from outgate.policy.claims import Claims
from outgate.policy.model import BadPolicy, Endpoint, Labels, Namespace, Problem
from outgate.policy.selectors import NAMESPACE_LABEL, NAMESPACE_LABELS_PREFIX
from outgate.state.entries import Address


@dataclass(frozen=True, slots=True)
class DoubtfulPod:
    """A pod that *policy* selects, of which no good version is known."""

    address: Address
    reference: str
    policy: BadPolicy


class IdentityLabels(Mapping[str, str]):
    """
    What selectors look at: the pod's labels, its namespace and that one's.

    A view of two mappings, because a hundred thousand pods have these.  Labels of the
    pod that look like the pseudo labels do not count: who may label a pod must not be
    able to move it into another namespace's policies.
    """

    __slots__ = ("_namespace", "_pod")

    def __init__(self, pod: Labels, namespace: Labels) -> None:
        self._pod = pod
        self._namespace = namespace

    def __getitem__(self, key: str) -> str:
        if key in self._namespace:
            return self._namespace[key]
        if key.startswith(NAMESPACE_LABELS_PREFIX):
            raise KeyError(key)
        return self._pod[key]

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """Return the value of *key*; the two mappings are asked, no error is raised."""
        value = self._namespace.get(key)
        if value is not None or key.startswith(NAMESPACE_LABELS_PREFIX):
            return default if value is None else value
        return self._pod.get(key, default)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        yield from self._namespace
        for key in self._pod:
            if key not in self._namespace and not key.startswith(
                NAMESPACE_LABELS_PREFIX
            ):
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)


def namespace_labels(namespace: Namespace) -> Labels:
    """Return the pseudo labels that every pod of *namespace* shows."""
    labels = {
        NAMESPACE_LABELS_PREFIX + key: value for key, value in namespace.labels.items()
    }
    labels[NAMESPACE_LABEL] = namespace.name
    return labels


def identity_labels(endpoint: Endpoint, namespace: Namespace) -> Labels:
    """Return what selectors look at of *endpoint*."""
    return IdentityLabels(endpoint.labels, namespace_labels(namespace))


def pod_key(endpoint: Endpoint) -> str:
    """Return the key of *endpoint*, as in ``ClusterChanges``."""
    return f"{endpoint.namespace}/{endpoint.name}"


def holds_addresses(endpoint: Endpoint) -> bool:
    """Return whether its addresses are its own: not the host's, not given back."""
    return not endpoint.is_host_network and not endpoint.is_finished


class AddressBook:
    """
    Which pod each pod address belongs to now, and who claims it in vain.

    Pods of the host network and finished pods hold nothing.  When events arrive late,
    an old pod and the new one with its address are seen together: the one that is not
    terminating holds it, then the newer, then the greater uid.
    """

    def __init__(self) -> None:
        self._claims: Claims[Address, Endpoint] = Claims()

    def replace(self, old: Endpoint | None, new: Endpoint | None) -> set[Address]:
        """Take *new* for *old*, either may be missing; return the addresses of both."""
        touched = set()
        for pod, act in ((old, self._claims.drop), (new, self._claims.add)):
            if pod is not None and holds_addresses(pod):
                for address in set(pod.addresses):
                    act(address, pod)
                    touched.add(address)
        return touched

    def holder(self, address: Address) -> Endpoint | None:
        """Return the pod that *address* belongs to."""
        claims = self._claims.of(address)
        return claims[0] if len(claims) == 1 else max(claims, key=_rank, default=None)

    def problems(self) -> Iterator[Problem]:
        """Tell of pods whose address is another pod's."""
        for address in self._claims.contested:
            holder = self.holder(address)
            assert holder is not None
            for pod in self._claims.of(address):
                if pod is not holder:
                    yield Problem(
                        pod.reference,
                        "status.podIPs",
                        f"{address} belongs to {holder.reference} now",
                    )


def _rank(endpoint: Endpoint) -> tuple[bool, str, str, str]:
    return (
        not endpoint.is_terminating,
        endpoint.created,
        endpoint.uid,
        endpoint.reference,
    )
