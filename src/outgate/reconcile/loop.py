"""
The loop: wait, observe, diff, apply, report.

Level-triggered: an event only says "look again", so lost, repeated and reordered
events are harmless.  Each round compares what the kernel holds with the target where
either side says that it may differ, and where an entry is open; applies the difference
(adds before removes) and records each failure as state.  Nothing is removed while the
target is partial knowledge.

It knows no Kubernetes word and no map: sides come as the protocols of ``ports``.
The agent runs it; what an OutgateError cannot explain is a bug, and ends it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from outgate.errors import OutgateError
from outgate.reconcile.ports import Desired, Kernel
from outgate.reconcile.retry import delay
from outgate.reconcile.status import Ledger, State
from outgate.state.entries import Key, Seconds
from outgate.state.plan import Put, diff, keep_but_inheritances

RESYNC = Seconds(60.0)
"""The longest pause between two rounds, events or not: a sign of life."""


@dataclass(frozen=True, slots=True)
class Round:
    """
    What one round did.

    *error* is why the round could not be finished, None otherwise; then the counts
    are 0 and nothing is known about entries.  The rows of one pod count as one entry.
    *touched* is how many keys were looked at, None for all of them.
    """

    number: int
    seconds: Seconds
    added: int = 0
    removed: int = 0
    failed: int = 0
    kept: int = 0
    touched: int | None = 0
    is_complete: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """The clock, and how long a quiet loop pauses; both are arguments of tests."""

    clock: Callable[[], float] = time.monotonic
    resync: Seconds = RESYNC


class Reconciler:
    """Brings *kernel* to what *desired* says, for as long as ``run`` runs."""

    def __init__(
        self,
        kernel: Kernel,
        desired: Desired,
        report: Callable[[Round], None],
        pace: Pace | None = None,
    ) -> None:
        self._kernel = kernel
        self._desired = desired
        self._report = report
        self._pace = pace or Pace()
        self._wake = asyncio.Event()
        self._rounds = 0
        self._broken_rounds = 0
        self._unfinished: set[Key] | None = None
        self.ledger = Ledger()
        self.last_round: Round | None = None

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._forward(self._kernel.wait_changed))
            tasks.create_task(self._forward(self._desired.wait_changed))
            while True:
                self._wake.clear()
                await self.reconcile()
                await self._pause()

    async def _forward(self, wait_changed: Callable[[], Awaitable[None]]) -> None:
        while True:
            await wait_changed()
            self._wake.set()

    async def _pause(self) -> None:
        """Wait for a change, the next attempt or the resync, whatever is first."""
        if self._broken_rounds:
            # A broken side may call at once, again and again, and no entry that is
            # due could be tried: wait for the delay.
            await asyncio.sleep(delay(self._broken_rounds))
            return
        pause = float(self._pace.resync)
        due = self.ledger.next_attempt()
        if due is not None:
            pause = min(pause, max(due - self._pace.clock(), 0.0))
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            return

    async def reconcile(self) -> Round:
        """Do one round; what fails is recorded and reported, not raised."""
        self._rounds += 1
        started = self._pace.clock()
        try:
            done = await self._reconcile(started)
            self._broken_rounds = 0
        except OutgateError as error:
            self._broken_rounds += 1
            seconds = Seconds(self._pace.clock() - started)
            done = Round(self._rounds, seconds, error=str(error))
        self.last_round = done
        self._report(done)
        return done

    async def _reconcile(self, started: float) -> Round:
        observed = await self._kernel.observe()
        self._look_at(observed.touched)
        actual = observed.snapshot
        target = self._desired.target(actual)
        self._look_at(target.touched)
        # What partial knowledge keeps can only be let go of once it is complete.
        self._look_at(
            [
                key
                for key, status in self.ledger.open.items()
                if target.is_complete or status.state is not State.KEPT
            ]
        )
        touched = self._unfinished
        keep = target.keep
        if not target.is_complete:
            keep = keep_but_inheritances(target.snapshot, actual, keep)
        plan = diff(target.snapshot, actual, keep, touched)
        self.ledger.begin(target.snapshot, actual, plan, Seconds(started), touched)
        failures = await self._kernel.apply(plan) if plan else {}
        self._unfinished = set()
        now = Seconds(self._pace.clock())
        self.ledger.finish(plan, failures, now)
        succeeded = [step for step in plan if step.key not in failures]
        added = sum(isinstance(step, Put) for step in succeeded)
        return Round(
            number=self._rounds,
            seconds=Seconds(now - started),
            added=added,
            removed=len(succeeded) - added,
            failed=len(failures),
            kept=sum(s.state is State.KEPT for s in self.ledger.open.values()),
            touched=None if touched is None else len(touched),
            is_complete=target.is_complete,
        )

    def _look_at(self, touched: Collection[Key] | None) -> None:
        """Add to the keys of this round, among which are those of a broken one."""
        if touched is None:
            self._unfinished = None
        elif self._unfinished is not None:
            self._unfinished.update(touched)
