"""
The entries that a node should have, and which of them changed.

What it is: where ``engine`` writes, and nobody else; what equals the former value is no
change.
"""

from collections.abc import Set

from outgate.policy.rows import RowPool
from outgate.state.entries import Key, RowSet, RowsKey, Value


class Wanted:
    """*entries*, and the keys *touched* since they were last taken."""

    def __init__(self, entries: dict[Key, Value], pool: RowPool) -> None:
        self.entries = entries
        self.touched = set(entries)
        self._pool = pool

    def put(self, key: Key, value: Value | None) -> None:
        """Let *key* have *value*, or with None be gone."""
        if self.entries.get(key) == value:
            return
        self.touched.add(key)
        if value is None:
            del self.entries[key]
        else:
            self.entries[key] = value

    def put_rows(self, key: RowsKey, rows: RowSet | None) -> None:
        """Let *key* have *rows*, taken from the pool; its former ones go back there."""
        old = self.entries.get(key)
        if rows is None:
            if old is not None:
                self.touched.add(key)
                del self.entries[key]
        elif rows is not old:
            # Rows that only equal the old ones may name other interfaces.
            self.entries[key] = rows
            if rows != old:
                self.touched.add(key)
        if isinstance(old, RowSet):
            self._pool.release(old)

    def take_touched(self) -> Set[Key]:
        """Return the keys touched since the last call."""
        touched, self.touched = self.touched, set()
        return touched
