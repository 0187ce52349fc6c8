"""
The pods of several lists as one: those of this node and those that policies select.

What it is: which lists are followed, when a list that is no longer needed may go, and
which pod counts where two lists differ for a moment.  A pod stays until the last list
that holds it lets go of it; a list goes only after all that are needed are there.

What it is not: a knower of policies; ``policy`` says which pods are needed.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence, Set

from outgate.policy.model import Endpoint, PodQuery
from outgate.source.informer import Informer, OnChange
from outgate.source.watch import Held

MakeInformer = Callable[[str, Mapping[str, str], OnChange], Informer[Endpoint]]
"""Of a namespace (empty: all), query parameters, and whom to tell."""


class SelectedPods:
    """
    All pods that are followed.

    *selector* is what the first list is asked for; it stays for ever.  *on_change* is
    called as by an informer, with the keys of pods that differ from what ``get`` said.
    """

    def __init__(
        self, make: MakeInformer, selector: Mapping[str, str], on_change: OnChange
    ) -> None:
        self._make = make
        self._on_change = on_change
        self._pods: dict[str, Endpoint] = {}
        self._needed: Set[PodQuery] = frozenset()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[PodQuery, asyncio.Task[None]] = {}
        self.queries: dict[PodQuery, Informer[Endpoint]] = {}
        self.base = make("", selector, self._merge)

    def get(self, key: str) -> Endpoint | None:
        """Return the pod of that key."""
        return self._pods.get(key)

    @property
    def is_complete(self) -> bool:
        """Return whether all pods that are needed are there, and all is well."""
        return self.base.is_complete and all(
            self.queries[query].is_complete for query in self._needed
        )

    def need(self, queries: Set[PodQuery]) -> None:
        """Follow the pods of *queries* beside the first list, and soon no others."""
        if queries == self._needed:
            return
        self._needed = frozenset(queries)
        for query in sorted(queries - self.queries.keys(), key=_by_text):
            selector = {"labelSelector": query.labels} if query.labels else {}
            made = self._make(query.namespace, selector, self._merge)
            self.queries[query] = made
            self._start(query)
        self._drop_former()

    def start(self, group: asyncio.TaskGroup) -> None:
        """Follow all lists in *group*, also those that come later."""
        self._group = group
        self._tasks = {}
        group.create_task(self.base.run(), name=self.base.kind.name)
        for query in self.queries:
            self._start(query)

    def _start(self, query: PodQuery) -> None:
        if self._group is not None:
            self._tasks[query] = self._group.create_task(
                self.queries[query].run(), name=f"pods {query}"
            )

    def _drop_former(self) -> None:
        """Let go of lists that are not needed, once the needed ones are there."""
        former = self.queries.keys() - self._needed
        if not former or not all(self.queries[q].is_listed for q in self._needed):
            return
        keys: set[str] = set()
        for query in former:
            keys |= self.queries.pop(query).items.keys()
            task = self._tasks.pop(query, None)
            if task is not None:
                task.cancel()
        self._merge(keys)

    def _merge(self, keys: Collection[str]) -> None:
        """Bring the pods of *keys* up to date and tell which differ now."""
        lists = [i.items for i in (self.base, *self.queries.values())]
        changed = [key for key in keys if self._merge_pod(key, lists)]
        self._on_change(changed)
        self._drop_former()

    def _merge_pod(
        self, key: str, lists: Sequence[Mapping[str, Held[Endpoint]]]
    ) -> bool:
        found = [held for items in lists if (held := items.get(key)) is not None]
        former = self._pods.get(key)
        if not found:
            self._pods.pop(key, None)
            return former is not None
        newest = max(found, key=_order).value if len(found) > 1 else found[0].value
        self._pods[key] = newest
        return newest is not former and newest != former


def _order(held: Held[Endpoint]) -> int:
    return held.order


def _by_text(query: PodQuery) -> tuple[str, str]:
    return query.namespace, query.labels
