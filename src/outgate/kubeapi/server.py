"""
The API as a running server: sockets, the journal, and a sensible beginning.

What it is: ``ApiServer``, which serves HTTP, or HTTPS when given a TLS context, on
sockets that somebody else has bound (they may come from other network namespaces), so
that unmodified ``kubectl`` works; ``kubectl`` sends a token over HTTPS only. With a
journal, a killed server comes back with the same objects, uids and a resourceVersion
that goes on; watches from before get 410 and list again.

What is not faked, and answers with a Status that says so:

- no users, no RBAC: at most one bearer token;
- no controllers: nothing schedules, restarts, replaces or garbage-collects; owner
  references are kept but not followed, events do not expire;
- no workload kinds (Deployment, DaemonSet, Job ...), no quotas, no
  Endpoints (and one EndpointSlice, that of the API itself);
- no admission webhooks, no conversion webhooks, no CEL rules in CRDs;
- pods: no attach, port-forward, proxy, ephemeral containers or eviction; exec over
  WebSockets only (no SPDY);
- OpenAPI v3 only; protobuf is read for a few kinds and never written.
"""

from __future__ import annotations

import socket
import ssl
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from outgate.kubeapi.backend import PodBackend
from outgate.kubeapi.catalogue import Catalogue
from outgate.kubeapi.crds import Resource
from outgate.kubeapi.furniture import Address, furnish
from outgate.kubeapi.journal import Journal
from outgate.kubeapi.objects import CRD_KIND, SERVICE_NETWORK, Objects, ServiceNetwork
from outgate.kubeapi.routes import Api
from outgate.kubeapi.storage import Storage, Stored, index
from outgate.kubeapi.streams import Wakeups

_LARGEST_BODY = 8 * 1024 * 1024
_SHUTDOWN_SECONDS = 2.0


class ApiServer:
    """
    One API; *history* is how many changes of each resource a watch may lag behind.

    *journal* is a file that keeps everything; *backend* runs exec and logs; with
    *token*, only health and version answer without it; *service_networks* are where
    services get their addresses, the primary one first; *addresses* are those at which
    clients inside the cluster find this API.
    """

    def __init__(
        self,
        *,
        journal: Path | None = None,
        backend: PodBackend | None = None,
        token: str | None = None,
        history: int = 10_000,
        service_networks: Sequence[ServiceNetwork] = (SERVICE_NETWORK,),
        addresses: Sequence[Address] = (),
    ) -> None:
        self._journal = None if journal is None else Journal(journal)
        self._wakeups = Wakeups()
        if self._journal is None:
            storage = Storage(history=history, notify=self._wakeups.notify)
        else:
            storage = Storage(
                history=history,
                keep=self._journal.keep,
                notify=self._wakeups.notify,
            )
        self._objects = Objects(
            storage, Catalogue(), _now, _new_uid, service_networks[0]
        )
        if self._journal is not None:
            _restore(self._objects, self._journal)
        furnish(self._objects, service_networks, addresses)
        api = Api(self._objects, self._wakeups, backend, token)
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", api.respond)
        # Cancelled when its client goes: a quiet log would never notice otherwise.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )

    async def start(
        self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None = None
    ) -> None:
        """Serve on *sockets*, which are bound; they are listened on from here."""
        await self._runner.setup()
        for sock in sockets:
            await web.SockSite(self._runner, sock, ssl_context=tls).start()

    async def stop(self) -> None:
        """End all watches, close the sockets, then the journal."""
        self._wakeups.close()
        await self._runner.cleanup()
        if self._journal is not None:
            self._journal.close()


def _now() -> datetime:
    return datetime.now(UTC)


def _new_uid() -> str:
    return str(uuid.uuid4())


def _restore(objects: Objects, journal: Journal) -> None:
    """Definitions first: they say which other kinds the journal may hold."""
    catalogue = objects.catalogue
    definitions = catalogue.built_in(CRD_KIND)
    for _, crd in journal.objects(definitions.kind.resource):
        catalogue.serve(crd)
    kept = [
        (resource.kind.resource, stored)
        for resource in list(catalogue.stored())
        for stored in _restored(resource, journal)
    ]
    objects.storage.restore(kept, journal.version())


def _restored(resource: Resource, journal: Journal) -> list[Stored]:
    rows = journal.objects(resource.kind.resource)
    return [index(resource.kind, obj, version) for version, obj in rows]
