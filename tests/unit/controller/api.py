"""What tests ask of an API on loopback."""

import asyncio
from collections.abc import Callable
from typing import Any

from outgate.source.client import Client

CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def until(claim: Callable[[], object], seconds: float = 10.0) -> None:
    """Return when *claim* holds; it is looked at between other tasks' steps."""
    async with asyncio.timeout(seconds):
        while not claim():  # noqa: ASYNC110 - nothing tells of all that is awaited
            await asyncio.sleep(0.005)


async def until_read(
    client: Client, path: str, claim: Callable[[Any], object], seconds: float = 10.0
) -> Any:
    """Return an object or list once *claim* holds of it."""
    async with asyncio.timeout(seconds):
        while not claim(found := await read(client, path)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


async def read(client: Client, path: str) -> Any:
    """Return one object or list."""
    return await client.request("GET", path)
