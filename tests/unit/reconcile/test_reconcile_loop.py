import asyncio
import errno
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network

from outgate.errors import KernelError, SourceError
from outgate.kernel.fake import FakeKernel
from outgate.reconcile.loop import Pace, Reconciler, Round
from outgate.reconcile.ports import Target
from outgate.reconcile.status import State
from outgate.state.entries import (
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Key,
    NodeEntry,
    NodeKey,
    NoGateway,
    PolicyId,
    PolicyKey,
    RowSet,
    RowsKey,
    Seconds,
)
from outgate.state.plan import Keep, keep_none
from outgate.state.snapshot import Snapshot

A, B = NodeKey(IPv4Address("172.18.0.4")), NodeKey(IPv4Address("172.18.0.5"))
ENTRY = NodeEntry()
POD = IPv4Address("10.0.1.42")
ROWS = RowsKey(POD)
ECHO, OTHER = IPv4Network("172.18.0.0/16"), IPv4Network("192.0.2.0/24")
OF_7, OF_8 = NoGateway(PolicyId(7)), NoGateway(PolicyId(8))
FULL = KernelError("write map", errno.ENOSPC)


class Wanted:
    """A desired side that tests set."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.is_complete = True
        self.error: SourceError | None = None
        self.keep: Keep = keep_none
        self.touched: Collection[Key] | None = None
        self.changed = asyncio.Event()

    def target(self, actual: Snapshot) -> Target:
        if self.error:
            raise self.error
        return Target(self.snapshot, self.is_complete, self.keep, self.touched)

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

    async def held(self) -> Snapshot:
        """Return what the kernel holds, without telling the loop's next look less."""
        observed = await self.kernel.observe()
        for key in observed.touched or ():
            self.kernel.meddle(key, observed.snapshot.get(key))
        return dict(observed.snapshot)


async def test_one_round_brings_the_kernel_to_the_target() -> None:
    bench = Bench({A: ENTRY, B: ENTRY})
    done = await bench.round()

    assert await bench.held() == {A: ENTRY, B: ENTRY}
    assert done == Round(1, Seconds(0), added=2, touched=None, is_complete=True)


async def test_what_is_no_longer_wanted_is_removed() -> None:
    bench = Bench({A: ENTRY, B: ENTRY})
    await bench.round()
    bench.wanted.snapshot = {A: ENTRY}
    done = await bench.round()

    assert await bench.held() == {A: ENTRY}
    assert done.removed == 1


async def test_nothing_is_removed_on_partial_knowledge() -> None:
    bench = Bench({A: ENTRY, B: ENTRY})
    await bench.round()
    bench.wanted.snapshot, bench.wanted.is_complete = {}, False
    done = await bench.round()

    assert await bench.held() == {A: ENTRY, B: ENTRY}
    assert (done.removed, done.kept) == (0, 2)


async def test_entries_are_added_on_partial_knowledge() -> None:
    bench = Bench({A: ENTRY})
    bench.wanted.is_complete = False
    await bench.round()

    assert await bench.held() == {A: ENTRY}


async def test_kept_rows_stay_although_the_target_lacks_them() -> None:
    bench = Bench({ROWS: RowSet({ECHO: OF_7, OTHER: OF_8}), A: ENTRY})
    await bench.round()
    bench.wanted.snapshot = {}
    bench.wanted.keep = lambda key, value: value == OF_7
    await bench.round()

    assert await bench.held() == {ROWS: RowSet({ECHO: OF_7})}


async def test_kept_rows_go_when_nothing_keeps_them_any_more() -> None:
    bench = Bench({ROWS: RowSet({ECHO: OF_7, OTHER: OF_8})})
    await bench.round()
    bench.wanted.snapshot = {ROWS: RowSet({OTHER: OF_8})}
    bench.wanted.keep = lambda key, value: value == OF_7
    await bench.round()
    kept = await bench.held()
    bench.wanted.keep, bench.wanted.touched = keep_none, ()
    await bench.round()

    assert kept == {ROWS: RowSet({ECHO: OF_7, OTHER: OF_8})}
    assert await bench.held() == {ROWS: RowSet({OTHER: OF_8})}


async def test_what_partial_knowledge_kept_goes_once_it_is_complete() -> None:
    bench = Bench({A: ENTRY})
    await bench.round()
    bench.wanted.snapshot, bench.wanted.is_complete = {}, False
    await bench.round()
    bench.wanted.is_complete, bench.wanted.touched = True, ()
    await bench.round()

    assert await bench.held() == {}


async def test_only_what_either_side_touched_is_looked_at() -> None:
    bench = Bench({A: ENTRY, B: ENTRY})
    await bench.round()
    bench.wanted.snapshot, bench.wanted.touched = {}, [A]
    one = await bench.round()
    bench.wanted.touched = ()
    none = await bench.round()

    assert (one.touched, one.removed, none.touched) == (1, 1, 0)
    assert await bench.held() == {B: ENTRY}


async def test_what_somebody_else_changed_is_put_back() -> None:
    bench = Bench({A: ENTRY, ROWS: RowSet({ECHO: OF_7})})
    await bench.round()
    bench.wanted.touched = ()
    bench.kernel.meddle(ROWS, RowSet({ECHO: OF_8, OTHER: OF_8}))
    bench.kernel.meddle(A, None)
    bench.kernel.meddle(B, ENTRY)
    await bench.round()

    assert await bench.held() == bench.wanted.snapshot


async def test_what_a_broken_round_did_not_look_at_is_looked_at_next() -> None:
    bench = Bench({A: ENTRY})
    await bench.round()
    bench.wanted.touched = ()
    bench.kernel.meddle(A, None)
    bench.wanted.error = SourceError("the API is away")
    await bench.round()
    bench.wanted.error = None
    await bench.round()

    assert await bench.held() == {A: ENTRY}


async def test_a_pod_with_a_refused_row_is_known_again_once_it_is_written() -> None:
    pod = EndpointEntry(EndpointFlag.POD)
    bench = Bench({EndpointKey(POD): pod})
    await bench.round()
    bench.wanted.snapshot = {EndpointKey(POD): pod, ROWS: RowSet({ECHO: OF_7})}
    bench.wanted.touched = [ROWS]
    bench.kernel.refuse(PolicyKey(POD, ECHO), FULL)
    await bench.round()
    refused = await bench.held()
    bench.kernel.refuse(PolicyKey(POD, ECHO), None)
    bench.wanted.touched = ()
    await bench.round()

    assert refused == {}
    assert await bench.held() == bench.wanted.snapshot


async def test_rows_beside_a_refused_one_are_there() -> None:
    bench = Bench({ROWS: RowSet({ECHO: OF_7, OTHER: OF_8})})
    bench.kernel.refuse(PolicyKey(POD, ECHO), FULL)
    await bench.round()

    assert await bench.held() == {ROWS: RowSet({OTHER: OF_8})}
    assert "1 of 2 rows, 172.18.0.0/16 first" in bench.loop.ledger[ROWS].error


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
    assert await bench.held() == {A: ENTRY}


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
