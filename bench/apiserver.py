"""
The benchmark's API server: a process that serves ``store`` and changes it on command.

What it is: paged lists, streamed first lists, watches with replay, bookmarks and 410,
label and field selectors, as ``kube-apiserver`` answers them; and a unix socket that
takes commands, one JSON line each, and tells when (CLOCK_MONOTONIC) each was done.

What it is not: fast at the cost of being like the real one: objects have their real
size.  Not there: TLS, compression, authentication, validation.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from bench.churn import Commands
from bench.store import Change, Collection, Document, Store, made_by
from bench.world import PolicyKind, World
from outgate.kubeapi.selectors import Selector, parse_fields, parse_labels

FIELDS = ("metadata.name", "metadata.namespace", "spec.nodeName", "status.phase")
BOOKMARK_SECONDS = 60.0
CHUNK_BYTES = 1 << 18


class GoneError(Exception):
    """The version that was asked for is older than the journal."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What one request is about."""

    collection: Collection
    namespace: str
    selector: Selector

    def selects(self, item: Any) -> bool:
        return self.collection.selects(self.selector, self.namespace, item)

    def items(self) -> list[Any]:
        candidates = self.collection.candidates(self.selector)
        return [item for item in candidates if self.selects(item)]

    def lines(self, change: Change) -> bytes:
        """Return what a watch of this scope says of *change*; empty for nothing."""
        was = change.before is not None and self.selects(change.before)
        stays = change.after is not None and self.selects(change.after)
        if not was and not stays:
            return b""
        word = b"DELETED" if not stays else b"MODIFIED" if was else b"ADDED"
        # An item that leaves the selection is sent as it was, under its new version.
        item = change.before._replace(version=change.version) if not stays else None
        return self.line(word, item or made_by(change))

    def line(self, word: bytes, item: Any) -> bytes:
        return b'{"type":"%s","object":%s}\n' % (word, self.collection.render(item))

    def replay(self, version: int) -> Iterator[bytes]:
        """Yield what happened after *version*."""
        journal = self.collection.journal
        if len(journal) == journal.maxlen and journal[0].version > version:
            raise GoneError
        newer = [change for change in journal if change.version > version]
        return (line for change in newer if (line := self.lines(change)))


class Api:
    """The HTTP side."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watches: dict[asyncio.Queue[bytes], Scope] = {}
        self._pages: dict[str, tuple[list[Any], int]] = {}
        self.requests = 0
        self.sent_bytes = 0

    def publish(self, collection: Collection, change: Change) -> None:
        """Tell all watches of *collection*."""
        for queue, scope in self._watches.items():
            if scope.collection is collection and (line := scope.lines(change)):
                queue.put_nowait(line)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        found = self._find(request.path)
        if found is None:
            return _status(404, f"{request.path} is not served here")
        collection, namespace, name = found
        if request.method != "GET":
            return await self._write(request, collection, name)
        if name:
            item = collection.items.get(f"{namespace}/{name}" if namespace else name)
            if item is None:
                return _status(404, f"{name} not found")
            return _json(collection.render(item))
        query = request.query
        labels = parse_labels(query.get("labelSelector", ""))
        fields = parse_fields(query.get("fieldSelector", ""), FIELDS)
        scope = Scope(collection, namespace, Selector(labels, fields))
        if query.get("watch") in ("true", "1"):
            return await self._watch(request, scope)
        return self._list(scope, query.get("limit"), query.get("continue"))

    def _find(self, path: str) -> tuple[Collection, str, str] | None:
        """Return a collection, a namespace and a name (both may be empty)."""
        collections = self._store.collections
        if path in collections:
            return collections[path], "", ""
        head, _, tail = path.rpartition("/")
        if tail == "status":
            head, _, tail = head.rpartition("/")
        if head in collections:
            return collections[head], "", tail
        group, found, rest = path.partition("/namespaces/")
        namespace, _, rest = rest.partition("/")
        resource, _, name = rest.partition("/")
        collection = collections.get(f"{group}/{resource}")
        return (collection, namespace, name) if found and collection else None

    def _list(
        self, scope: Scope, limit: str | None, token: str | None
    ) -> web.StreamResponse:
        if token:
            items, version = self._pages.pop(token, ([], 0))
            if not version:
                return _status(410, "the continue token is too old")
        else:
            items, version = scope.items(), self._store.version
        size = int(limit or 0) or len(items)
        page, rest = items[:size], items[size:]
        following = ""
        if rest:
            following = f"{version}-{len(self._pages)}-{len(rest)}-{self.requests}"
            self._pages[following] = rest, version
        collection = scope.collection
        metadata = {"resourceVersion": str(version), "continue": following}
        head = json.dumps(
            {
                "kind": f"{collection.kind}List",
                "apiVersion": collection.api_version,
                "metadata": metadata,
            }
        ).encode()
        body = b",".join(map(collection.render, page))
        self.sent_bytes += len(body)
        return _json(b'%s,"items":[%s]}' % (head[:-1], body))

    async def _watch(self, request: web.Request, scope: Scope) -> web.StreamResponse:
        query = request.query
        version = int(query.get("resourceVersion") or 0)
        streamed = query.get("sendInitialEvents") == "true"
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        first: Iterable[bytes]
        try:
            if streamed or not version:
                first = self._initial(scope, streamed)
            else:
                first = scope.replay(version)
        except GoneError:
            return _status(410, f"too old resource version: {version}")
        # From here to the registration nothing waits, so that no change is missed.
        self._watches[queue] = scope
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        deadline = time.monotonic() + float(query.get("timeoutSeconds") or 1800)
        try:
            await response.prepare(request)
            async for chunk in self._chunks(first, queue, scope, deadline):
                self.sent_bytes += len(chunk)
                await response.write(chunk)
        except (ConnectionError, asyncio.CancelledError):
            return response
        finally:
            del self._watches[queue]
        return response

    async def _chunks(
        self,
        first: Iterable[bytes],
        queue: asyncio.Queue[bytes],
        scope: Scope,
        deadline: float,
    ) -> AsyncIterator[bytes]:
        lines: list[bytes] = []
        size = 0
        for line in first:
            lines.append(line)
            size += len(line)
            if size >= CHUNK_BYTES:
                yield b"".join(lines)
                lines, size = [], 0
        if lines:
            yield b"".join(lines)
        while (left := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(min(left, BOOKMARK_SECONDS)):
                    pieces = [await queue.get()]
            except TimeoutError:
                yield self._bookmark(scope.collection, self._store.version, {})
                continue
            while not queue.empty():
                pieces.append(queue.get_nowait())
            yield b"".join(pieces)

    def _initial(self, scope: Scope, streamed: bool) -> Iterator[bytes]:
        items, version = scope.items(), self._store.version

        def lines() -> Iterator[bytes]:
            for item in items:
                yield scope.line(b"ADDED", item)
            if streamed:
                end = {"k8s.io/initial-events-end": "true"}
                yield self._bookmark(scope.collection, version, end)

        return lines()

    @staticmethod
    def _bookmark(
        collection: Collection, version: int, annotations: dict[str, str]
    ) -> bytes:
        metadata = {"resourceVersion": str(version), "annotations": annotations}
        head = {"kind": collection.kind, "apiVersion": collection.api_version}
        event = {"type": "BOOKMARK", "object": {**head, "metadata": metadata}}
        return json.dumps(event).encode() + b"\n"

    async def _write(
        self, request: web.Request, collection: Collection, name: str
    ) -> web.StreamResponse:
        """Store what an agent tells of itself; members given replace those held."""
        content = json.loads(await request.read())
        name = name or content["metadata"]["name"]
        held = collection.items.get(name)
        if request.method == "DELETE" or (held and not isinstance(held, Document)):
            return _status(405, f"{request.method} is not served here")
        if request.method == "PUT" and held is None:
            return _status(404, f"{name} not found")
        merged = (held.content if held else {}) | content
        merged["metadata"] = merged.get("metadata", {}) | {"name": name}
        change = self._store.put(collection, Document(name, merged))
        self.publish(collection, change)
        return _json(collection.render(change.after))


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def _status(code: int, message: str) -> web.Response:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    body = {**status, "code": code, "message": message}
    return _json(json.dumps(body).encode(), code)


async def serve(world: World, folder: Path) -> None:
    """Serve *world*; leave ``kubeconfig`` and ``control`` in *folder*."""
    store = Store(world)
    api = Api(store)
    application = web.Application(client_max_size=1 << 24)
    application.router.add_route("*", "/{path:.*}", api.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _, port = runner.addresses[0]
    async with asyncio.TaskGroup() as group:
        commands = Commands(store, api.publish, group)
        await asyncio.start_unix_server(commands.converse, folder / "control")
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "bench",
            "clusters": [
                {"name": "bench", "cluster": {"server": f"http://127.0.0.1:{port}"}}
            ],
            "contexts": [{"name": "bench", "context": {"cluster": "bench"}}],
        }
        (folder / "kubeconfig.new").write_text(json.dumps(kubeconfig))
        (folder / "kubeconfig.new").rename(folder / "kubeconfig")
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name in ("nodes", "policies", "networks", "gateways"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--kind", type=PolicyKind, default=PolicyKind.GATEWAY)
    given = vars(parser.parse_args())
    folder = given.pop("folder")
    asyncio.run(serve(World(**given), folder))


if __name__ == "__main__":
    main()
