"""
Events on policies, as ``kubectl describe`` shows them.

What it is: core/v1 Events in namespace default (policies have no namespace), the same
notice counted up instead of written again, each policy limited in how many it gets.

What it is not: a record that must be whole.  An Event that the API refuses is let go;
the status says the same and is written until it stands.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import structlog

from outgate.controller.notices import Allowance, Notice
from outgate.errors import SourceError
from outgate.source.client import MERGE_PATCH, Client
from outgate.telemetry.events import Event

log = structlog.get_logger()

COMPONENT = "outgate-controller"
PATH = "/api/v1/namespaces/default/events"
REMEMBERED = 4096
"""So many notices are counted up; older ones are written anew."""

LONGEST_MESSAGE = 1024
"""The API's limit; the field is cut, the status has all of it."""


@dataclass(slots=True)
class _Written:
    name: str
    count: int


class Events:
    """Writes notices through *client*; *instance* is this controller's name."""

    def __init__(self, client: Client, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._allowance = Allowance()
        self._written: OrderedDict[Notice, _Written] = OrderedDict()
        self._queue: asyncio.Queue[Notice] = asyncio.Queue(maxsize=REMEMBERED)
        self._error: str | None = None
        self.written = 0
        self.refused = 0

    def tell(self, notice: Notice) -> None:
        """Have *notice* written soon; one too many is let go."""
        now = time.monotonic()
        if self._allowance.take(notice.subject.uid, now) and not self._queue.full():
            self._queue.put_nowait(notice)
        if len(self._allowance) > REMEMBERED:
            self._allowance.forget_full(now)

    async def run(self) -> None:
        """Write what is told, until cancelled."""
        while True:
            notice = await self._queue.get()
            try:
                await self._write(notice)
                self.written += 1
                self._error = None
            except SourceError as error:
                self.refused += 1
                if str(error) != self._error:
                    self._error = str(error)
                    log.warning(Event.EVENT_REFUSED, error=self._error)

    async def _write(self, notice: Notice) -> None:
        known = self._written.get(notice)
        if known is not None and await self._count_up(notice, known):
            return
        body = _event(notice, self._instance, _wall())
        await self._client.request("POST", PATH, body=body)
        self._written[notice] = _Written(body["metadata"]["name"], 1)
        self._written.move_to_end(notice)
        if len(self._written) > REMEMBERED:
            self._written.popitem(last=False)

    async def _count_up(self, notice: Notice, known: _Written) -> bool:
        """Return whether the Event is still there; the API drops them after an hour."""
        body = {"count": known.count + 1, "lastTimestamp": _wall()}
        try:
            await self._client.request(
                "PATCH", f"{PATH}/{known.name}", body=body, content_type=MERGE_PATCH
            )
        except SourceError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return False
        known.count += 1
        return True


def _event(notice: Notice, instance: str, now: str) -> dict[str, Any]:
    subject = notice.subject
    # Made of what is told and when, as client-go does: unique, and short enough.
    seed = f"{subject.uid}{notice.reason}{notice.message}{time.time_ns()}"
    suffix = hashlib.blake2b(seed.encode(), digest_size=8).hexdigest()
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{subject.name[:200].rstrip('.-')}.{suffix}",
            "namespace": "default",
        },
        "involvedObject": {
            "apiVersion": subject.api_version,
            "kind": subject.kind,
            "name": subject.name,
            "uid": subject.uid,
        },
        "type": notice.type,
        "reason": notice.reason,
        "message": notice.message[:LONGEST_MESSAGE],
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": instance[:128],
    }


def _wall() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
