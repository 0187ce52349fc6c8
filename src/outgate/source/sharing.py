"""
One object for equal label mappings.

What it is: a table by content.  The pods of one workload carry the same labels, and
at a hundred thousand pods their copies would be most of what an agent holds.

What it is not: a cache that decides anything; forgetting all of it costs memory only.
"""

import sys
from collections.abc import Mapping

MAX_ENTRIES = 16_384
"""Labels that no living object has stay here until the table is this full."""

_table: dict[int, Mapping[str, str]] = {}
"""Labels by the hash of their content; of two with one hash, the later."""


def share_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Return a mapping equal to *labels*, the same one for equal arguments."""
    number = hash(frozenset(labels.items()))
    shared = _table.get(number)
    if shared != labels:
        if len(_table) >= MAX_ENTRIES:
            _table.clear()
        shared = {sys.intern(name): sys.intern(text) for name, text in labels.items()}
        _table[number] = shared
    return shared
