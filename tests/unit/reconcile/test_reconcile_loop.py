import asyncio
import errno
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

from outgate.errors import KernelError, SourceError
from outgate.kernel.fake import FakeKernel
from outgate.reconcile.loop import Pace, Reconciler, Round
from outgate.reconcile.ports import Target
from outgate.reconcile.status import State
from outgate.state.entries import (
    Key,
    NodeEntry,
    NodeKey,
    NoGateway,
    PolicyId,
    PolicyKey,
    Seconds,
    Value,
)
from outgate.state.snapshot import Snapshot

A, B = NodeKey(IPv4Address("172.18.0.4")), NodeKey(IPv4Address("172.18.0.5"))
ENTRY = NodeEntry()
ROW = PolicyKey(IPv4Address("10.0.1.42"), IPv4Network("172.18.0.0/16"))


class Wanted:
    """A desired side that tests set."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.is_complete = True
        self.error: SourceError | None = None
        self.keep: Callable[[Key, Value], bool] = lambda key, value: False
        self.changed = asyncio.Event()

    def target(self, actual: Snapshot) -> Target:
        if self.error:
            raise self.error
        return Target(self.snapshot, self.is_complete, self.keep)

    async def wait_changed(self) -> None:
        await self.changed.wait()
        self.changed.clear()


class Bench:
    """A fake kernel, a desired side and the loop between them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.kernel = FakeKernel()
        self.wanted = Wanted(snapshot)
        self.rounds: asyncio.Queue[Round] = asyncio.Queue()
        self.now = 100.0
        pace = Pace(clock=lambda: self.now, resync=Seconds(3600))
        self.loop = Reconciler(self.kernel, self.wanted, self.rounds.put_nowait, pace)

    async def round(self) -> Round:
        return await self.loop.reconcile()


async def test_one_round_brings_the_kernel_to_the_target() -> None:
    bench = Bench({A: ENTRY, B: ENTRY})
    done = await bench.round()

    assert await bench.kernel.observe() == {A: ENTRY, B: ENTRY}
    assert done == Round(1, Seconds(0), added=2, is_complete=True)


async def test_what_is_no_longer_wanted_is_removed() -> None:
    bench = Bench({A: ENTRY, B: ENTRY})
    await bench.round()
    bench.wanted.snapshot = {A: ENTRY}
    done = await bench.round()

    assert await bench.kernel.observe() == {A: ENTRY}
    assert done.removed == 1


async def test_nothing_is_removed_on_partial_knowledge() -> None:
    bench = Bench({A: ENTRY, B: ENTRY})
    await bench.round()
    bench.wanted.snapshot, bench.wanted.is_complete = {}, False
    done = await bench.round()

    assert await bench.kernel.observe() == {A: ENTRY, B: ENTRY}
    assert (done.removed, done.kept) == (0, 2)


async def test_entries_are_added_on_partial_knowledge() -> None:
    bench = Bench({A: ENTRY})
    bench.wanted.is_complete = False
    await bench.round()

    assert await bench.kernel.observe() == {A: ENTRY}


async def test_kept_entries_stay_although_the_target_lacks_them() -> None:
    bench = Bench({ROW: NoGateway(PolicyId(7)), A: ENTRY})
    await bench.round()
    bench.wanted.snapshot = {}
    bench.wanted.keep = lambda key, value: value == NoGateway(PolicyId(7))
    await bench.round()

    assert await bench.kernel.observe() == {ROW: NoGateway(PolicyId(7))}


async def test_a_refused_entry_is_state_and_the_others_are_there() -> None:
    bench = Bench({A: ENTRY, B: ENTRY})
    bench.kernel.refuse(A, KernelError("write map", errno.ENOSPC))
    done = await bench.round()

    assert (done.added, done.failed) == (1, 1)
    assert bench.loop.ledger[A].state is State.ERROR
    assert bench.loop.ledger[A].error == "write map: No space left on device"
    assert bench.loop.ledger[B].state is State.DONE


async def test_a_refused_entry_is_there_after_the_next_attempt() -> None:
    bench = Bench({A: ENTRY})
    bench.kernel.refuse(A, KernelError("write map", errno.ENOSPC))
    await bench.round()
    bench.kernel.refuse(A, None)
    await bench.round()

    assert bench.loop.ledger[A].state is State.DONE


async def test_a_broken_target_fails_the_round_only() -> None:
    bench = Bench({A: ENTRY})
    bench.wanted.error = SourceError("the API is away")
    broken = await bench.round()
    bench.wanted.error = None
    await bench.round()

    assert broken.error == "the API is away"
    assert await bench.kernel.observe() == {A: ENTRY}


async def test_run_looks_again_when_the_target_changed() -> None:
    bench = Bench({})
    running = asyncio.create_task(bench.loop.run())
    before = await bench.rounds.get()
    bench.wanted.snapshot = {A: ENTRY}
    bench.wanted.changed.set()
    after = await bench.rounds.get()
    running.cancel()

    assert (before.added, after.added) == (0, 1)


async def test_run_looks_again_when_the_kernel_changed() -> None:
    bench = Bench({A: ENTRY})
    running = asyncio.create_task(bench.loop.run())
    before = await bench.rounds.get()
    bench.kernel.set_facts(bench.kernel.facts)
    after = await bench.rounds.get()
    running.cancel()

    assert (before.number, after.number) == (1, 2)


async def test_run_tries_a_refused_entry_again_without_any_event() -> None:
    bench = Bench({A: ENTRY})
    bench.kernel.refuse(A, KernelError("write map", errno.ENOSPC))
    running = asyncio.create_task(bench.loop.run())
    refused = await bench.rounds.get()
    bench.kernel.refuse(A, None)
    bench.now += 3600
    again = await bench.rounds.get()
    running.cancel()

    assert (refused.failed, again.added) == (1, 1)


async def test_run_waits_after_a_broken_round_although_an_entry_is_due() -> None:
    bench = Bench({A: ENTRY})
    bench.kernel.refuse(A, KernelError("write map", errno.ENOSPC))
    await bench.round()
    bench.wanted.error = SourceError("the API is away")
    bench.now += 3600
    running = asyncio.create_task(bench.loop.run())
    for _ in range(100):
        await asyncio.sleep(0)
    running.cancel()

    # One refused round, one broken one, and then a pause.
    assert bench.rounds.qsize() == 2
