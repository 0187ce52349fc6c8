"""
The Lease by which one controller writes at a time: requests around ``election``.

A failure is state: *error* says why the Lease could not be read or written, and the
next attempt follows.  Every request ends in time: a leader that cannot renew stops
leading by its own clock, whatever its connection does.

Who calls it: ``controller``, which asks ``is_leader`` before each write.
"""

import asyncio
import random
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
import structlog

from outgate.controller.election import Election, LeaseRecord
from outgate.errors import SourceError
from outgate.source.client import Client
from outgate.telemetry.events import Event

log = structlog.get_logger()

LEASE_NAME = "outgate-controller"
API = "/apis/coordination.k8s.io/v1"


class _Spec(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Lease(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec | None = None


class Lease:
    """The Lease *name* in *namespace*, and whether it is ours."""

    def __init__(
        self, client: Client, namespace: str, election: Election, name: str = LEASE_NAME
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._election = election
        self._changed = asyncio.Event()
        self._was_leader = False
        self.error: str | None = None

    @property
    def is_leader(self) -> bool:
        """Return whether this controller may write now."""
        return self._election.is_leader(time.monotonic())

    @property
    def holder(self) -> str:
        """Return who holds the Lease, as far as is known."""
        return self._election.holder

    async def wait_changed(self) -> None:
        """Return when leadership may have come or gone since the last return."""
        await self._changed.wait()
        self._changed.clear()

    async def run(self) -> None:
        """Compete until cancelled, then let go of the Lease if it is ours."""
        times = self._election.times
        try:
            while True:
                await self._attempt()
                await asyncio.sleep(times.retry * (1 + 0.2 * random.random()))
        finally:
            await self._release()

    async def _attempt(self) -> None:
        limit = self._election.times.renew_deadline / 2
        try:
            async with asyncio.timeout(limit):
                await self._read()
                record = self._election.attempt(_wall(), time.monotonic())
                if record is not None:
                    asked_at = time.monotonic()
                    written = await self._write(record)
                    self._election.wrote(written, asked_at, time.monotonic())
            self.error = None
        except SourceError as error:
            # A lost race is no failure: the next attempt reads who won.
            self.error = None if error.status == HTTPStatus.CONFLICT else str(error)
        except TimeoutError:
            self.error = f"lease {self._namespace}/{self._name}: no answer in time"
        self._note_leadership()

    async def _read(self) -> None:
        try:
            raw = await self._client.fetch(self._path, {})
        except SourceError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            self._election.observe(None, time.monotonic())
        else:
            self._election.observe(_decode(raw), time.monotonic())

    async def _write(self, record: LeaseRecord) -> LeaseRecord:
        body = self._encode(record)
        if not record.version:
            answer = await self._client.request("POST", self._collection, body=body)
        else:
            answer = await self._client.request("PUT", self._path, body=body)
        return _decode(msgspec.json.encode(answer))

    async def _release(self) -> None:
        """Hand over at once; when that fails, the others wait as for a crash."""
        record = self._election.release(_wall())
        if record is None:
            return
        try:
            async with asyncio.timeout(1.0):
                await self._write(record)
        except (SourceError, TimeoutError) as error:
            log.warning(Event.LEASE_KEPT, error=str(error) or "no answer in time")

    def _note_leadership(self) -> None:
        is_leader = self.is_leader
        if is_leader != self._was_leader:
            self._was_leader = is_leader
            event = Event.LEADER_WON if is_leader else Event.LEADER_LOST
            log.info(event, holder=self.holder, error=self.error)
            self._changed.set()

    @property
    def _collection(self) -> str:
        return f"{API}/namespaces/{self._namespace}/leases"

    @property
    def _path(self) -> str:
        return f"{self._collection}/{self._name}"

    def _encode(self, record: LeaseRecord) -> dict[str, Any]:
        metadata = {"name": self._name, "namespace": self._namespace}
        if record.version:
            metadata["resourceVersion"] = record.version
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": record.holder,
                "leaseDurationSeconds": record.duration_seconds,
                "acquireTime": record.acquired,
                "renewTime": record.renewed,
                "leaseTransitions": record.transitions,
            },
        }


def _decode(raw: bytes) -> LeaseRecord:
    try:
        found = msgspec.json.decode(raw, type=_Lease)
    except msgspec.DecodeError as error:
        raise SourceError(f"lease: {error}") from error
    spec = found.spec or _Spec()
    return LeaseRecord(
        holder=spec.holder_identity or "",
        duration_seconds=spec.lease_duration_seconds or 0,
        acquired=spec.acquire_time or "",
        renewed=spec.renew_time or "",
        transitions=spec.lease_transitions or 0,
        version=found.metadata.resource_version,
    )


def _wall() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
