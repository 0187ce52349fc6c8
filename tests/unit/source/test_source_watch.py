"""The list-and-watch machine, step by step, without a server, a clock or chance."""

from outgate.source.watch import (
    MISSING_SECONDS,
    Bookmark,
    Deleted,
    Failure,
    FetchPage,
    OpenWatch,
    Page,
    Reflection,
    Stored,
    Wait,
)

SEED = 1.0


def _listed(*keys: str, version: str = "10") -> Reflection[str]:
    reflection: Reflection[str] = Reflection()
    reflection.receive_page(Page(tuple((key, key) for key in keys), version))
    return reflection


def test_list_pages_become_visible_together() -> None:
    reflection: Reflection[str] = Reflection()

    assert reflection.next_step(0) == FetchPage("")
    assert not reflection.receive_page(Page((("a", "A"),), "7", "more"))
    assert (reflection.items, reflection.is_complete) == ({}, False)
    assert reflection.next_step(0) == FetchPage("more")
    assert reflection.receive_page(Page((("b", "B"),), "7"))
    assert (reflection.items, reflection.is_complete) == ({"a": "A", "b": "B"}, True)
    assert reflection.next_step(0) == OpenWatch("7")


def test_empty_first_list_is_news() -> None:
    assert Reflection[str]().receive_page(Page((), "1"))


def test_watch_events_change_items_only_when_something_changed() -> None:
    reflection = _listed("a")

    assert not reflection.receive_event(Stored("a", "a", "11"))
    assert reflection.receive_event(Stored("a", "new", "12"))
    assert reflection.receive_event(Deleted("a", "13"))
    assert not reflection.receive_event(Deleted("a", "13"))
    assert not reflection.receive_event(Bookmark("20"))
    assert reflection.items == {}
    assert reflection.next_step(0) == OpenWatch("20")


def test_watch_relists_after_410_and_keeps_items_meanwhile() -> None:
    reflection = _listed("a", "b")

    assert not reflection.receive_failure(Failure(410, "too old"), 0, SEED)
    assert reflection.next_step(0) == FetchPage("")
    assert reflection.items == {"a": "a", "b": "b"}
    assert reflection.is_complete
    assert reflection.receive_page(Page((("b", "b"),), "30")), "a was deleted unseen"
    assert reflection.items == {"b": "b"}


def test_410_again_and_again_backs_off() -> None:
    """A server that lists and then calls its own version too old is not stormed."""
    reflection = _listed("a")
    waits = []
    for _ in range(5):
        reflection.receive_failure(Failure(410, "too old"), 0, SEED)
        step = reflection.next_step(0)
        waits.append(step.seconds if isinstance(step, Wait) else 0)
        reflection.receive_page(Page((("a", "a"),), "10"))

    assert waits == [0, 0.2, 0.4, 0.8, 1.6]


def test_410_in_the_middle_of_pages_starts_over() -> None:
    reflection: Reflection[str] = Reflection()
    reflection.receive_page(Page((("a", "A"),), "7", "more"))
    reflection.receive_failure(Failure(410, "continue token expired"), 0, SEED)

    assert reflection.next_step(0) == FetchPage("")
    reflection.receive_page(Page((("b", "B"),), "8"))
    assert reflection.items == {"b": "B"}


def test_failure_before_the_first_list_removes_nothing_and_is_shown() -> None:
    reflection: Reflection[str] = Reflection()
    reflection.receive_failure(Failure(0, "connection refused"), 0, SEED)

    assert (reflection.is_listed, reflection.is_complete) == (False, False)
    assert reflection.error == "connection refused"


def test_broken_watch_goes_on_from_where_it_was() -> None:
    reflection = _listed("a")
    reflection.receive_opened(0)

    assert reflection.receive_failure(Failure(0, "reset"), 5, SEED)
    assert not reflection.is_complete
    assert reflection.items == {"a": "a"}
    assert reflection.next_step(5) == Wait(0.20000000000000018)
    assert reflection.next_step(6) == OpenWatch("10")
    assert reflection.receive_opened(6), "completeness is news"
    assert reflection.is_complete


def test_watch_refused_for_good_lists_anew() -> None:
    reflection = _listed("a")
    reflection.receive_failure(Failure(403, "forbidden"), 0, SEED)

    assert reflection.next_step(60) == FetchPage("")
    assert reflection.items == {"a": "a"}


def test_failures_wait_longer_each_time_up_to_a_limit() -> None:
    reflection: Reflection[str] = Reflection()
    waits = []
    for _ in range(10):
        reflection.receive_failure(Failure(500, "boom"), 0, SEED)
        step = reflection.next_step(0)
        assert isinstance(step, Wait)
        waits.append(step.seconds)

    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]


def test_waits_are_spread_by_the_seed() -> None:
    reflection: Reflection[str] = Reflection()
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
    reflection: Reflection[str] = Reflection(may_be_missing=True)
    missing = Failure(404, "not found")

    reflection.receive_failure(missing, 0, SEED)
    assert not reflection.is_complete
    assert reflection.receive_failure(missing, MISSING_SECONDS, SEED)
    assert reflection.is_complete
    assert isinstance(reflection.next_step(MISSING_SECONDS), Wait)
    assert reflection.next_step(MISSING_SECONDS + 5) == FetchPage("")


def test_missing_kind_with_items_held_is_a_failure() -> None:
    """What is held is not thrown away because a server does not know the kind."""
    reflection: Reflection[str] = Reflection(may_be_missing=True)
    reflection.receive_page(Page((("a", "a"),), "10"))
    for now in (0, 100, 200):
        reflection.receive_failure(Failure(404, "not found"), now, SEED)

    assert reflection.items == {"a": "a"}
    assert not reflection.is_complete


def test_missing_kind_that_must_exist_is_a_failure() -> None:
    reflection: Reflection[str] = Reflection()
    reflection.receive_failure(Failure(404, "not found"), 100, SEED)

    assert not reflection.is_listed
