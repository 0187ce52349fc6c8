"""
The cluster from a Kubernetes API: nodes, namespaces, pods, egress policies.

What it is: one task per kind that drives the pure machine of ``watch`` with
``client``, and the ``Cluster`` they add up to.

What it is not: a place where anything is decided about lists, errors or policies.
Every agent watches all pods for now; only a gateway needs more than its own, so a
later version gives nodes a field selector.

Who calls it: the agent, through ``interface.Source``.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from outgate.errors import SourceError
from outgate.policy.model import (
    BadPolicy,
    Cluster,
    EgressPolicy,
    Endpoint,
    Namespace,
    Node,
)
from outgate.source.client import Client
from outgate.source.history import PolicyHistory
from outgate.source.interface import KindStatistics
from outgate.source.objects import (
    NamespaceObject,
    NodeObject,
    PodObject,
    PolicyObject,
)
from outgate.source.watch import Failure, FetchPage, OpenWatch, Reflection, Wait
from outgate.source.wire import Kind, decoder
from outgate.state.entries import Network, NodeName

T = TypeVar("T")

PAGE_SIZE = 500
WATCH_SECONDS = 120
"""How long one watch lasts; shorter than ``client.IDLE_SECONDS``."""

NODES = Kind("nodes", "/api/v1/nodes", decoder(NodeObject))
NAMESPACES = Kind("namespaces", "/api/v1/namespaces", decoder(NamespaceObject))
PODS = Kind("pods", "/api/v1/pods", decoder(PodObject))
POLICIES = Kind(
    "ciliumegressnatpolicies",
    "/apis/cilium.io/v2alpha1/ciliumegressnatpolicies",
    decoder(PolicyObject),
    may_be_missing=True,
)


@dataclass(slots=True)
class _Watched(Generic[T]):
    """A kind and what is known of it."""

    kind: Kind[T]
    reflection: Reflection[T] = field(init=False)

    def __post_init__(self) -> None:
        self.reflection = Reflection(may_be_missing=self.kind.may_be_missing)


class KubernetesSource:
    """A ``Source`` behind *client*, which must be open while ``run`` runs."""

    def __init__(
        self,
        client: Client,
        node: NodeName,
        cluster_networks: Iterable[Network] = (),
    ) -> None:
        self.node = node
        self._client = client
        self._cluster_networks = tuple(cluster_networks)
        self._nodes: _Watched[Node] = _Watched(NODES)
        self._namespaces: _Watched[Namespace] = _Watched(NAMESPACES)
        self._pods: _Watched[Endpoint] = _Watched(PODS)
        self._policies: _Watched[EgressPolicy | BadPolicy] = _Watched(POLICIES)
        self._history = PolicyHistory()
        self._changed = asyncio.Event()
        self._cluster: Cluster | None = None

    @property
    def cluster(self) -> Cluster:
        """Return the cluster as known now; see ``interface.Source``."""
        if self._cluster is None:
            policies, bad_policies = self._history.split(
                self._policies.reflection.items.values()
            )
            self._cluster = Cluster(
                nodes=_by_key(self._nodes),
                namespaces=_by_key(self._namespaces),
                endpoints=_by_key(self._pods),
                policies=policies,
                bad_policies=bad_policies,
                cluster_networks=self._cluster_networks,
            )
        return self._cluster

    @property
    def is_listed(self) -> bool:
        """Return whether every kind had its first full list, ever."""
        return all(watched.reflection.is_listed for watched in self._kinds())

    @property
    def is_complete(self) -> bool:
        """Return whether that is so and no kind is failing."""
        return all(watched.reflection.is_complete for watched in self._kinds())

    @property
    def errors(self) -> Mapping[str, str]:
        """Return why kinds are failing, by kind; empty while all is well."""
        return {
            watched.kind.name: watched.reflection.error
            for watched in self._kinds()
            if watched.reflection.error is not None
        }

    def statistics(self) -> tuple[KindStatistics, ...]:
        """Return one row per kind."""
        return tuple(
            KindStatistics(
                kind=watched.kind.name,
                objects=len(watched.reflection.items),
                is_listed=watched.reflection.is_listed,
                lists=watched.reflection.lists,
                watches=watched.reflection.watches,
                events=watched.reflection.events,
                failures=watched.reflection.failures,
                error=watched.reflection.error,
            )
            for watched in self._kinds()
        )

    async def wait_changed(self) -> None:
        """Return when the cluster or its completeness may have changed."""
        await self._changed.wait()
        self._changed.clear()

    async def run(self) -> None:
        """Keep the cluster current until cancelled; failures are state, not raised."""
        async with asyncio.TaskGroup() as group:
            for watched in self._kinds():
                group.create_task(self._drive(watched), name=watched.kind.name)

    def _kinds(self) -> tuple[_Watched[Any], ...]:
        return self._nodes, self._namespaces, self._pods, self._policies

    async def _drive(self, watched: _Watched[T]) -> None:
        reflection = watched.reflection
        while True:
            try:
                match reflection.next_step(time.monotonic()):
                    case Wait(seconds):
                        await asyncio.sleep(seconds)
                    case FetchPage(token):
                        await self._fetch_page(watched, token)
                    case OpenWatch(version):
                        await self._watch(watched, version)
            except SourceError as e:
                self._note(_fail(reflection, Failure(e.status, str(e))))

    async def _fetch_page(self, watched: _Watched[T], token: str) -> None:
        params = {"limit": str(PAGE_SIZE)}
        if token:
            params["continue"] = token
        raw = await self._client.fetch(watched.kind.path, params)
        self._note(watched.reflection.receive_page(watched.kind.decode_page(raw)))

    async def _watch(self, watched: _Watched[T], version: str) -> None:
        reflection = watched.reflection
        params = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        async with self._client.watch(watched.kind.path, params) as lines:
            self._note(reflection.receive_opened(time.monotonic()))
            async for line in lines:
                event = watched.kind.decode_event(line)
                if isinstance(event, Failure):
                    self._note(_fail(reflection, event))
                    return
                self._note(reflection.receive_event(event))
        reflection.receive_end(time.monotonic(), random.random())

    def _note(self, has_changed: bool) -> None:
        if has_changed:
            self._cluster = None
            self._changed.set()


def _fail(reflection: Reflection[T], failure: Failure) -> bool:
    return reflection.receive_failure(failure, time.monotonic(), random.random())


def _by_key(watched: _Watched[T]) -> tuple[T, ...]:
    items = watched.reflection.items
    return tuple(items[key] for key in sorted(items))
