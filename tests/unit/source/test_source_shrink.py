"""Which lists are believed that lost objects."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from outgate.source.shrink import ShrinkGuard

CONFIRM = 30.0


@dataclass(frozen=True)
class _Object:
    uid: str


def _objects(count: int, uid: str = "") -> dict[str, _Object]:
    return {f"o{n}": _Object(uid or f"uid-{n}") for n in range(count)}


def _doubts(
    held: Mapping[str, _Object], listed: Mapping[str, _Object], *times: float
) -> list[bool]:
    guard = ShrinkGuard(CONFIRM)
    return [bool(guard.doubt(held, listed, now)) for now in times]


@pytest.mark.parametrize(
    ("held", "listed", "is_doubted"),
    [
        (0, 0, False),
        (1, 0, True),
        (9, 1, False),
        (9, 0, True),
        (10, 5, False),
        (10, 4, True),
        (10, 20, False),
        (5000, 4000, False),
        (5000, 2499, True),
    ],
)
def test_list_is_doubted_when_it_lost_most(
    held: int, listed: int, is_doubted: bool
) -> None:
    assert _doubts(_objects(held), _objects(listed), 0) == [is_doubted]


def test_other_objects_of_the_same_names_are_no_proof() -> None:
    """Another cluster has the same names, and other uids."""
    assert _doubts(_objects(3), _objects(3, uid="other"), 0) == [True]


@pytest.mark.parametrize(
    ("times", "doubts"),
    [
        ((0, 10, 20, 30), [True, True, True, False]),
        ((0, 60), [True, True]),
        ((0, 1, 2, 3), [True, True, True, True]),
    ],
)
def test_doubt_ends_after_enough_time_and_lists(
    times: tuple[float, ...], doubts: list[bool]
) -> None:
    assert _doubts(_objects(3), {}, *times) == doubts


def test_doubt_starts_over_after_a_sound_list() -> None:
    guard = ShrinkGuard(CONFIRM)
    held = _objects(3)
    answers = [
        bool(guard.doubt(held, listed, now))
        for listed, now in (({}, 0), ({}, 20), (held, 25), ({}, 40))
    ]

    assert answers == [True, True, False, True]


def test_list_without_its_anchor_is_never_believed() -> None:
    guard = ShrinkGuard(CONFIRM, frozenset({"o0"}))
    held = _objects(20)
    listed = {key: value for key, value in held.items() if key != "o0"}

    assert all("lacks 'o0'" in guard.doubt(held, listed, now) for now in (0, 50, 99))


def test_anchor_that_was_never_there_is_not_missed() -> None:
    guard = ShrinkGuard(CONFIRM, frozenset({"absent"}))

    assert not guard.doubt(_objects(20), _objects(19), 0)
