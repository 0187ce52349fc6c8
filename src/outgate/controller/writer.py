"""
Brings ``status`` of policies to what is wanted: the one writer of it.

What it is: wanted and actual status by policy, and requests for where they differ,
while this controller leads: bounded in rate, tried again with growing waits, naming
the version that they change, so that a writer who has been asleep changes nothing.

What it is not: the judgement.  A CRD that somebody else installed may serve no status,
or drop its fields: that is shown once, and tried again only now and then.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import structlog

from outgate.controller.agenda import Agenda
from outgate.controller.notices import Notice, Subject, notices
from outgate.errors import SourceError
from outgate.policy.status import Json, PolicyStatus
from outgate.source.client import MERGE_PATCH, Client
from outgate.telemetry.events import Event

log = structlog.get_logger()


WRITE_SECONDS = 5.0
"""A write ends before anybody else can lead: shorter than duration - renew_deadline."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds until a write that failed is tried again; doubled each time."""

FOREIGN_WAIT = 300.0
"""The same for a kind whose CRD keeps no status: somebody must install another."""

GAP_SECONDS = 1.0
"""Between two writes to one policy, whatever changes."""

COUNT_GAP_SECONDS = 15.0
"""The same where only the count of pods changed: every agent is told of each write."""

COUNT = "matchedPods"


@dataclass(frozen=True, slots=True)
class Observed:
    """A policy as the API has it: where, in which version, and its status."""

    subject: Subject
    path: str
    version: str
    status: Json


@dataclass(slots=True)
class _Entry:
    wanted: PolicyStatus | None = None
    observed: Observed | None = None
    attempts: int = 0
    written_at: float = -COUNT_GAP_SECONDS
    retry_at: float = 0.0
    error: str = ""


@dataclass(slots=True)
class Counts:
    """How many status writes there were, by what became of them."""

    written: int = 0
    conflicts: int = 0
    failed: int = 0


class StatusWriter:
    """*may_write* is asked before each request; *tell* gets what is news."""

    def __init__(
        self,
        client: Client,
        may_write: Callable[[], bool],
        tell: Callable[[Notice], None],
    ) -> None:
        self._client = client
        self._may_write = may_write
        self._tell = tell
        self._entries: dict[str, _Entry] = {}
        self._changed: set[str] = set()
        self._agenda = Agenda(time.monotonic())
        self._foreign: dict[str, tuple[str, float]] = {}
        self._wake = asyncio.Event()
        self.counts = Counts()

    @property
    def failures(self) -> Mapping[str, str]:
        """Return why writes fail, by policy and by kind; empty while all is well."""
        own = {key: e.error for key, e in self._entries.items() if e.error}
        return own | {kind: error for kind, (error, _) in self._foreign.items()}

    def observe(self, key: str, observed: Observed | None) -> None:
        """Take the policy *key* as the API has it now; None: it is gone."""
        self._change(key).observed = observed
        self._drop_empty(key)

    def want(self, key: str, wanted: PolicyStatus | None) -> None:
        """Take what the status of *key* is to be; None: leave it alone."""
        self._change(key).wanted = wanted
        self._drop_empty(key)

    def wake(self) -> None:
        """Look again: leadership may have come."""
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled; failures are state, not raised."""
        while True:
            if not self._may_write():
                # Who leads next compares everything with what the API has.
                self._changed.update(self._entries)
                await self._sleep(None)
                continue
            changed, self._changed = self._changed, set()
            for key in changed:
                self._plan(key)
            due, wait = self._agenda.take(time.monotonic())
            if due is None:
                await self._sleep(wait)
            elif (entry := self._entries.get(due)) is not None:
                await self._settle(due, entry)

    async def _sleep(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _change(self, key: str) -> _Entry:
        self._changed.add(key)
        self._wake.set()
        return self._entries.setdefault(key, _Entry())

    def _drop_empty(self, key: str) -> None:
        entry = self._entries[key]
        if entry.wanted is None and entry.observed is None:
            del self._entries[key]

    def _plan(self, key: str) -> None:
        """Put *key* on the agenda if its status differs from what is wanted."""
        entry = self._entries.get(key)
        status = _difference(entry) if entry is not None else None
        if entry is None or entry.observed is None or status is None:
            self._agenda.drop(key)
            if entry is not None:
                entry.attempts, entry.error = 0, ""
            return
        observed = entry.observed
        is_urgent = any(
            observed.status.get(n) != status[n] for n in status.keys() - {COUNT}
        )
        gap = GAP_SECONDS if is_urgent else COUNT_GAP_SECONDS
        _, recheck = self._foreign.get(observed.subject.kind, ("", 0.0))
        due = max(entry.written_at + gap, entry.retry_at, recheck)
        self._agenda.put(key, due, is_urgent=is_urgent)

    async def _settle(self, key: str, entry: _Entry) -> None:
        observed, status = entry.observed, _difference(entry)
        if observed is None or status is None:
            return
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                answer = await self._patch(observed, status)
        except TimeoutError:
            self._fail(key, entry, "no answer in time")
        except SourceError as error:
            await self._refused(key, entry, observed, error)
        else:
            self._note(entry, observed, status, answer)

    async def _patch(self, observed: Observed, status: dict[str, Any]) -> Any:
        body = {"metadata": {"resourceVersion": observed.version}, "status": status}
        return await self._client.request(
            "PATCH",
            f"{observed.path}/status",
            params={"fieldManager": "outgate-controller"},
            body=body,
            content_type=MERGE_PATCH,
        )

    def _note(
        self, entry: _Entry, before: Observed, status: dict[str, Any], answer: Any
    ) -> None:
        """Take the API's answer to a write."""
        kept = answer.get("status") or {} if isinstance(answer, dict) else {}
        kind = before.subject.kind
        if _ours(kept, status) != status:
            self._shun(kind, "its CRD drops fields of status")
            return
        self._foreign.pop(kind, None)
        self.counts.written += 1
        entry.attempts, entry.error = 0, ""
        entry.written_at = time.monotonic()
        if entry.observed is before:
            version = answer["metadata"]["resourceVersion"]
            entry.observed = Observed(before.subject, before.path, version, kept)
        for notice in notices(before.subject, before.status, status):
            self._tell(notice)

    async def _refused(
        self, key: str, entry: _Entry, observed: Observed, error: SourceError
    ) -> None:
        if error.status == HTTPStatus.CONFLICT:
            # The watch brings what changed; this only makes sure.
            self.counts.conflicts += 1
            entry.retry_at = time.monotonic() + FIRST_WAIT
            self._changed.add(key)
        elif error.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self._shun(observed.subject.kind, "its CRD serves no status")
        elif error.status == HTTPStatus.NOT_FOUND:
            await self._missing(key, entry, observed)
        else:
            self._fail(key, entry, str(error))

    async def _missing(self, key: str, entry: _Entry, observed: Observed) -> None:
        """Tell a policy that is gone from one whose kind serves no status."""
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self._client.fetch(observed.path, {})
        except TimeoutError:
            self._fail(key, entry, "no answer in time")
        except SourceError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                self._fail(key, entry, str(error))
        else:
            self._shun(observed.subject.kind, "its CRD serves no status")

    def _fail(self, key: str, entry: _Entry, error: str) -> None:
        self.counts.failed += 1
        if error != entry.error:
            log.warning(Event.STATUS_REFUSED, policy=key, error=error)
        entry.error = error
        wait = min(FIRST_WAIT * 2.0 ** min(entry.attempts, 16), LONGEST_WAIT)
        entry.attempts += 1
        entry.retry_at = time.monotonic() + wait
        self._changed.add(key)

    def _shun(self, kind: str, what: str) -> None:
        """Leave a kind alone for a while: no write to it can succeed."""
        error = (
            f"{kind}: {what}, so users see nothing of what becomes of their policies;"
            " install the CRD of this release: kubectl apply -f deploy/crds"
        )
        if kind not in self._foreign:
            log.warning(Event.STATUS_REFUSED, policy=kind, error=error)
        self.counts.failed += 1
        self._foreign[kind] = (error, time.monotonic() + FOREIGN_WAIT)
        self._changed.update(
            key
            for key, entry in self._entries.items()
            if entry.observed is not None and entry.observed.subject.kind == kind
        )


def _difference(entry: _Entry) -> dict[str, Any] | None:
    """Return the status to write; None where it stands already, or is not known."""
    if entry.observed is None or entry.wanted is None:
        return None
    status = entry.wanted.to_json(entry.observed.status, _wall())
    return None if _ours(entry.observed.status, status) == status else status


def _ours(status: Json, like: Json) -> Json:
    """Return what *status* says of the fields that *like* has."""
    return {name: status.get(name) for name in like}


def _wall() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
