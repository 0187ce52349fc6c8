"""What is written next, and when; the clock is an argument."""

from outgate.controller.agenda import BURST, PER_SECOND, Agenda


def filled(count: int, *, is_urgent: bool) -> Agenda:
    agenda = Agenda(0.0)
    for number in range(count):
        agenda.put(f"k{number:04}", 0.0, is_urgent=is_urgent)
    return agenda


def drain(agenda: Agenda, now: float) -> int:
    """Take all that may be written at *now*; return how much that was."""
    taken = 0
    while agenda.take(now)[0] is not None:
        taken += 1
    return taken


def test_agenda_without_anything_waits_for_nothing() -> None:
    assert (None, None) == Agenda(0.0).take(0.0)


def test_agenda_gives_each_key_once() -> None:
    agenda = filled(1, is_urgent=True)

    assert ("k0000", None) == agenda.take(0.0)
    assert (None, None) == agenda.take(0.0)


def test_agenda_waits_until_something_is_due() -> None:
    agenda = Agenda(0.0)
    agenda.put("p", 5.0, is_urgent=True)

    assert (None, 3.0) == agenda.take(2.0)
    assert ("p", None) == agenda.take(5.0)


def test_agenda_takes_what_is_urgent_first() -> None:
    agenda = Agenda(0.0)
    agenda.put("a", 0.0, is_urgent=False)
    agenda.put("b", 0.0, is_urgent=True)

    assert ("b", None) == agenda.take(0.0)
    assert ("a", None) == agenda.take(0.0)


def test_agenda_is_bounded_in_rate() -> None:
    agenda = filled(1000, is_urgent=True)

    assert BURST == drain(agenda, 0.0)
    assert PER_SECOND == drain(agenda, 1.0)
    key, wait = agenda.take(1.0)
    assert key is None
    assert 1 / PER_SECOND == wait


def test_agenda_keeps_half_of_its_room_for_what_is_urgent() -> None:
    agenda = filled(1000, is_urgent=False)
    assert BURST / 2 == drain(agenda, 0.0)

    agenda.put("failover", 0.0, is_urgent=True)
    assert ("failover", None) == agenda.take(0.0)


def test_agenda_drops_what_need_not_be_written_any_more() -> None:
    agenda = filled(1, is_urgent=True)
    agenda.drop("k0000")

    assert (None, None) == agenda.take(0.0)
