"""
The list-and-watch machine of one kind: responses in, the next step out.  Pure.

What it is: all that must be decided between an API server and a set of objects:
streamed lists and pages, bookmarks, 410, a watch that ends, late events, lists that
shrink, errors, when to try again.  It speaks no HTTP, reads no clock and throws no
dice: *now* (seconds of any steady clock) and *seed* (0 to 1) are arguments.

What it is not: a decoder (``wire``) or a driver (``informer``).

::

    STREAMING --its end--------> WATCHING --end--> WATCHING again, from where it was
       |  not known here           ^   \\--410, ERROR--> STREAMING (old items stay)
       v                           |
    LISTING ------last page--------'

Items are replaced only by a complete list, so nothing is ever missing half-way, and
``shrink`` may still refuse it.  A missing kind (404) is an empty list, but only once it
has been missing for a while and no item is held: an API server that has just started
says 404 for custom resources that it has not loaded yet.  (When a CRD is deleted its
objects go first, so a healthy watch holds none by then.)

Versions are opaque.  Only where both are integers, an event that is older than what is
held counts as late.
"""

from collections.abc import Collection, Set
from enum import Enum
from http import HTTPStatus
from typing import Generic, TypeVar

import msgspec

from outgate.source.answers import (
    Bookmark,
    Deleted,
    Event,
    Failure,
    FetchPage,
    OpenWatch,
    Page,
    Step,
    Stored,
    StreamList,
    Wait,
)
from outgate.source.shrink import ShrinkGuard
from outgate.source.timing import DEFAULT_TIMING, Timing

T = TypeVar("T")

NO_STREAM = (400, 405, 422, 501)
"""What servers say that know no streamed lists, or have them switched off."""

BROKEN_STREAMS = 2
"""After so many streamed lists that broke off, pages are asked for."""

MOST_GONE = 10_000
"""Of so many deleted objects late events are known as such; they come soon or never."""


class Held(msgspec.Struct, Generic[T], gc=False):
    """What is held of one object; *order* is its version as a number, -1 if none."""

    value: T
    uid: str
    order: int


class _State(Enum):
    STREAMING = "streaming"
    LISTING = "listing"
    WATCHING = "watching"


class Reflection(Generic[T]):
    """
    The objects of one kind, as far as the server has told.

    What takes an answer returns the keys of the items that changed.  Once *is_open* is
    False the connection must be let go.  *anchors* are keys without which no list is
    believed, once they were there.
    """

    def __init__(
        self,
        timing: Timing = DEFAULT_TIMING,
        *,
        may_be_missing: bool = False,
        can_stream: bool = True,
        anchors: Set[str] = frozenset(),
    ) -> None:
        self.items: dict[str, Held[T]] = {}
        self.is_listed = False
        self.error: str | None = None
        self.failures = 0
        self.lists = 0
        self.watches = 0
        self.events = 0
        self.is_open = False
        self._timing = timing
        self._may_be_missing = may_be_missing
        self._can_stream = can_stream
        self._guard = ShrinkGuard(timing.confirm, anchors)
        self._state = _State.LISTING
        self._gone: dict[str, int] = {}
        self._pending: dict[str, Held[T]] = {}
        self._continue_token = ""
        self._resource_version = ""
        self._broken_streams = 0
        self._failures_in_row = 0
        self._expiries_in_row = 0
        self._retry_at = 0.0
        self._missing_since: float | None = None
        self._watch_opened_at = 0.0
        self._watch_events = 0
        self._restart_list()

    @property
    def is_complete(self) -> bool:
        """Return whether a full list came and nothing has failed since."""
        return self.is_listed and self.error is None

    @property
    def order(self) -> int:
        """Return how far this has come, as a number; -1 if that is none."""
        return as_number(self._resource_version)

    @property
    def is_watching(self) -> bool:
        """Return whether the last list is done."""
        return self._state is _State.WATCHING

    def next_step(self, now: float) -> Step:
        """Return what to do now."""
        if now < self._retry_at:
            return Wait(self._retry_at - now)
        match self._state:
            case _State.STREAMING:
                return StreamList()
            case _State.LISTING:
                return FetchPage(self._continue_token)
            case _State.WATCHING:
                return OpenWatch(self._resource_version)

    def receive_page(self, page: Page[T], now: float, seed: float) -> Collection[str]:
        """Take one page."""
        for item in page.items:
            self._add_pending(item)
        self._continue_token = page.continue_token
        if page.continue_token:
            return ()
        return self._finish_list(page.resource_version, now, seed)

    def receive_opened(self, now: float) -> None:
        """Take the start of a watch or of a streamed list."""
        self.is_open = True
        self._watch_opened_at = now
        self._watch_events = 0
        self._gone.clear()
        if self.is_watching:
            self.watches += 1
            self.error = None

    def receive_event(
        self, event: Event[T], now: float, seed: float
    ) -> Collection[str]:
        """Take one event of what is open."""
        self._watch_events += 1
        if self._state is _State.STREAMING:
            return self._receive_listed(event, now, seed)
        self.events += 1
        self._expiries_in_row = 0
        self._recover()
        has_changed = self._apply(event)
        if event.resource_version and not self._is_past(event.resource_version):
            self._resource_version = event.resource_version
        return (event.key,) if has_changed and not isinstance(event, Bookmark) else ()

    def receive_end(self, now: float, seed: float) -> None:
        """Take the orderly end of a watch: go on from the last version."""
        if self._state is _State.STREAMING:
            self.receive_failure(Failure(0, "the list ended half-way"), now, seed)
            return
        self.is_open = False
        is_short = now - self._watch_opened_at < self._timing.short_watch
        if is_short and not self._watch_events:
            self._back_off(now, seed)
        else:
            self._recover()

    def receive_failure(self, failure: Failure, now: float, seed: float) -> None:
        """
        Take a failed request or an ERROR event.

        410 means that the version is too old: list anew, keeping all items until
        the new list is whole.  It is no fault of anybody's, unless it repeats.
        """
        if self._state is _State.STREAMING and failure.status in NO_STREAM:
            self.refuse_streams()
            return
        self._broken_streams += self.is_open and self._state is _State.STREAMING
        self.is_open = False
        if failure.status == HTTPStatus.GONE:
            self._restart_list()
            self._expiries_in_row += 1
            if self._expiries_in_row == 1:
                return
            self._failures_in_row = self._expiries_in_row - 2
        elif (
            failure.status == HTTPStatus.NOT_FOUND
            and self._may_be_missing
            and not self.items
        ):
            self._receive_missing(failure, now, seed)
            return
        self._missing_since = None
        self.failures += 1
        self.error = failure.message
        if not self.is_watching or not _is_passing(failure.status):
            self._restart_list()
        wanted = min(failure.retry_after, self._timing.longest_retry_after)
        self._back_off(now, seed, wanted)

    def list_anew(self) -> None:
        """Take that versions from before mean nothing to the server any more."""
        if self.is_watching:
            self._restart_list()

    def refuse_streams(self) -> None:
        """Take that the server ignores what a streamed list asks for."""
        self._can_stream = False
        self._restart_list()

    def _receive_listed(
        self, event: Event[T], now: float, seed: float
    ) -> Collection[str]:
        match event:
            case Stored():
                self._add_pending(event)
            case Deleted(key):
                self._pending.pop(key, None)
            case Bookmark(version, ends_list=True):
                self.watches += 1
                return self._finish_list(version, now, seed)
            case Bookmark():
                # A server that knows streamed lists ends them before it sends any.
                self.refuse_streams()
        return ()

    def _add_pending(self, item: Stored[T]) -> None:
        """Keep *item*, as the value that is held already if it is equal."""
        held = self.items.get(item.key)
        is_same = held is not None and held.value == item.value
        value = held.value if held is not None and is_same else item.value
        order = as_number(item.resource_version)
        self._pending[item.key] = Held(value, item.uid, order)

    def _finish_list(self, version: str, now: float, seed: float) -> Collection[str]:
        self.lists += 1
        if self.is_listed:
            doubt = self._guard.doubt(self.items, self._pending, now)
            if doubt:
                self.error = doubt
                self._restart_list()
                self._retry_at = now + self._guard.wait * (1 + seed / 10)
                return ()
        self._broken_streams = 0
        former, self.items, self._pending = self.items, self._pending, {}
        self.is_listed = True
        self._missing_since = None
        self._resource_version = version
        self._state = _State.WATCHING
        self._recover()
        changed = [
            key
            for key, held in self.items.items()
            if key not in former or former[key].value is not held.value
        ]
        changed += former.keys() - self.items.keys()
        return changed

    def _apply(self, event: Event[T]) -> bool:
        """Change the items by one event that is not late; return whether it did."""
        match event:
            case Stored(key, value, version, uid):
                held = self.items.get(key)
                order = as_number(version)
                if held is None:
                    if -1 < order <= self._gone.get(key, -1):
                        return False
                    self.items[key] = Held(value, uid, order)
                    return True
                if -1 < order < held.order:
                    return False
                has_changed = held.value != value
                held.uid, held.order = uid, order
                if has_changed:
                    held.value = value
                return has_changed
            case Deleted(key, version, uid):
                held = self.items.get(key)
                if held is None or (uid and held.uid and uid != held.uid):
                    return False
                order = as_number(version)
                if -1 < order < held.order:
                    return False
                del self.items[key]
                if len(self._gone) >= MOST_GONE:
                    self._gone.clear()
                self._gone[key] = order
                return True
            case Bookmark():
                return False

    def _is_past(self, version: str) -> bool:
        return -1 < as_number(version) < as_number(self._resource_version)

    def _receive_missing(self, failure: Failure, now: float, seed: float) -> None:
        if self._missing_since is None:
            self._missing_since = now
        self._restart_list()
        self._failures_in_row = 0
        self._retry_at = now + self._timing.missing_wait * (0.75 + 0.5 * seed)
        if self.is_listed or now - self._missing_since >= self._timing.missing:
            self.is_listed = True
            self.error = None
        else:
            self.error = failure.message

    def _restart_list(self) -> None:
        can_stream = self._can_stream and self._broken_streams < BROKEN_STREAMS
        self._state = _State.STREAMING if can_stream else _State.LISTING
        self.is_open = False
        self._pending = {}
        self._continue_token = ""

    def _recover(self) -> None:
        self.error = None
        self._failures_in_row = 0
        self._retry_at = 0.0

    def _back_off(self, now: float, seed: float, at_least: float = 0.0) -> None:
        """Wait twice as long each time, between half and all of it."""
        doubled = self._timing.first_wait * 2 ** min(self._failures_in_row, 16)
        self._failures_in_row += 1
        seconds = min(doubled, self._timing.longest_wait) * (0.5 + seed / 2)
        self._retry_at = now + max(seconds, at_least * (1 + seed / 10))


def as_number(version: str) -> int:
    """Return a version as a number, -1 where it is none: they have 64 bits at most."""
    is_number = version.isascii() and version.isdigit() and len(version) < 20
    return int(version) if is_number else -1


def _is_passing(status: int) -> bool:
    """Return whether a watch may go on where it was after such a failure."""
    return status in (0, 401, 403, 429) or status >= 500
