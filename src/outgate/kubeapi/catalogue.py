"""
The kinds that are served now: the built-in ones, and those of accepted CRDs.

What it is: look-up by URL and by name; it changes when a CRD does.
What it is not: the objects (``storage``) nor the CRD's rules (``crds``).
"""

from __future__ import annotations

from collections.abc import Iterator

from outgate.kubeapi.crds import Resource, crd_resources
from outgate.kubeapi.kinds import BUILT_IN_KINDS
from outgate.kubeapi.schema import Schema
from outgate.kubeapi.typetable import built_in_schema
from outgate.kubeapi.wire import JsonObject


class Catalogue:
    """What discovery shows; ``revision`` changes whenever it does."""

    def __init__(self) -> None:
        metadata = built_in_schema("ObjectMeta")
        self._built_in = tuple(
            Resource(kind, Schema(built_in_schema(kind.kind), metadata))
            for kind in BUILT_IN_KINDS
        )
        self._custom: dict[str, tuple[Resource, ...]] = {}
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self.revision = 0
        self._reindex()

    def _reindex(self) -> None:
        self._by_path = {(r.kind.group, r.kind.version, r.kind.plural): r for r in self}
        self.revision += 1

    def __iter__(self) -> Iterator[Resource]:
        yield from self._built_in
        for resources in self._custom.values():
            yield from resources

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_path.get((group, version, plural))

    def built_in(self, kind: str) -> Resource:
        return next(r for r in self._built_in if r.kind.kind == kind)

    def stored(self) -> Iterator[Resource]:
        """One resource per stored name, whichever version it is kept in."""
        seen = set()
        for resource in self:
            if resource.kind.resource not in seen:
                seen.add(resource.kind.resource)
                yield resource

    def serve(self, crd: JsonObject) -> None:
        """Serve the kinds of *crd*, in place of what it served before."""
        resources = crd_resources(crd)
        resources.sort(key=lambda resource: not resource.is_storage)
        self._custom[crd["metadata"]["name"]] = tuple(resources)
        self._reindex()

    def withdraw(self, crd_name: str) -> None:
        if self._custom.pop(crd_name, None) is not None:
            self._reindex()
