"""
When to try again: exponential backoff.  Pure; the count of attempts is an argument.

No jitter: what is retried is the node's own kernel, which no other agent asks.
"""

from outgate.state.entries import Seconds

FIRST = Seconds(0.25)
LONGEST = Seconds(30.0)


def delay(attempts: int) -> Seconds:
    """
    Return how long to wait after *attempts* failures in a row, the first being 1.

    >>> [delay(attempts) for attempts in (1, 2, 3, 8, 1000)]
    [0.25, 0.5, 1.0, 30.0, 30.0]
    """
    # Beyond 2**16 the longest wait is reached anyway; the power must not overflow.
    return Seconds(min(FIRST * 2.0 ** min(attempts - 1, 16), LONGEST))
