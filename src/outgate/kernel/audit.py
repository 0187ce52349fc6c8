"""
The check of what is remembered: all maps compared with the kernel, a slice at a time.

Memory lies when somebody else writes a map, or when we are wrong; so once a minute all
rows are read again and compared.  What differs is corrected in memory and looked at by
the next round, which repairs it.  A pass takes its time: after each slice of about a
millisecond it rests for fifty, so that a million rows cost one or two percent of a CPU
and nobody waits for them.

Called by ``kernel.linux``.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

from outgate.kernel.entrytable import EntryTables
from outgate.kernel.held import Held
from outgate.kernel.maps import EGRESS, ENTRY_MAPS
from outgate.kernel.rowtable import RowTable

PERIOD_SECONDS = 60.0
"""From the end of one pass to the next."""

ROWS_AT_ONCE = 2048
"""Rows of pods in a slice: about a millisecond, since a pod's are compared at once."""

ENTRIES_AT_ONCE = 128
"""The same of entries, which are decoded one by one."""

REST = 50
"""How many times as long as a slice took the pass rests."""

Rest = Callable[[float], Awaitable[None]]


async def rest(seconds: float) -> None:
    """Rest after a slice that took so many *seconds* of CPU."""
    await asyncio.sleep(REST * seconds)


class Auditor:
    """Compares *rows* and *entries* with *held* while nobody has the lock *writing*."""

    def __init__(
        self, rows: RowTable, entries: EntryTables, held: Held, writing: asyncio.Lock
    ) -> None:
        self._rows = rows
        self._entries = entries
        self._held = held
        self._writing = writing

    async def check(
        self,
        found: Callable[[], None],
        rest: Rest = rest,
        rows_at_once: int = ROWS_AT_ONCE,
    ) -> None:
        """Do one pass; call *found* when *held* was corrected.  Errors: KernelError."""
        self._held.begin_pass()
        try:
            slices = self._slices(rows_at_once)
            while await self._step(slices, rest):
                if self._held.touched:
                    found()
        finally:
            self._held.end_pass()

    async def _step(self, slices: Iterator[None], rest: Rest) -> bool:
        """Compare one slice, and rest; False when there was none left."""
        async with self._writing:
            started = time.thread_time()
            try:
                next(slices)
            except StopIteration:
                return False
            taken = time.thread_time() - started
        await rest(taken)
        return True

    def _slices(self, rows_at_once: int) -> Iterator[None]:
        for name in sorted(ENTRY_MAPS):
            yield from self._entries.audit(name, min(rows_at_once, ENTRIES_AT_ONCE))
        for family in EGRESS:
            yield from self._rows.audit(family, rows_at_once)
