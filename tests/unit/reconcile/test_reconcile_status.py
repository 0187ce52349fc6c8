from ipaddress import IPv4Address, ip_address

from outgate.reconcile.status import EntryStatus, Ledger, State
from outgate.state.entries import (
    Family,
    NodeEntry,
    NodeKey,
    Seconds,
    TunnelDevice,
    TunnelKey,
)
from outgate.state.plan import Put, Remove
from outgate.state.snapshot import Snapshot

A, B = NodeKey(IPv4Address("172.18.0.4")), NodeKey(IPv4Address("172.18.0.5"))
ENTRY = NodeEntry()
REFUSED = OSError("no room")


def at(moment: float) -> Seconds:
    return Seconds(moment)


def test_an_entry_is_pending_from_the_plan_to_the_outcome() -> None:
    ledger = Ledger()
    ledger.begin({A: ENTRY}, {}, [Put(A, ENTRY)], at(10))
    planned = ledger[A]
    ledger.finish([Put(A, ENTRY)], {}, at(11))

    assert planned == EntryStatus(State.PENDING, at(10))
    assert ledger[A] == EntryStatus(State.DONE, at(11))


def test_done_keeps_the_time_since_when() -> None:
    ledger = Ledger()
    for moment in (10, 20):
        ledger.begin({A: ENTRY}, {A: ENTRY}, [], at(moment))
        ledger.finish([], {}, at(moment))

    assert ledger[A] == EntryStatus(State.DONE, at(10))


def test_a_failure_has_an_error_and_a_next_attempt() -> None:
    ledger = Ledger()
    ledger.begin({A: ENTRY}, {}, [Put(A, ENTRY)], at(10))
    ledger.finish([Put(A, ENTRY)], {A: REFUSED}, at(10))

    assert ledger[A] == EntryStatus(State.ERROR, at(10), "no room", 1, at(10.25))
    assert ledger.next_attempt() == at(10.25)


def test_a_repeated_failure_keeps_its_age_and_waits_longer() -> None:
    ledger = Ledger()
    for moment in (10.0, 10.25):
        ledger.begin({A: ENTRY}, {}, [Put(A, ENTRY)], at(moment))
        ledger.finish([Put(A, ENTRY)], {A: REFUSED}, at(moment))

    assert ledger[A] == EntryStatus(State.ERROR, at(10), "no room", 2, at(10.75))


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
