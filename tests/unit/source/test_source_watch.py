"""The list-and-watch machine, step by step, without a server, a clock or chance."""

import pytest

from outgate.source.answers import (
    Bookmark,
    Deleted,
    Failure,
    FetchPage,
    OpenWatch,
    Page,
    Stored,
    StreamList,
    Wait,
)
from outgate.source.timing import DEFAULT_TIMING
from outgate.source.watch import Reflection

SEED = 1.0


def _paged(may_be_missing: bool = False) -> Reflection[str]:
    return Reflection(can_stream=False, may_be_missing=may_be_missing)


def _page(*keys: str, version: str = "10", more: str = "", uid: str = "") -> Page[str]:
    items = tuple(Stored(key, key, "1", uid) for key in keys)
    return Page(items, version, more)


def _listed(*keys: str, version: str = "10", uid: str = "") -> Reflection[str]:
    reflection = _paged()
    reflection.receive_page(_page(*keys, version=version, uid=uid), 0, SEED)
    return reflection


def _watching(*keys: str, version: str = "10", uid: str = "") -> Reflection[str]:
    reflection = _listed(*keys, version=version, uid=uid)
    reflection.receive_opened(0)
    return reflection


def _items(reflection: Reflection[str]) -> dict[str, str]:
    return {key: held.value for key, held in reflection.items.items()}


def test_list_pages_become_visible_together() -> None:
    reflection = _paged()

    assert reflection.next_step(0) == FetchPage("")
    assert not reflection.receive_page(_page("a", version="7", more="on"), 0, SEED)
    assert (_items(reflection), reflection.is_complete) == ({}, False)
    assert reflection.next_step(0) == FetchPage("on")
    changed = reflection.receive_page(_page("b", version="7"), 0, SEED)
    assert set(changed) == {"a", "b"}
    assert (_items(reflection), reflection.is_complete) == ({"a": "a", "b": "b"}, True)
    assert reflection.next_step(0) == OpenWatch("7")


def test_streamed_list_becomes_visible_at_its_end() -> None:
    reflection: Reflection[str] = Reflection()

    assert reflection.next_step(0) == StreamList()
    reflection.receive_opened(0)
    assert not reflection.receive_event(Stored("a", "a", "3"), 0, SEED)
    assert not reflection.receive_event(Stored("b", "b", "2"), 0, SEED)
    assert (_items(reflection), reflection.is_listed) == ({}, False)
    changed = reflection.receive_event(Bookmark("7", ends_list=True), 0, SEED)
    assert set(changed) == {"a", "b"}
    assert reflection.receive_event(Stored("c", "c", "8"), 0, SEED) == ("c",)
    assert reflection.is_complete
    assert reflection.next_step(0) == OpenWatch("8")


def test_streamed_list_that_is_cut_removes_nothing() -> None:
    reflection: Reflection[str] = Reflection()
    reflection.receive_opened(0)
    reflection.receive_event(Stored("a", "a", "3"), 0, SEED)
    reflection.receive_event(Bookmark("7", ends_list=True), 0, SEED)
    reflection.receive_failure(Failure(410, "too old"), 0, SEED)
    reflection.receive_opened(0)
    reflection.receive_end(1, SEED)

    assert _items(reflection) == {"a": "a"}
    assert not reflection.is_complete
    assert reflection.next_step(60) == StreamList()


@pytest.mark.parametrize("status", [400, 422])
def test_server_without_streamed_lists_is_asked_for_pages(status: int) -> None:
    reflection: Reflection[str] = Reflection()
    reflection.receive_failure(Failure(status, "forbidden"), 0, SEED)

    assert reflection.next_step(0) == FetchPage("")
    assert reflection.error is None, "an old server is no fault"


def test_server_that_ignores_streamed_lists_is_asked_for_pages() -> None:
    """It sends bookmarks, but none that ends the list."""
    reflection: Reflection[str] = Reflection()
    reflection.receive_opened(0)
    reflection.receive_event(Stored("a", "a", "3"), 0, SEED)
    reflection.receive_event(Bookmark("7"), 0, SEED)

    assert not reflection.is_open
    assert reflection.next_step(0) == FetchPage("")


def test_streamed_lists_that_keep_breaking_are_given_up() -> None:
    reflection: Reflection[str] = Reflection()
    for now in (0, 100):
        assert reflection.next_step(now) == StreamList()
        reflection.receive_opened(now)
        reflection.receive_failure(Failure(0, "reset"), now, SEED)

    assert reflection.next_step(200) == FetchPage("")


def test_server_that_is_down_is_asked_for_a_stream_once_it_is_back() -> None:
    reflection: Reflection[str] = Reflection()
    for now in (0, 100, 200):
        reflection.receive_failure(Failure(0, "refused"), now, SEED)

    assert reflection.next_step(300) == StreamList()


def test_watch_events_change_items_only_when_something_changed() -> None:
    reflection = _watching("a")

    assert not reflection.receive_event(Stored("a", "a", "11"), 0, SEED)
    assert reflection.receive_event(Stored("a", "new", "12"), 0, SEED)
    assert reflection.receive_event(Deleted("a", "13"), 0, SEED)
    assert not reflection.receive_event(Deleted("a", "13"), 0, SEED)
    assert not reflection.receive_event(Bookmark("20"), 0, SEED)
    assert _items(reflection) == {}
    assert reflection.next_step(0) == OpenWatch("20")


def test_event_that_comes_late_overwrites_nothing() -> None:
    reflection = _watching("a")
    reflection.receive_event(Stored("a", "new", "12"), 0, SEED)

    assert not reflection.receive_event(Stored("a", "old", "11"), 0, SEED)
    assert _items(reflection) == {"a": "new"}
    assert reflection.next_step(0) == OpenWatch("12")


def test_event_that_comes_late_brings_nothing_back() -> None:
    reflection = _watching("a")
    reflection.receive_event(Deleted("a", "12"), 0, SEED)

    assert not reflection.receive_event(Stored("a", "old", "11"), 0, SEED)
    assert _items(reflection) == {}


def test_versions_that_are_no_numbers_are_taken_as_they_come() -> None:
    """They are opaque: no order can be told."""
    reflection = _watching("a", version="x9")
    reflection.receive_event(Stored("a", "one", "xb"), 0, SEED)

    assert reflection.receive_event(Stored("a", "two", "xa"), 0, SEED)
    assert reflection.next_step(0) == OpenWatch("xa")


def test_garbage_of_any_length_is_no_number() -> None:
    """Python refuses to read an int of so many digits: that ended the agent."""
    version = "9" * 5000
    reflection = _watching("a")
    reflection.receive_event(Stored("a", "two", version), 0, SEED)

    assert reflection.next_step(0) == OpenWatch(version)


def test_deletion_of_a_former_object_of_that_name_is_ignored() -> None:
    """A StatefulSet's pod keeps its name; the end of the first comes late."""
    reflection = _watching("web-0", uid="first")
    reflection.receive_event(Stored("web-0", "second", "12", "second"), 0, SEED)

    assert not reflection.receive_event(Deleted("web-0", "13", "first"), 0, SEED)
    assert reflection.receive_event(Deleted("web-0", "14", "second"), 0, SEED)


def test_watch_relists_after_410_and_keeps_items_meanwhile() -> None:
    reflection = _watching("a", "b")

    reflection.receive_failure(Failure(410, "too old"), 0, SEED)
    assert not reflection.is_open
    assert reflection.next_step(0) == FetchPage("")
    assert _items(reflection) == {"a": "a", "b": "b"}
    assert reflection.is_complete
    changed = reflection.receive_page(_page("b", version="30"), 0, SEED)
    assert changed == ["a"], "a was deleted unseen"
    assert _items(reflection) == {"b": "b"}


def test_410_again_and_again_backs_off() -> None:
    """A server that lists and then calls its own version too old is not stormed."""
    reflection = _listed("a")
    waits = []
    for _ in range(5):
        reflection.receive_failure(Failure(410, "too old"), 0, SEED)
        step = reflection.next_step(0)
        waits.append(step.seconds if isinstance(step, Wait) else 0)
        reflection.receive_page(_page("a"), 0, SEED)

    assert waits == [0, 0.2, 0.4, 0.8, 1.6]


def test_410_in_the_middle_of_pages_starts_over() -> None:
    reflection = _paged()
    reflection.receive_page(_page("a", more="on"), 0, SEED)
    reflection.receive_failure(Failure(410, "continue token expired"), 0, SEED)

    assert reflection.next_step(0) == FetchPage("")
    reflection.receive_page(_page("b"), 0, SEED)
    assert _items(reflection) == {"b": "b"}


def test_server_that_lost_its_past_is_listed_anew() -> None:
    reflection = _watching("a", version="100")
    reflection.receive_event(Stored("a", "young", "101"), 0, SEED)
    reflection.list_anew()

    assert reflection.next_step(0) == FetchPage("")
    reflection.receive_page(_page("a", version="50"), 0, SEED)
    reflection.receive_opened(0)
    assert reflection.receive_event(Stored("a", "next", "51"), 0, SEED)


def test_list_that_shrinks_is_not_believed_at_once() -> None:
    reflection = _watching("a")
    reflection.receive_failure(Failure(410, "too old"), 0, SEED)

    assert not reflection.receive_page(_page(), 0, SEED)
    assert _items(reflection) == {"a": "a"}
    assert not reflection.is_complete
    assert "lost 1 of 1 objects" in (reflection.error or "")
    assert isinstance(reflection.next_step(1), Wait)
    assert reflection.next_step(60) == FetchPage("")


def test_list_that_stays_shrunk_is_believed_in_the_end() -> None:
    reflection = _watching("a")
    reflection.receive_failure(Failure(410, "too old"), 0, SEED)
    taken = [reflection.receive_page(_page(), now, SEED) for now in (0, 15, 30)]

    assert taken == [(), (), ["a"]]
    assert _items(reflection) == {}
    assert reflection.is_complete


def test_server_that_asks_for_time_is_given_it() -> None:
    reflection = _paged()
    reflection.receive_failure(Failure(429, "slow down", 7), 0, seed=0.0)

    assert reflection.next_step(0) == Wait(7)


def test_server_that_asks_for_a_year_is_not_believed() -> None:
    reflection = _paged()
    reflection.receive_failure(Failure(503, "later", 3e7), 0, seed=0.0)

    assert reflection.next_step(0) == Wait(DEFAULT_TIMING.longest_retry_after)


def test_failure_before_the_first_list_removes_nothing_and_is_shown() -> None:
    reflection = _paged()
    reflection.receive_failure(Failure(0, "connection refused"), 0, SEED)

    assert (reflection.is_listed, reflection.is_complete) == (False, False)
    assert reflection.error == "connection refused"


def test_broken_watch_goes_on_from_where_it_was() -> None:
    reflection = _listed("a")
    reflection.receive_opened(0)

    reflection.receive_failure(Failure(0, "reset"), 5, SEED)
    assert not reflection.is_complete
    assert _items(reflection) == {"a": "a"}
    assert reflection.next_step(5) == Wait(0.20000000000000018)
    assert reflection.next_step(6) == OpenWatch("10")
    reflection.receive_opened(6)
    assert reflection.is_complete


def test_watch_refused_for_good_lists_anew() -> None:
    reflection = _listed("a")
    reflection.receive_failure(Failure(400, "bad request"), 0, SEED)

    assert reflection.next_step(60) == FetchPage("")
    assert _items(reflection) == {"a": "a"}


def test_failures_wait_longer_each_time_up_to_a_limit() -> None:
    reflection = _paged()
    waits = []
    for _ in range(10):
        reflection.receive_failure(Failure(500, "boom"), 0, SEED)
        step = reflection.next_step(0)
        assert isinstance(step, Wait)
        waits.append(step.seconds)

    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]


def test_waits_are_spread_by_the_seed() -> None:
    reflection = _paged()
    reflection.receive_failure(Failure(500, "boom"), 0, seed=0.0)

    assert reflection.next_step(0) == Wait(0.1)


def test_watch_that_ends_is_opened_again_at_once() -> None:
    reflection = _listed("a")
    reflection.receive_opened(0)
    reflection.receive_end(120, SEED)

    assert reflection.next_step(120) == OpenWatch("10")
    assert reflection.is_complete


def test_watch_that_ends_at_once_makes_no_busy_loop() -> None:
    reflection = _listed("a")
    reflection.receive_opened(0)
    reflection.receive_end(0.01, SEED)

    assert isinstance(reflection.next_step(0.01), Wait)
    assert reflection.is_complete, "short watches are no fault of the objects"


def test_missing_kind_is_empty_only_after_a_while() -> None:
    """An API server that has just started says 404 before its CRDs are loaded."""
    reflection = _paged(may_be_missing=True)
    missing = Failure(404, "not found")

    reflection.receive_failure(missing, 0, SEED)
    assert not reflection.is_complete
    reflection.receive_failure(missing, DEFAULT_TIMING.missing, SEED)
    assert reflection.is_complete
    assert isinstance(reflection.next_step(DEFAULT_TIMING.missing), Wait)
    assert reflection.next_step(DEFAULT_TIMING.missing + 5) == FetchPage("")


def test_missing_kind_with_items_held_is_a_failure() -> None:
    """What is held is not thrown away because a server does not know the kind."""
    reflection = _paged(may_be_missing=True)
    reflection.receive_page(_page("a"), 0, SEED)
    for now in (0, 100, 200):
        reflection.receive_failure(Failure(404, "not found"), now, SEED)

    assert _items(reflection) == {"a": "a"}
    assert not reflection.is_complete


def test_missing_kind_that_must_exist_is_a_failure() -> None:
    reflection = _paged()
    reflection.receive_failure(Failure(404, "not found"), 100, SEED)

    assert not reflection.is_listed
