"""
What deserves an Event when a policy's status changes, and how often.  Pure.

A condition that turns True is Normal, one that turns False (or is False for another
reason) is a Warning.  Unknown and Pending pass and are no news.  ``events`` writes
them.
"""

from dataclasses import dataclass

from outgate.policy.status import PENDING, Json, Truth, conditions_of

NORMAL = "Normal"
WARNING = "Warning"

BURST = 10
REFILL_SECONDS = 60.0
"""A policy that flaps may be told of so often at once, and then once a minute."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The policy that a notice is about."""

    api_version: str
    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell: *type* is Normal or Warning, *reason* a word in CamelCase."""

    subject: Subject
    type: str
    reason: str
    message: str


def notices(subject: Subject, before: Json, after: Json) -> tuple[Notice, ...]:
    """Return what is news in the status *after* to one who knows *before*."""
    known = conditions_of(before)
    found = []
    for aspect, condition in conditions_of(after).items():
        if _is_news(known.get(aspect, {}), condition):
            is_good = condition["status"] == Truth.TRUE
            # "Programmed" says more than the reason of a condition that is True.
            reason = aspect if is_good else condition["reason"]
            kind = NORMAL if is_good else WARNING
            found.append(Notice(subject, kind, reason, condition["message"]))
    return tuple(found)


def _is_news(before: Json, after: Json) -> bool:
    if after["status"] == Truth.UNKNOWN or after["reason"] == PENDING:
        return False
    if after["status"] != before.get("status"):
        return True
    is_other = bool(after["reason"] != before.get("reason"))
    return after["status"] == Truth.FALSE and is_other


class Allowance:
    """How many notices each policy has left; *now* is of any steady clock."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, uid: str, now: float) -> bool:
        """Return whether one more notice about the policy *uid* may be written."""
        left, since = self._left.get(uid, (float(BURST), now))
        left = min(float(BURST), left + (now - since) / REFILL_SECONDS)
        may = left >= 1.0
        self._left[uid] = (left - 1.0 if may else left, now)
        return may

    def forget_full(self, now: float) -> None:
        """Drop what is known of policies that have been quiet for long."""
        quiet = BURST * REFILL_SECONDS
        self._left = {u: v for u, v in self._left.items() if now - v[1] < quiet}

    def __len__(self) -> int:
        return len(self._left)
