"""
Keep pods that nobody else would make again: what a DaemonSet or Deployment does.

What this is: one loop for one set of pods.  A function says which pods are missing,
the loop makes them; an event only wakes it.
What this is not: a place for what the pods are (``agents``, ``controllers``).
"""

import asyncio
import secrets
from collections.abc import Callable, Iterable
from typing import Any

from outgate.errors import SourceError
from outgate.lab.informer import Informer
from outgate.lab.workload import Json
from outgate.source.client import Client

NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
RETRY_SECONDS = 1.0

FindMissing = Callable[[Iterable[Json]], list[dict[str, Any]]]
"""The pods to make, given those that are there."""


async def keep_pods(client: Client, pods: Informer, find_missing: FindMissing) -> None:
    """Make what is missing until cancelled."""
    changed = asyncio.Event()
    pods.on_change(lambda _: changed.set())
    while True:
        await changed.wait()
        changed.clear()
        if not pods.is_complete:
            continue
        try:
            for pod in find_missing(pods.objects.values()):
                namespace = pod["metadata"]["namespace"]
                path = f"/api/v1/namespaces/{namespace}/pods"
                made = await client.request("POST", path, body=pod)
                pods.objects[made["metadata"]["uid"]] = made
        except SourceError as error:
            print(f"keeper: {error}; trying again", flush=True)
            changed.set()
            await asyncio.sleep(RETRY_SECONDS)


async def make_namespace(client: Client, name: str) -> None:
    """Make a namespace unless it is there."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    try:
        await client.request("POST", "/api/v1/namespaces", body=body)
    except SourceError as error:
        if error.status != 409:
            raise


def random_suffix() -> str:
    """Five letters as the API's generateName makes them."""
    return "".join(secrets.choice(NAME_LETTERS) for _ in range(5))


def is_of(pod: Json, namespace: str, label: str, value: str) -> bool:
    """Whether *pod* is in *namespace* and carries the label."""
    labels = pod["metadata"].get("labels") or {}
    return pod["metadata"].get("namespace") == namespace and labels.get(label) == value


def is_staying(pod: Json) -> bool:
    """Whether nobody has asked for the end of *pod*."""
    return "deletionTimestamp" not in pod["metadata"]
