"""
One request in, one answer out: the table of what is served where.

What it is: the asyncio side of the protocol: it reads the body, calls the pure
modules, and writes what they return; an ``ApiError`` becomes its Status.
What it is not: sockets and life-cycle, which are ``server``'s.
"""

from __future__ import annotations

import hmac
from typing import Any

from aiohttp import web

from outgate.kubeapi import discovery, openapi
from outgate.kubeapi.backend import PodBackend
from outgate.kubeapi.deletion import delete
from outgate.kubeapi.listing import (
    View,
    encode_one,
    encode_page,
    read_page,
)
from outgate.kubeapi.objects import Objects
from outgate.kubeapi.operations import Outcome, Patch, create, patch, replace
from outgate.kubeapi.pods import answer_exec, answer_log, bind
from outgate.kubeapi.protocol import (
    ListOptions,
    Location,
    Shape,
    decode_body,
    locate,
    parse_delete_options,
    parse_list_options,
    parse_shape,
    parse_write_options,
)
from outgate.kubeapi.status import (
    ApiError,
    method_not_allowed,
    no_such_path,
    unauthorized,
)
from outgate.kubeapi.storage import Key
from outgate.kubeapi.streams import Wakeups, serve_watch
from outgate.kubeapi.watch import Watch
from outgate.kubeapi.wire import JsonObject, encode_json

VERSION = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.0+outgate",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "cpython",
    "platform": "linux/amd64",
}
_HEALTH_PATHS = ("/healthz", "/readyz", "/livez")
_DISCOVERY_VERSIONS = ("v2", "v2beta1")


class Api:
    """Everything that a request may reach."""

    def __init__(
        self,
        objects: Objects,
        wakeups: Wakeups,
        backend: PodBackend | None,
        token: str | None,
    ) -> None:
        self._objects = objects
        self._wakeups = wakeups
        self._backend = backend
        self._token = token

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; every refusal is a Status."""
        try:
            return await self._route(request)
        except ApiError as error:
            return _json(error.status, status=error.code)

    async def _route(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        if path in _HEALTH_PATHS:
            return web.Response(text="ok")
        if path == "/version":
            return _json(VERSION)
        self._authenticate(request)
        location = locate(path, self._objects.catalogue)
        if location is None:
            return self._discover(request, path)
        match location.subresource:
            case "exec" if request.method in ("GET", "POST"):
                return await answer_exec(
                    request, self._objects, location, self._backend
                )
            case "log" if request.method == "GET":
                return await answer_log(request, self._objects, location, self._backend)
            case "binding" if request.method == "POST":
                return await self._bind(request, location)
            case "" | "status":
                return await self._resource(request, location)
        raise method_not_allowed(f"{request.method} {path}")

    def _authenticate(self, request: web.Request) -> None:
        if self._token is None:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        is_known = hmac.compare_digest(given.strip().encode(), self._token.encode())
        if scheme.lower() != "bearer" or not is_known:
            raise unauthorized()

    def _discover(self, request: web.Request, path: str) -> web.Response:
        if request.method not in ("GET", "HEAD"):
            raise no_such_path()
        catalogue = self._objects.catalogue
        _, parameters = parse_shape(request.headers.get("Accept", ""))
        document: JsonObject | None = None
        if path in ("/api", "/apis"):
            version = parameters.get("v", "")
            wants_all = parameters.get("as") == "APIGroupDiscoveryList"
            if wants_all and version in _DISCOVERY_VERSIONS:
                core = path == "/api"
                return _aggregated(
                    discovery.aggregated(catalogue, core=core, version=version), version
                )
        match path.strip("/").split("/"):
            case ["api"]:
                document = discovery.core_versions(request.host)
            case ["apis"]:
                document = discovery.group_list(catalogue)
            case ["api", version]:
                document = discovery.resource_list(catalogue, "", version)
            case ["apis", group]:
                document = discovery.group(catalogue, group)
            case ["apis", group, version]:
                document = discovery.resource_list(catalogue, group, version)
            case ["openapi", "v3"]:
                document = openapi.index(catalogue)
            case ["openapi", "v3", "api", version]:
                document = openapi.document(catalogue, "", version)
            case ["openapi", "v3", "apis", group, version]:
                document = openapi.document(catalogue, group, version)
        if document is None:
            raise no_such_path()
        return _json(document)

    async def _resource(
        self, request: web.Request, location: Location
    ) -> web.StreamResponse:
        if not location.name:
            return await self._collection(request, location)
        match request.method:
            case "GET" | "HEAD" if request.query.get("watch", "") in ("1", "true"):
                return await self._watch(
                    request, location, _list_options(request, location)
                )
            case "GET" | "HEAD":
                obj = self._objects.require(location.resource, location.key)
                return self._one(request, location, obj)
            case "PUT" | "PATCH":
                return self._write(request, location, await _body(request))
            case "DELETE" if not location.subresource:
                return self._delete(request, location, await _body(request))
        raise method_not_allowed(f"{request.method} {request.path}")

    async def _collection(
        self, request: web.Request, location: Location
    ) -> web.StreamResponse:
        match request.method:
            case "GET" | "HEAD":
                options = _list_options(request, location)
                if options.watch:
                    return await self._watch(request, location, options)
                page = read_page(self._objects.storage, location, options)
                body = encode_page(location, page, self._view(request))
                return web.Response(body=body, content_type="application/json")
            case "POST":
                return self._write(request, location, await _body(request))
            case "DELETE":
                return self._delete_all(request, location, await _body(request))
        raise method_not_allowed(f"{request.method} {request.path}")

    def _view(self, request: web.Request) -> View:
        shape, _ = parse_shape(request.headers.get("Accept", ""))
        include = request.query.get("includeObject", "Metadata")
        return View(shape, self._objects.clock(), include)

    def _one(
        self, request: web.Request, location: Location, obj: JsonObject
    ) -> web.Response:
        body = encode_one(location, obj, self._view(request))
        return web.Response(body=body, content_type="application/json")

    async def _watch(
        self, request: web.Request, location: Location, options: ListOptions
    ) -> web.StreamResponse:
        watch = Watch(
            self._objects.storage,
            location,
            options,
            self._view(request),
            self._objects.clock,
        )
        name = location.resource.kind.resource
        return await serve_watch(request, watch, name, options, self._wakeups)

    def _write(
        self, request: web.Request, location: Location, body: Any
    ) -> web.Response:
        agent = request.headers.get("User-Agent", "")
        options = parse_write_options(request.query, agent, location.subresource)
        call = (self._objects, location.resource, location.key)
        match request.method:
            case "POST":
                done = create(*call, body, options)
            case "PUT":
                done = replace(*call, body, options)
            case _:
                done = patch(*call, Patch(request.content_type, body), options)
        return self._written(request, location, done)

    def _written(
        self, request: web.Request, location: Location, done: Outcome
    ) -> web.Response:
        answer = self._one(request, location, done.obj)
        answer.set_status(201 if done.created else 200)
        for warning in done.warnings:
            text = warning.replace("\\", "\\\\").replace('"', '\\"')
            answer.headers.add("Warning", f'299 - "{text}"')
        return answer

    def _delete(
        self, request: web.Request, location: Location, body: Any
    ) -> web.Response:
        options = parse_delete_options(request.query, body)
        result = delete(self._objects, location.resource, location.key, options)
        if result["kind"] == "Status":
            return _json(result)
        return self._one(request, location, result)

    def _delete_all(
        self, request: web.Request, location: Location, body: Any
    ) -> web.Response:
        options = parse_delete_options(request.query, body)
        chosen = _list_options(request, location)
        page = read_page(self._objects.storage, location, chosen)
        keys: list[Key] = [stored.key for stored in page.items]
        for key in keys:
            delete(self._objects, location.resource, key, options)
        return web.Response(
            body=encode_page(location, page, View(Shape.OBJECT, self._objects.clock())),
            content_type="application/json",
        )

    async def _bind(self, request: web.Request, location: Location) -> web.Response:
        agent = request.headers.get("User-Agent", "")
        options = parse_write_options(request.query, agent)
        result = bind(self._objects, location, await _body(request), options)
        return _json(result, status=201)


def _list_options(request: web.Request, location: Location) -> ListOptions:
    return parse_list_options(request.query, location.resource)


async def _body(request: web.Request) -> Any:
    raw = await request.read()
    if not raw:
        return None
    return decode_body(raw, request.headers.get("Content-Type", ""))


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        body=encode_json(value), status=status, content_type="application/json"
    )


def _aggregated(document: JsonObject, version: str) -> web.Response:
    """The content type must repeat what was asked, or kubectl asks the old way."""
    media_type = (
        f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    )
    return web.Response(
        body=encode_json(document), headers={"Content-Type": media_type}
    )
