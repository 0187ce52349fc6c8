"""
Objects, one resourceVersion for all of them, and a bounded memory of changes.

What it is: per resource a map of (namespace, name) to serialised bytes and a small
index; every write takes the next resourceVersion and leaves one ``Change`` in that
resource's history. Whoever asks for a history that was cut off gets 410 Expired.
What it is not: rules. It takes what it is given: ``operations`` decides whether a
write is right. It does no I/O: a ``keep`` callable writes the journal *before* the
change is seen by anybody, a ``notify`` callable wakes watchers after.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from outgate.kubeapi.kinds import Kind
from outgate.kubeapi.status import expired
from outgate.kubeapi.wire import JsonObject, encode_json

Key = tuple[str, str]
"""Namespace (empty for cluster scope) and name."""

_SNAPSHOTS = 16
"""How many half-read lists may be continued; an older one gets 410."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One object at one version: its bytes, and what selectors need of it."""

    namespace: str
    name: str
    version: int
    labels: Mapping[str, str]
    fields: Mapping[str, str]
    raw: bytes

    @property
    def key(self) -> Key:
        return (self.namespace, self.name)

    def field(self, path: str) -> str:
        if path == "metadata.name":
            return self.name
        if path == "metadata.namespace":
            return self.namespace
        return self.fields.get(path, "")


@dataclass(frozen=True, slots=True)
class Change:
    """*before* is ``None`` for a new object; *gone* marks a removal."""

    version: int
    before: Stored | None
    after: Stored
    gone: bool = False


Keep = Callable[[str, Stored, bool], None]
"""(resource, object, gone): make it durable."""
Notify = Callable[[str], None]
"""A resource has a new change."""


@dataclass(slots=True)
class _Shelf:
    objects: dict[Key, Stored] = field(default_factory=dict)
    ordered: tuple[Stored, ...] | None = None
    changes: list[Change] = field(default_factory=list)
    forgotten: int = 0
    """Changes up to this version are no longer in *changes*."""


def _keep_nothing(resource: str, stored: Stored, gone: bool) -> None:
    """A store without a journal."""


def _tell_nobody(resource: str) -> None:
    """A store without watchers."""


def index(kind: Kind, obj: JsonObject, version: int) -> Stored:
    """Serialise *obj* and take from it what selectors will ask for."""
    meta = obj["metadata"]
    return Stored(
        namespace=meta.get("namespace") or "",
        name=meta["name"],
        version=version,
        labels=meta.get("labels") or {},
        fields=kind.field_values(obj),
        raw=encode_json(obj),
    )


class Storage:
    """The one copy of every object; see the module."""

    def __init__(
        self,
        *,
        history: int,
        keep: Keep = _keep_nothing,
        notify: Notify = _tell_nobody,
    ) -> None:
        self._history = history
        self._keep = keep
        self._notify = notify
        self._shelves: dict[str, _Shelf] = {}
        self._snapshots: dict[tuple[str, int], tuple[Stored, ...]] = {}
        self._forgotten = 0
        self.version = 1

    def restore(self, objects: Iterable[tuple[str, Stored]], version: int) -> None:
        """Take back what a journal kept; older watches must list again."""
        for resource, stored in objects:
            self._shelf(resource).objects[stored.key] = stored
        self.version = max(version, self.version)
        self._forgotten = self.version
        for shelf in self._shelves.values():
            shelf.forgotten = self.version

    def _shelf(self, resource: str) -> _Shelf:
        shelf = self._shelves.get(resource)
        if shelf is None:
            shelf = self._shelves[resource] = _Shelf(forgotten=self._forgotten)
        return shelf

    def get(self, resource: str, key: Key) -> Stored | None:
        return self._shelf(resource).objects.get(key)

    def objects(self, resource: str) -> tuple[Stored, ...]:
        """All objects of *resource*, sorted by namespace, then name."""
        shelf = self._shelf(resource)
        if shelf.ordered is None:
            keys = sorted(shelf.objects)
            shelf.ordered = tuple(shelf.objects[key] for key in keys)
        return shelf.ordered

    def freeze(self, resource: str) -> int:
        """Remember the list as it is now, to be continued; returns its version."""
        self._snapshots[resource, self.version] = self.objects(resource)
        while len(self._snapshots) > _SNAPSHOTS:
            del self._snapshots[next(iter(self._snapshots))]
        return self.version

    def frozen(self, resource: str, version: int) -> tuple[Stored, ...]:
        snapshot = self._snapshots.get((resource, version))
        if snapshot is None:
            raise expired(
                "The provided continue parameter is too old to display a consistent "
                "list result. You must start a new list without it."
            )
        return snapshot

    def put(self, kind: Kind, obj: JsonObject) -> Stored:
        """Store *obj* under the next version, which is written into it."""
        version = self.version + 1
        obj["metadata"]["resourceVersion"] = str(version)
        stored = index(kind, obj, version)
        shelf = self._shelf(kind.resource)
        before = shelf.objects.get(stored.key)
        self._keep(kind.resource, stored, False)
        self.version = version
        shelf.objects[stored.key] = stored
        self._record(kind.resource, shelf, Change(version, before, stored))
        return stored

    def remove(self, kind: Kind, obj: JsonObject) -> Stored:
        """Remove *obj*; its last state carries the version of the removal."""
        version = self.version + 1
        obj["metadata"]["resourceVersion"] = str(version)
        stored = index(kind, obj, version)
        shelf = self._shelf(kind.resource)
        self._keep(kind.resource, stored, True)
        self.version = version
        before = shelf.objects.pop(stored.key, None)
        self._record(kind.resource, shelf, Change(version, before, stored, gone=True))
        return stored

    def _record(self, resource: str, shelf: _Shelf, change: Change) -> None:
        shelf.ordered = None
        shelf.changes.append(change)
        # Cut in lumps, so that a write does not move the whole history.
        if len(shelf.changes) >= 2 * self._history:
            cut = len(shelf.changes) - self._history
            shelf.forgotten = shelf.changes[cut - 1].version
            del shelf.changes[:cut]
        self._notify(resource)

    def changes_since(self, resource: str, version: int) -> list[Change]:
        """
        Changes after *version*, oldest first.

        Errors: 410 when some of them are forgotten; the caller must list again.
        """
        shelf = self._shelf(resource)
        if version < shelf.forgotten:
            raise expired(f"too old resource version: {version} ({shelf.forgotten})")
        start = bisect_right(shelf.changes, version, key=lambda change: change.version)
        return shelf.changes[start:]
