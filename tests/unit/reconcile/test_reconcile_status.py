import errno
from ipaddress import IPv4Address, IPv4Network, ip_address

from outgate.errors import KernelError
from outgate.reconcile.status import EntryStatus, Ledger, State
from outgate.state.entries import (
    Family,
    NodeEntry,
    NodeKey,
    NoGateway,
    PolicyId,
    RowSet,
    RowsKey,
    Seconds,
    TunnelDevice,
    TunnelKey,
)
from outgate.state.plan import Put, Remove
from outgate.state.snapshot import Snapshot

A, B = NodeKey(IPv4Address("172.18.0.4")), NodeKey(IPv4Address("172.18.0.5"))
ENTRY = NodeEntry()
REFUSED = KernelError("write", errno.ENOSPC)
POD = IPv4Address("10.0.1.42")
ROWS = RowsKey(POD)
ECHO, OTHER = IPv4Network("172.18.0.0/16"), IPv4Network("192.0.2.0/24")
ONE_ROW = RowSet({ECHO: NoGateway(PolicyId(7))})
TWO_ROWS = RowSet({ECHO: NoGateway(PolicyId(7)), OTHER: NoGateway(PolicyId(7))})
POLICY = ("policy", Family.V4)


def at(moment: float) -> Seconds:
    return Seconds(moment)


def test_an_entry_is_pending_from_the_plan_to_the_outcome() -> None:
    ledger = Ledger()
    ledger.begin({A: ENTRY}, {}, [Put(A, ENTRY)], at(10))
    planned = ledger[A]
    ledger.finish([Put(A, ENTRY)], {}, at(11))

    assert planned == EntryStatus(State.PENDING, at(10))
    assert ledger[A] == EntryStatus(State.DONE, None)
    assert not ledger.open


def test_a_failure_has_an_error_and_a_next_attempt() -> None:
    ledger = Ledger()
    ledger.begin({A: ENTRY}, {}, [Put(A, ENTRY)], at(10))
    ledger.finish([Put(A, ENTRY)], {A: REFUSED}, at(10))

    assert ledger[A] == EntryStatus(
        State.ERROR, at(10), "write: No space left on device", 1, at(10.25)
    )
    assert ledger.next_attempt() == at(10.25)


def test_a_repeated_failure_keeps_its_age_and_waits_longer() -> None:
    ledger = Ledger()
    for moment in (10.0, 10.25):
        ledger.begin({A: ENTRY}, {}, [Put(A, ENTRY)], at(moment))
        ledger.finish([Put(A, ENTRY)], {A: REFUSED}, at(moment))

    assert ledger[A] == EntryStatus(
        State.ERROR, at(10), "write: No space left on device", 2, at(10.75)
    )


def test_an_attempt_before_its_time_does_not_lengthen_the_wait() -> None:
    ledger = Ledger()
    for moment in (10.0, 10.1):
        ledger.begin({A: ENTRY}, {}, [Put(A, ENTRY)], at(moment))
        ledger.finish([Put(A, ENTRY)], {A: REFUSED}, at(moment))

    assert ledger[A].next_attempt == at(10.25)


def test_a_removed_entry_leaves_the_ledger() -> None:
    ledger = Ledger()
    ledger.begin({}, {A: ENTRY}, [Remove(A)], at(10))
    ledger.finish([Remove(A)], {}, at(10))

    assert list(ledger) == []


def test_what_is_there_but_not_wanted_is_kept() -> None:
    ledger = Ledger()
    ledger.begin({A: ENTRY}, {A: ENTRY, B: ENTRY}, [], at(10))

    assert ledger[B].state is State.KEPT
    assert ledger.counts() == {
        ("node", Family.V4, State.DONE): 1,
        ("node", Family.V4, State.KEPT): 1,
    }


def test_entries_are_counted_by_family_too() -> None:
    ledger = Ledger()
    snapshot: Snapshot = {
        NodeKey(ip_address("192.0.2.1")): NodeEntry(),
        NodeKey(ip_address("2001:db8::1")): NodeEntry(),
        TunnelKey(): TunnelDevice("outgate_vx", 4789),
    }
    ledger.begin(snapshot, snapshot, (), at(10))

    assert ledger.counts() == {
        ("node", Family.V4, State.DONE): 1,
        ("node", Family.V6, State.DONE): 1,
        ("tunnel", None, State.DONE): 1,
    }


def test_rows_of_a_pod_are_counted_one_by_one() -> None:
    ledger = Ledger()
    ledger.begin({ROWS: TWO_ROWS}, {}, [Put(ROWS, TWO_ROWS)], at(10))
    planned = ledger.counts()
    ledger.finish([Put(ROWS, TWO_ROWS)], {}, at(10))

    assert planned == {(*POLICY, State.PENDING): 2}
    assert ledger.counts() == {(*POLICY, State.DONE): 2}


def test_only_refused_rows_are_counted_as_errors() -> None:
    ledger = Ledger()
    plan = [Put(ROWS, TWO_ROWS)]
    ledger.begin({ROWS: TWO_ROWS}, {}, plan, at(10))
    ledger.finish(plan, {ROWS: KernelError("write", errno.ENOSPC, rows=1)}, at(10))

    assert ledger.counts() == {(*POLICY, State.ERROR): 1, (*POLICY, State.DONE): 1}


def test_rows_that_are_kept_beside_wanted_ones_are_counted_as_kept() -> None:
    ledger = Ledger()
    ledger.begin({ROWS: ONE_ROW}, {ROWS: TWO_ROWS}, [], at(10))

    assert ledger.counts() == {(*POLICY, State.KEPT): 1, (*POLICY, State.DONE): 1}
    assert ledger.open == {ROWS: EntryStatus(State.KEPT, at(10))}


def test_rows_stay_kept_when_wanted_ones_beside_them_were_written() -> None:
    ledger = Ledger()
    plan = [Put(ROWS, TWO_ROWS)]
    ledger.begin({ROWS: ONE_ROW}, {}, plan, at(10))
    ledger.finish(plan, {}, at(11))

    assert ledger.counts() == {(*POLICY, State.KEPT): 1, (*POLICY, State.DONE): 1}


def test_counts_follow_touched_keys() -> None:
    ledger = Ledger()
    before: Snapshot = {A: ENTRY, B: ENTRY, ROWS: TWO_ROWS}
    ledger.begin(before, before, [], at(10))
    ledger.begin({ROWS: ONE_ROW, A: ENTRY}, {ROWS: ONE_ROW}, [], at(11), {ROWS, B})

    assert ledger.counts() == {
        ("node", Family.V4, State.DONE): 1,
        (*POLICY, State.DONE): 1,
    }


def test_what_is_touched_no_more_stays_open() -> None:
    ledger = Ledger()
    ledger.begin({A: ENTRY}, {}, [Put(A, ENTRY)], at(10))
    ledger.finish([Put(A, ENTRY)], {A: REFUSED}, at(10))
    ledger.begin({A: ENTRY, B: ENTRY}, {B: ENTRY}, [], at(11), {B})

    assert set(ledger.open) == {A}
    assert dict(ledger)[B].state is State.DONE
