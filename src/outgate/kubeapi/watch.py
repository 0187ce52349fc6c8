"""
One watch: where it stands in the history, and the lines it still has to send.

What it is: a cursor. ``take`` returns what happened since the last call, so a slow
client costs no memory; one that is slower than the history gets an ERROR event with
410 and must list again.
What it is not: waiting; the server calls ``take`` whenever something changed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from outgate.kubeapi.listing import View, encode_item, is_selected
from outgate.kubeapi.objects import as_version
from outgate.kubeapi.protocol import ListOptions, Location, Shape
from outgate.kubeapi.status import ApiError, expired
from outgate.kubeapi.storage import Change, Storage, Stored
from outgate.kubeapi.table import make_table
from outgate.kubeapi.wire import JsonObject, encode_json

_INITIAL_END = "k8s.io/initial-events-end"


class Watch:
    """Made for one request; ``is_over`` is set by the ERROR event."""

    def __init__(
        self,
        storage: Storage,
        location: Location,
        options: ListOptions,
        view: View,
        clock: Callable[[], datetime],
    ) -> None:
        self._storage = storage
        self._location = location
        self._options = options
        self._view = view
        self._clock = clock
        self._has_columns = False
        self._cursor = storage.version
        self.is_over = False

    def start(self) -> list[bytes]:
        """
        The first lines: what is there already, unless a version says otherwise.

        Without a version, or with ``0``, everything present comes as ADDED; with
        ``sendInitialEvents`` a marked bookmark ends it; with a version N only what
        came after N.
        """
        options = self._options
        wanted = int(options.version or 0)
        has_initial = options.initial_events
        if has_initial is None:
            has_initial = wanted == 0
        if wanted > self._storage.version:
            # A client of a store that lost its past: make it list again.
            return [self._error(expired(f"too large resource version: {wanted}"))]
        if has_initial:
            name = self._location.resource.kind.resource
            present = [s for s in self._storage.objects(name) if self._selects(s)]
            lines = [self._line("ADDED", stored) for stored in present]
            if options.initial_events and options.bookmarks:
                lines.append(self.bookmark({_INITIAL_END: "true"}))
            return lines
        if wanted:
            self._cursor = wanted
        return self.take()

    def take(self) -> list[bytes]:
        """Lines for everything since the last call."""
        name = self._location.resource.kind.resource
        try:
            changes = self._storage.changes_since(name, self._cursor)
        except ApiError as error:
            return [self._error(error)]
        self._cursor = self._storage.version
        return [line for change in changes if (line := self._change_line(change))]

    def _selects(self, stored: Stored | None) -> bool:
        return stored is not None and is_selected(self._location, self._options, stored)

    def _change_line(self, change: Change) -> bytes:
        """What *change* is for this watch: a selector can turn it into another."""
        was, now = self._selects(change.before), self._selects(change.after)
        if change.gone:
            return self._line("DELETED", change.after) if was or now else b""
        if was and now:
            return self._line("MODIFIED", change.after)
        if now:
            return self._line("ADDED", change.after)
        return self._line("DELETED", change.after) if was else b""

    def _line(self, event: str, stored: Stored) -> bytes:
        if self._view.shape is not Shape.TABLE:
            body = encode_item(self._location, stored, self._view)
        else:
            body = encode_json(
                self._table([as_version(self._location.resource, stored)])
            )
        return b'{"type":"' + event.encode() + b'","object":' + body + b"}\n"

    def _table(self, objects: list[JsonObject]) -> JsonObject:
        table = make_table(
            self._location.resource,
            objects,
            self._clock(),
            include=self._view.include,
            with_columns=not self._has_columns,
        )
        self._has_columns = True
        return table

    def bookmark(self, annotations: dict[str, str] | None = None) -> bytes:
        """A line that only says how far this watch has come."""
        kind = self._location.resource.kind
        metadata: JsonObject = {"resourceVersion": str(self._cursor)}
        if annotations:
            metadata["annotations"] = annotations
        if self._view.shape is Shape.TABLE:
            obj = self._table([]) | {"metadata": metadata}
        else:
            obj = {
                "kind": kind.kind,
                "apiVersion": kind.api_version,
                "metadata": metadata | {"creationTimestamp": None},
            }
        return encode_json({"type": "BOOKMARK", "object": obj}) + b"\n"

    def _error(self, error: ApiError) -> bytes:
        self.is_over = True
        return encode_json({"type": "ERROR", "object": error.status}) + b"\n"
