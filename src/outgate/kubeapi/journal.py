"""
The store on disk: one SQLite file, so that a killed API comes back as it was.

What it is: a row per object and one number, the last resourceVersion; each write is
one transaction, done before any client hears of it.
What it is not: safe against loss of power. ``synchronous=OFF`` leaves the flush to
the kernel: a killed process loses nothing, a killed machine may.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from outgate.kubeapi.storage import Stored
from outgate.kubeapi.wire import JsonObject, decode_json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    resource TEXT, namespace TEXT, name TEXT, version INTEGER, raw BLOB,
    PRIMARY KEY (resource, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY, version INTEGER);
"""


class Journal:
    """Open, read once, then append; one process at a time."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_SCHEMA)

    def version(self) -> int:
        row = self._db.execute("SELECT version FROM counter WHERE id = 0").fetchone()
        return int(row[0]) if row else 0

    def objects(self, resource: str) -> Iterator[tuple[int, JsonObject]]:
        """Version and content of every kept object of *resource*."""
        rows = self._db.execute(
            "SELECT version, raw FROM objects WHERE resource = ?", (resource,)
        )
        for version, raw in rows:
            yield int(version), decode_json(raw)

    def keep(self, resource: str, stored: Stored, gone: bool) -> None:
        """Write one change and its version, both or neither."""
        self._db.execute("BEGIN")
        if gone:
            self._db.execute(
                "DELETE FROM objects WHERE resource=? AND namespace=? AND name=?",
                (resource, stored.namespace, stored.name),
            )
        else:
            self._db.execute(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)",
                (resource, stored.namespace, stored.name, stored.version, stored.raw),
            )
        self._db.execute(
            "INSERT OR REPLACE INTO counter VALUES (0, ?)", (stored.version,)
        )
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()
