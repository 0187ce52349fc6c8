"""
What the kernel holds, as far as we wrote or read it: the memory that audits check.

``entries`` is what the loop plans from.  Only two things change it: an operation that
the kernel carried out (``hold``), and a look at the kernel that found something else
(``correct``), which also makes the key one to be looked at.  Pure.
"""

from collections.abc import Sequence

from outgate.kernel.uplinks import Peers
from outgate.state.entries import IpcacheKey, Key, RowSet, RowsKey, Value


class Held:
    """*touched* is None until everything has been read."""

    def __init__(self) -> None:
        self.entries: dict[Key, Value] = {}
        self.touched: set[Key] | None = None
        self.peers = Peers()
        self._written: set[Key] | None = None

    def hold(self, key: Key, value: Value | None) -> None:
        """Remember that *key* holds *value* now, None for nothing."""
        if self._written is not None:
            self._written.add(key)
        if isinstance(key, IpcacheKey):
            self.peers.changed(key, self.entries.get(key), value)
        if value is None:
            self.entries.pop(key, None)
        else:
            self.entries[key] = value

    def hold_rows(self, keys: Sequence[RowsKey], rows: RowSet | None) -> None:
        """Remember that pods have *rows* now, as ``hold`` does, for many at once."""
        if self._written is not None:
            self._written.update(keys)
        if rows is None:
            for key in keys:
                self.entries.pop(key, None)
        else:
            self.entries.update(dict.fromkeys(keys, rows))

    def correct(self, key: Key, value: Value | None) -> None:
        """Learn that *key* holds *value*, which is not what was remembered."""
        self.hold(key, value)
        if self.touched is not None:
            self.touched.add(key)

    def lose(self, key: Key) -> None:
        """Learn that a pass did not find *key*, which may have been written since."""
        if key in self.entries and not self.is_written(key):
            self.correct(key, None)

    def begin_pass(self) -> None:
        """Note from now on which keys are written."""
        self._written = set()

    def end_pass(self) -> None:
        """Note it no longer."""
        self._written = None

    def is_written(self, key: Key) -> bool:
        """Tell whether *key* was written since the pass began."""
        return self._written is not None and key in self._written

    def take_touched(self) -> set[Key] | None:
        """Return the keys that were corrected since the last call; None means all."""
        touched, self.touched = self.touched, set()
        return touched
