"""
The list-and-watch machine of one kind: responses in, the next step out.  Pure.

What it is: all that must be decided between an API server and a set of objects:
pages, bookmarks, 410, a watch that ends, errors, when to try again.  It speaks no
HTTP, reads no clock and throws no dice: *now* (seconds of any steady clock) and
*seed* (0 to 1) are arguments.

What it is not: a decoder or a driver; ``kubernetes`` is both.

::

    LISTING --last page--> WATCHING --end--> WATCHING again, from where it was
       ^  \\--failure-->  (wait)      --410, ERROR--> LISTING (old items stay)
       |________________________________________________/

Items are replaced only by a complete list, so nothing is ever missing half-way.
A missing kind (404) is an empty list, but only once it has been missing for
``MISSING_SECONDS`` and no item is held: an API server that has just started says
404 for custom resources that it has not loaded yet.  (When a CRD is deleted its
objects go first, so a healthy watch holds none by then.)
"""

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")

GONE = 410
NOT_FOUND = 404

FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 30.0

MISSING_SECONDS = 5.0
"""How long a kind must be missing before that is believed."""

MISSING_WAIT_SECONDS = 2.0
"""How soon a missing kind is asked for again: its CRD may come at any time."""

SHORT_WATCH_SECONDS = 1.0
"""A watch that ends sooner without an event counts as a failure: no busy loop."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One answer to a list; *continue_token* is empty on the last page."""

    items: tuple[tuple[str, T], ...]
    resource_version: str
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class Stored(Generic[T]):
    """ADDED and MODIFIED: the difference means nothing to us."""

    key: str
    value: T
    resource_version: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """The object is gone."""

    key: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Nothing changed up to this version."""

    resource_version: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A request failed, or a watch said ERROR; *status* 0 is "no answer"."""

    status: int
    message: str


Event = Stored[T] | Deleted | Bookmark


@dataclass(frozen=True, slots=True)
class FetchPage:
    """Ask for a list, or for its next page."""

    continue_token: str


@dataclass(frozen=True, slots=True)
class OpenWatch:
    """Watch what happens after this version."""

    resource_version: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for that long."""

    seconds: float


Step = FetchPage | OpenWatch | Wait


class _State(Enum):
    LISTING = "listing"
    WATCHING = "watching"


class Reflection(Generic[T]):
    """The objects of one kind, as far as the server has told."""

    def __init__(self, *, may_be_missing: bool = False) -> None:
        self.items: dict[str, T] = {}
        self.is_listed = False
        self.error: str | None = None
        self.failures = 0
        self.lists = 0
        self.watches = 0
        self.events = 0
        self._may_be_missing = may_be_missing
        self._state = _State.LISTING
        self._pending: dict[str, T] = {}
        self._continue_token = ""
        self._resource_version = ""
        self._failures_in_row = 0
        self._expiries_in_row = 0
        self._retry_at = 0.0
        self._missing_since: float | None = None
        self._watch_opened_at = 0.0
        self._watch_events = 0

    @property
    def is_complete(self) -> bool:
        """Return whether a full list came and nothing has failed since."""
        return self.is_listed and self.error is None

    def next_step(self, now: float) -> Step:
        """Return what to do now."""
        if now < self._retry_at:
            return Wait(self._retry_at - now)
        if self._state is _State.LISTING:
            return FetchPage(self._continue_token)
        return OpenWatch(self._resource_version)

    def receive_page(self, page: Page[T]) -> bool:
        """Take one page; return whether items or completeness changed."""
        self._pending.update(page.items)
        self._continue_token = page.continue_token
        if page.continue_token:
            return False
        was_complete = self.is_complete
        has_changed = self._pending != self.items
        self.items, self._pending = self._pending, {}
        self.is_listed = True
        self._missing_since = None
        self.lists += 1
        self._resource_version = page.resource_version
        self._state = _State.WATCHING
        self._recover()
        return has_changed or not was_complete

    def receive_opened(self, now: float) -> bool:
        """Take the start of a watch; return whether completeness changed."""
        was_complete = self.is_complete
        self.watches += 1
        self._watch_opened_at = now
        self._watch_events = 0
        self.error = None
        return not was_complete

    def receive_event(self, event: Event[T]) -> bool:
        """Take one event; return whether items changed."""
        self.events += 1
        self._watch_events += 1
        self._expiries_in_row = 0
        self._resource_version = event.resource_version or self._resource_version
        self._recover()
        match event:
            case Stored(key, value):
                has_changed = self.items.get(key) != value
                self.items[key] = value
                return has_changed
            case Deleted(key):
                return self.items.pop(key, None) is not None
            case Bookmark():
                return False

    def receive_end(self, now: float, seed: float) -> None:
        """Take the orderly end of a watch: go on from the last version."""
        is_short = now - self._watch_opened_at < SHORT_WATCH_SECONDS
        if is_short and not self._watch_events:
            self._back_off(now, seed)
        else:
            self._recover()

    def receive_failure(self, failure: Failure, now: float, seed: float) -> bool:
        """
        Take a failed request or an ERROR event; return whether to look again.

        410 means that the version is too old: list anew, keeping all items until
        the new list is whole.  It is no fault of anybody's, unless it repeats.
        """
        was_complete = self.is_complete
        if failure.status == GONE:
            self._restart_list()
            self._expiries_in_row += 1
            if self._expiries_in_row == 1:
                return False
            self._failures_in_row = self._expiries_in_row - 2
        elif failure.status == NOT_FOUND and self._may_be_missing and not self.items:
            return self._receive_missing(failure, now, seed)
        self._missing_since = None
        self.failures += 1
        self.error = failure.message
        if self._state is _State.LISTING or not _is_passing(failure.status):
            self._restart_list()
        self._back_off(now, seed)
        return was_complete

    def _receive_missing(self, failure: Failure, now: float, seed: float) -> bool:
        was_complete = self.is_complete
        if self._missing_since is None:
            self._missing_since = now
        self._restart_list()
        self._failures_in_row = 0
        self._retry_at = now + MISSING_WAIT_SECONDS * (0.75 + 0.5 * seed)
        if self.is_listed or now - self._missing_since >= MISSING_SECONDS:
            self.is_listed = True
            self.error = None
        else:
            self.error = failure.message
        return self.is_complete != was_complete

    def _restart_list(self) -> None:
        self._state = _State.LISTING
        self._pending = {}
        self._continue_token = ""

    def _recover(self) -> None:
        self.error = None
        self._failures_in_row = 0
        self._retry_at = 0.0

    def _back_off(self, now: float, seed: float) -> None:
        """Wait twice as long each time, between half and all of it."""
        doubled = FIRST_WAIT_SECONDS * 2 ** min(self._failures_in_row, 16)
        self._failures_in_row += 1
        self._retry_at = now + min(doubled, LONGEST_WAIT_SECONDS) * (0.5 + seed / 2)


def _is_passing(status: int) -> bool:
    """Return whether a watch may go on where it was after such a failure."""
    return status in (0, 429) or status >= 500
