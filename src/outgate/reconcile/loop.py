"""
The loop: wait, observe, diff, apply, report.

Level-triggered: an event only says "look again", so lost, repeated and reordered
events are harmless.  Each round observes the kernel, compares it with the target,
applies the difference (adds before removes) and records each failure as state.
Nothing is removed while the target is partial knowledge.

It knows no Kubernetes word and no map: sides come as the protocols of ``ports``.
The agent runs it; what an OutgateError cannot explain is a bug, and ends it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from outgate.errors import OutgateError
from outgate.reconcile.ports import Desired, Kernel
from outgate.reconcile.retry import delay
from outgate.reconcile.status import Ledger, State
from outgate.state.entries import Key, Seconds, Value
from outgate.state.plan import Put, diff

RESYNC = Seconds(60.0)
"""The longest pause between two looks at the kernel, events or not."""


@dataclass(frozen=True, slots=True)
class Round:
    """
    What one round did.

    *error* is why the round could not be finished, None otherwise; then the counts
    are 0 and nothing is known about entries.
    """

    number: int
    seconds: Seconds
    added: int = 0
    removed: int = 0
    failed: int = 0
    kept: int = 0
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
        actual = await self._kernel.observe()
        target = self._desired.target(actual)
        keep = target.keep if target.is_complete else _keep_all
        plan = diff(target.snapshot, actual, keep)
        self.ledger.begin(target.snapshot, actual, plan, Seconds(started))
        failures = await self._kernel.apply(plan) if plan else {}
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
            kept=sum(status.state is State.KEPT for _, status in self.ledger),
            is_complete=target.is_complete,
        )


def _keep_all(key: Key, value: Value) -> bool:
    return True
