"""Who lives, by when reports changed; the clock is an argument."""

from outgate.controller.freshness import PATIENCE, Freshness
from outgate.policy.health import Life
from outgate.state.entries import NodeName

N1, N2 = NodeName("n1"), NodeName("n2")
SILENT_AT = 100.0 + PATIENCE


def test_node_that_renews_is_fresh_until_it_missed_three_renewals() -> None:
    freshness = Freshness()
    freshness.expect({N1}, 50.0)
    freshness.note(N1, "one", 100.0)

    assert Life.FRESH == freshness.life(N1, SILENT_AT - 0.1)
    assert Life.SILENT == freshness.life(N1, SILENT_AT)


def test_report_that_was_there_before_says_nothing_until_it_changes() -> None:
    freshness = Freshness()
    freshness.note(N1, "one", 100.0, is_old=True)
    freshness.expect({N1}, 100.0)
    assert Life.UNKNOWN == freshness.life(N1, 101.0)

    freshness.note(N1, "one", 104.0)
    assert Life.UNKNOWN == freshness.life(N1, 104.0)
    freshness.note(N1, "two", 105.0)
    assert Life.FRESH == freshness.life(N1, 105.0)


def test_report_that_never_changes_is_silent_in_the_end() -> None:
    freshness = Freshness()
    freshness.note(N1, "one", 100.0, is_old=True)
    freshness.expect({N1}, 100.0)

    assert Life.SILENT == freshness.life(N1, SILENT_AT)


def test_new_candidate_has_time_to_begin() -> None:
    freshness = Freshness()
    freshness.note(N1, "one", 0.0)
    freshness.expect({N1}, 100.0)

    assert Life.UNKNOWN == freshness.life(N1, SILENT_AT - 0.1)
    assert Life.SILENT == freshness.life(N1, SILENT_AT)


def test_node_that_is_no_candidate_is_never_silent() -> None:
    freshness = Freshness()
    freshness.note(N1, "one", 0.0)

    assert Life.UNKNOWN == freshness.life(N1, 1000.0)


def test_candidate_that_never_reported_is_silent_in_the_end() -> None:
    freshness = Freshness()
    freshness.expect({N1}, 100.0)

    assert Life.UNKNOWN == freshness.life(N1, SILENT_AT - 0.1)
    assert Life.SILENT == freshness.life(N1, SILENT_AT)


def test_report_that_was_deleted_is_unknown_and_then_silent() -> None:
    freshness = Freshness()
    freshness.expect({N1}, 50.0)
    freshness.note(N1, "one", 90.0)
    freshness.note(N1, "", 100.0)

    assert Life.UNKNOWN == freshness.life(N1, 100.0)
    assert Life.SILENT == freshness.life(N1, SILENT_AT)


def test_nobody_falls_silent_while_reports_do_not_reach_us() -> None:
    freshness = Freshness()
    freshness.expect({N1}, 100.0)
    freshness.note(N1, "one", 100.0)
    freshness.hold(110.0)
    assert Life.FRESH == freshness.life(N1, 500.0)

    freshness.resume(500.0)
    assert Life.FRESH == freshness.life(N1, 500.0 + PATIENCE - 0.1)
    assert Life.SILENT == freshness.life(N1, 500.0 + PATIENCE)


def test_who_was_silent_stays_so_when_reports_reach_us_again() -> None:
    freshness = Freshness()
    freshness.expect({N1}, 50.0)
    freshness.note(N1, "one", 50.0)
    freshness.hold(100.0)
    freshness.resume(200.0)

    assert Life.SILENT == freshness.life(N1, 200.0)


def test_turned_nodes_are_told_once() -> None:
    freshness = Freshness()
    freshness.expect({N1, N2}, 100.0)
    freshness.take_turned(100.0)
    freshness.note(N1, "one", 101.0)

    assert {N1: Life.FRESH} == freshness.take_turned(101.0)
    assert {} == freshness.take_turned(102.0)
    assert {N2: Life.SILENT} == freshness.take_turned(SILENT_AT)


def test_doubtful_nodes_are_asked_before_they_are_told() -> None:
    freshness = Freshness()
    freshness.expect({N1}, 100.0)
    assert frozenset() == freshness.doubtful(SILENT_AT - 0.1)
    assert {N1} == freshness.doubtful(SILENT_AT)

    freshness.take_turned(SILENT_AT)
    assert frozenset() == freshness.doubtful(SILENT_AT + 1)


def test_deferred_nodes_have_their_time_again() -> None:
    freshness = Freshness()
    freshness.expect({N1}, 100.0)
    freshness.defer(SILENT_AT)

    assert Life.UNKNOWN == freshness.life(N1, SILENT_AT + PATIENCE - 0.1)
    assert {N1} == freshness.doubtful(SILENT_AT + PATIENCE)
