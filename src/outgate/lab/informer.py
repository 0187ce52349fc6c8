"""
A list of API objects that stays current: list, watch, list again.

What this is: for the lab's own control loops, which sit beside the API and may list
everything.  An event only wakes the loops; they look at ``objects``.
What this is not: the agents' source (``outgate.source``), which decodes less and
pages.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from outgate.errors import SourceError
from outgate.source.client import Client

RETRY_SECONDS = 0.5
WATCH_SECONDS = 120

Json = dict[str, Any]


class Informer:
    """The objects at one path of the API, by uid."""

    def __init__(self, client: Client, path: str) -> None:
        self._client = client
        self._path = path
        self._wakers: list[Callable[[Collection[str]], None]] = []
        self.objects: dict[str, Json] = {}
        self.is_complete = False

    def on_change(self, waker: Callable[[Collection[str]], None]) -> None:
        """Call *waker* with the uids that changed, after each change; never blocks."""
        self._wakers.append(waker)

    async def run(self) -> None:
        """Keep the list current until cancelled; an API that is away is retried."""
        while True:
            try:
                version = await self._list()
                await self._watch(version)
            except SourceError:
                await asyncio.sleep(RETRY_SECONDS)

    async def _list(self) -> str:
        answer = await self._client.request("GET", self._path)
        former = self.objects.keys()
        self.objects = {item["metadata"]["uid"]: item for item in answer["items"]}
        self.is_complete = True
        self._wake(former | self.objects.keys())
        return str(answer["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> None:
        params = {
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        async for line in self._client.stream(self._path, params):
            event = msgspec.json.decode(line)
            item = event["object"]
            if event["type"] not in ("ADDED", "MODIFIED", "DELETED"):
                return
            uid = item["metadata"]["uid"]
            self.objects[uid] = item
            if event["type"] == "DELETED":
                del self.objects[uid]
            self._wake({uid})

    def _wake(self, uids: Collection[str]) -> None:
        for waker in self._wakers:
            waker(uids)
