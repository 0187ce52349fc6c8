"""Repeat a measurement until its median stands still, or for so many rounds."""

from collections.abc import Callable
from statistics import median

SPREAD = 0.05
"""Two halves of the rounds may differ by this share."""

FEWEST, MOST = 6, 24
"""Rounds."""


def is_stable(values: list[float]) -> bool:
    """
    Do the medians of every second round and of the others agree?

    >>> is_stable([10, 10.1, 10, 30, 10, 10.2, 10.1, 10])
    True
    >>> is_stable([10, 20, 10, 20, 10, 20])
    False

    One value alone is.
    """
    if len(values) < 2:
        return True
    one, other = median(values[::2]), median(values[1::2])
    return abs(one - other) <= SPREAD * max(abs(one), abs(other))


def stable_median(measure: Callable[[], float], most: int = MOST) -> float:
    """Return the median of as many rounds as it takes, *most* at most."""
    values: list[float] = []
    while len(values) < most:
        values.append(measure())
        if len(values) >= FEWEST and is_stable(values):
            break
    return median(values)
