"""
Requests and watches as they are on the wire, without the product's own client.

What it is: a few lines around aiohttp for tests that ask what a server does.
What it is not: used where the product's client is what is tested.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

EVENT_SECONDS = 20.0
"""When a test gives up waiting for an event."""

Object = dict[str, Any]
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wire:
    """One session with one server."""

    session: aiohttp.ClientSession

    async def call(
        self, method: str, path: str, body: object = None, **params: str
    ) -> tuple[int, Object]:
        """Return the status and the answer."""
        kind = "merge-patch+json" if method == "PATCH" else "json"
        headers = {"Content-Type": f"application/{kind}"}
        data = None if body is None else json.dumps(body)
        async with self.session.request(
            method, path, data=data, params=params, headers=headers
        ) as answer:
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, {"message": await answer.text()}

    async def get(self, path: str, **params: str) -> Object:
        return await self.done("GET", path, **params)

    async def done(
        self, method: str, path: str, body: object = None, **params: str
    ) -> Object:
        """Return the answer of a request that must succeed."""
        status, answer = await self.call(method, path, body, **params)
        assert status < 300, f"{method} {path}: {status}: {answer}"
        return answer

    @asynccontextmanager
    async def watch(self, path: str, **params: str) -> AsyncIterator[Watch]:
        async with self.session.get(
            path, params={"watch": "true", **params}
        ) as response:
            assert response.status == 200, await response.text()
            yield Watch(response)


@dataclass(frozen=True, slots=True)
class Watch:
    """The events of one watch, in order."""

    response: aiohttp.ClientResponse

    async def next(self) -> Event:
        """Return the next event; an empty one when the server ended the watch."""
        line = await asyncio.wait_for(
            self.response.content.readuntil(b"\n"), EVENT_SECONDS
        )
        return dict(json.loads(line)) if line else {}

    async def next_of(self, name: str) -> tuple[str, Object]:
        """Return the type and object of the next event that is about *name*."""
        while event := await self.next():
            if event["object"]["metadata"].get("name") == name:
                return event["type"], event["object"]
        raise AssertionError(f"the watch ended without a word about {name}")

    async def rest(self) -> list[Event]:
        """Return the events until the server ends the watch."""
        events: list[Event] = []
        while event := await self.next():
            events.append(event)
        return events


@asynccontextmanager
async def open_url(url: str) -> AsyncIterator[Wire]:
    """Open a session with a server that asks for no credentials."""
    async with aiohttp.ClientSession(url) as session:
        yield Wire(session)


@asynccontextmanager
async def open_kubeconfig(path: Path) -> AsyncIterator[Wire]:
    """Open a session as the bearer of the certificate in a kubeconfig of ours."""
    url, context = _read(path)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(url, connector=connector) as session:
        yield Wire(session)


def _read(path: Path) -> tuple[str, ssl.SSLContext]:
    document = yaml.safe_load(path.read_text())
    cluster = document["clusters"][0]["cluster"]
    user = document["users"][0]["user"]
    context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    context.load_cert_chain(user["client-certificate"], user["client-key"])
    return str(cluster["server"]), context
