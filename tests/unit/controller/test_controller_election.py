"""Who may write, decided without a clock and without an API."""

from dataclasses import replace

from outgate.controller.election import TIMES, Election, LeaseRecord

WALL = "2026-01-02T03:04:05.000000Z"
OTHER = LeaseRecord("b", 15, WALL, WALL, 3, "7")


def test_election_without_a_lease_makes_one() -> None:
    election = Election("a", TIMES)
    election.observe(None, 0.0)

    assert LeaseRecord("a", 15, WALL, WALL, 0, "") == election.attempt(WALL, 0.0)


def test_election_leads_only_after_the_api_took_its_lease() -> None:
    election = Election("a", TIMES)
    election.observe(None, 0.0)
    record = election.attempt(WALL, 0.0)
    assert record is not None

    assert not election.is_leader(0.0)
    election.wrote(replace(record, version="1"), 0.0, 0.1)
    assert election.is_leader(0.1)


def test_election_leaves_the_lease_of_another_alone_until_it_has_expired() -> None:
    election = Election("a", TIMES)
    election.observe(OTHER, 100.0)

    assert election.attempt(WALL, 114.9) is None
    taken = election.attempt(WALL, 115.0)
    assert LeaseRecord("a", 15, WALL, WALL, 4, "7") == taken


def test_election_counts_from_the_last_change_that_it_saw() -> None:
    election = Election("a", TIMES)
    election.observe(OTHER, 100.0)
    election.observe(OTHER, 110.0)
    election.observe(replace(OTHER, version="8"), 112.0)

    assert election.attempt(WALL, 126.9) is None
    assert election.attempt(WALL, 127.0) is not None


def test_election_does_not_believe_the_times_inside_a_lease() -> None:
    election = Election("a", TIMES)
    election.observe(replace(OTHER, renewed="1999-01-01T00:00:00.000000Z"), 100.0)

    assert election.attempt(WALL, 101.0) is None


def test_election_takes_a_lease_that_was_let_go_at_once() -> None:
    election = Election("a", TIMES)
    election.observe(replace(OTHER, holder="", duration_seconds=1), 100.0)

    assert election.attempt(WALL, 100.0) is not None


def test_election_ends_a_leader_before_others_may_follow() -> None:
    leader, other = Election("a", TIMES), Election("b", TIMES)
    record = LeaseRecord("a", 15, WALL, WALL, 0, "1")
    leader.wrote(record, asked_at=100.0, now=104.0)
    other.observe(record, 104.0)

    assert leader.is_leader(109.9)
    assert not leader.is_leader(110.0)
    assert other.attempt(WALL, 118.9) is None


def test_election_ends_when_another_holds_the_lease() -> None:
    election = Election("a", TIMES)
    election.wrote(LeaseRecord("a", 15, WALL, WALL, 0, "1"), 100.0, 100.0)
    election.observe(OTHER, 101.0)

    assert not election.is_leader(101.0)


def test_election_renews_without_counting_a_transition() -> None:
    election = Election("a", TIMES)
    election.wrote(LeaseRecord("a", 15, "then", "then", 2, "1"), 100.0, 100.0)

    expected = LeaseRecord("a", 15, "then", WALL, 2, "1")
    assert expected == election.attempt(WALL, 102.0)


def test_election_releases_only_its_own_lease() -> None:
    election = Election("a", TIMES)
    election.observe(OTHER, 0.0)
    assert election.release(WALL) is None

    election.wrote(LeaseRecord("a", 15, WALL, WALL, 0, "1"), 1.0, 1.0)
    expected = LeaseRecord("", 1, WALL, WALL, 0, "1")
    assert expected == election.release(WALL)
