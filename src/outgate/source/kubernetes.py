"""
The cluster from a Kubernetes API: nodes, namespaces, pods, egress policies, networks.

What it is: one informer per kind, and what changed in all of them since the last look.
A node follows its own pods and, as a gateway, those that its policies select.

What it is not: a place where anything is decided about lists, errors or policies.

Who calls it: the agent, through ``interface.Source``, and the controller.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import replace
from typing import Any, TypeVar

from outgate.policy.model import ClusterChanges, Endpoint, PodQuery
from outgate.source.client import Client
from outgate.source.informer import Informer, OnChange
from outgate.source.interface import KindStatistics
from outgate.source.kinds import (
    API_SERVERS,
    GATEWAY_POLICIES,
    NAMESPACES,
    NAT_POLICIES,
    NODES,
    PODS,
    SERVICE_NETWORKS,
)
from outgate.source.peer import Peer
from outgate.source.pods import SelectedPods
from outgate.source.timing import DEFAULT_TIMING, Timing
from outgate.source.wire import Kind
from outgate.state.entries import Network, NodeName

T = TypeVar("T")

SETTINGS = "settings"
"""The key of the cluster networks that were configured."""


class KubernetesSource:
    """
    A ``Source`` behind *client*, which must be open while ``run`` runs.

    *node* is whose pods are followed at any rate; None: all pods.
    """

    def __init__(
        self,
        client: Client,
        node: NodeName | None,
        cluster_networks: Iterable[Network] = (),
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        self.node = node
        self._client = client
        self._timing = timing
        self._peer = Peer(client, timing)
        self._changed = asyncio.Event()
        self._changes = ClusterChanges()
        own = {"fieldSelector": f"spec.nodeName={node}"} if node else {}
        self._pods = SelectedPods(self._make_pods, own, self._note_pods)
        nodes = frozenset({str(node)} if node else ())
        self._kinds: tuple[Informer[Any], ...] = (
            self._make(NODES, lambda c: c.nodes, anchors=nodes),
            self._make(
                NAMESPACES,
                lambda c: c.namespaces,
                anchors=frozenset({"kube-system"}),
            ),
            self._make(NAT_POLICIES, lambda c: c.policies, "CiliumEgressNATPolicy/"),
            self._make(
                GATEWAY_POLICIES, lambda c: c.policies, "CiliumEgressGatewayPolicy/"
            ),
            self._make(SERVICE_NETWORKS, lambda c: c.networks, "ServiceCIDR/"),
            self._make(
                API_SERVERS,
                lambda c: c.networks,
                "EndpointSlice/",
                {"labelSelector": "kubernetes.io/service-name=kubernetes"},
            ),
            self._pods.base,
        )
        if networks := tuple(cluster_networks):
            self._changes.networks[SETTINGS] = networks

    def take_changes(self) -> ClusterChanges:
        """Return what changed since the last call; see ``interface.Source``."""
        taken, self._changes = self._changes, ClusterChanges()
        return taken

    def need_pods(self, queries: Set[PodQuery]) -> None:
        """Say which pods are needed beside those of this node."""
        self._pods.need(queries)

    @property
    def is_listed(self) -> bool:
        """Return whether every kind had its first full list, ever."""
        return all(informer.is_listed for informer in self._kinds)

    @property
    def is_complete(self) -> bool:
        """Return whether that is so, no kind is failing, and no pods are awaited."""
        is_well = all(informer.is_complete for informer in self._kinds)
        return is_well and self._pods.is_complete

    @property
    def errors(self) -> Mapping[str, str]:
        """Return why kinds are failing, by kind; empty while all is well."""
        rows = self.statistics()
        return {row.kind: row.error for row in rows if row.error is not None}

    def statistics(self) -> tuple[KindStatistics, ...]:
        """Return one row per kind; the pods of all queries are one kind."""
        rows = [informer.statistics() for informer in self._kinds]
        selected = [i.statistics() for i in self._pods.queries.values()]
        if selected:
            rows.append(_add_up("selected pods", selected))
        return tuple(rows)

    async def wait_changed(self) -> None:
        """Return when the cluster or its completeness may have changed."""
        await self._changed.wait()
        self._changed.clear()

    async def run(self) -> None:
        """Keep the cluster current until cancelled; failures are state, not raised."""
        try:
            async with asyncio.TaskGroup() as group:
                for informer in self._kinds:
                    if informer is not self._pods.base:
                        group.create_task(informer.run(), name=informer.kind.name)
                self._pods.start(group)
                group.create_task(self._peer.follow(self._interrupt), name="peer")
        finally:
            self._peer.close()

    def _interrupt(self, reason: str) -> None:
        for informer in (*self._kinds, *self._pods.queries.values()):
            informer.interrupt(reason)

    def _make(
        self,
        kind: Kind[T],
        part: Callable[[ClusterChanges], dict[str, T | None]],
        prefix: str = "",
        selector: Mapping[str, str] | None = None,
        anchors: Set[str] = frozenset(),
    ) -> Informer[T]:
        """Return an informer whose changes go to *part*, keys with *prefix*."""

        def note(keys: Collection[str]) -> None:
            changes = part(self._changes)
            for key in keys:
                changes[prefix + key] = informer.get(key)
            self._changed.set()

        informer = Informer(
            self._client,
            kind,
            note,
            selector=selector,
            anchors=anchors,
            peer=self._peer,
            timing=self._timing,
        )
        return informer

    def _make_pods(
        self, namespace: str, selector: Mapping[str, str], on_change: OnChange
    ) -> Informer[Endpoint]:
        path = f"/api/v1/namespaces/{namespace}/pods" if namespace else PODS.path
        return Informer(
            self._client,
            replace(PODS, path=path),
            on_change,
            selector=selector,
            peer=self._peer,
            timing=self._timing,
        )

    def _note_pods(self, keys: Collection[str]) -> None:
        for key in keys:
            self._changes.pods[key] = self._pods.get(key)
        self._changed.set()


def _add_up(kind: str, rows: Iterable[KindStatistics]) -> KindStatistics:
    rows = tuple(rows)
    return KindStatistics(
        kind=kind,
        objects=sum(row.objects for row in rows),
        is_listed=all(row.is_listed for row in rows),
        lists=sum(row.lists for row in rows),
        watches=sum(row.watches for row in rows),
        events=sum(row.events for row in rows),
        failures=sum(row.failures for row in rows),
        error=next((row.error for row in rows if row.error is not None), None),
    )
