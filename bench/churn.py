"""
Commands to the benchmark's API server: single changes, churn, heartbeats.

One JSON line in, one JSON line out.  A change is answered with ``at``: when the store
had it (CLOCK_MONOTONIC, nanoseconds), before any watch was told.  Churn and heartbeats
run on after their answer; ``wait`` answers when they are over.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any

from bench.store import Change, Collection, Store
from bench.world import Node, Pod, Policy

TICK_SECONDS = 0.01

Publish = Callable[[Collection, Change], None]


class Commands:
    """All commands, by name; *publish* tells watches of a change."""

    def __init__(
        self, store: Store, publish: Publish, group: asyncio.TaskGroup
    ) -> None:
        self._store = store
        self._publish = publish
        self._group = group
        self._running: set[asyncio.Task[None]] = set()
        self._by_name: dict[str, Callable[..., Any]] = {
            "put_pod": lambda **pod: self._put(store.pods, Pod(**pod)),
            "delete_pod": lambda key: self._delete(store.pods, key),
            "put_policy": self._put_policy,
            "delete_policy": lambda key: self._delete(store.policies, key),
            "churn": self._churn,
            "heartbeats": self._heartbeats,
            "pods": lambda: list(store.pods.items.values()),
        }

    async def converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while line := await reader.readline():
            command = json.loads(line)
            name = command.pop("do")
            if name == "wait":
                answer = await self._wait()
            else:
                answer = self._by_name[name](**command)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    def _put(self, collection: Collection, item: Any) -> dict[str, int]:
        return self._tell(collection, self._store.put(collection, item))

    def _delete(self, collection: Collection, key: str) -> dict[str, int]:
        return self._tell(collection, self._store.delete(collection, key))

    def _tell(self, collection: Collection, change: Change) -> dict[str, int]:
        at = time.monotonic_ns()
        self._publish(collection, change)
        return {"at": at}

    def _put_policy(
        self, number: int, app: int, gateway: int, networks: list[int]
    ) -> dict[str, int]:
        policy = Policy(number, app, gateway, range(*networks))
        return self._put(self._store.policies, policy)

    async def _wait(self) -> dict[str, int]:
        await asyncio.gather(*self._running)
        return {"at": time.monotonic_ns()}

    def _start(self, rate: float, seconds: float, step: Callable[[], None]) -> None:
        task = self._group.create_task(_at_rate(rate, seconds, step))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _heartbeats(self, rate: float, seconds: float) -> dict[str, int]:
        """Let nodes report in turn, *rate* of them each second."""
        store, turn = self._store, iter(range(1 << 62))

        def step() -> None:
            node = Node(next(turn) % store.world.nodes)
            self._put(store.nodes, node)

        self._start(rate, seconds, step)
        return {"at": time.monotonic_ns()}

    def _churn(
        self, gateway: int, rate: float, seconds: float, seed: int
    ) -> dict[str, int]:
        """
        Change pods of one gateway: 8 of 10 get another application, 1 goes, 1 comes.

        One application in eleven is another gateway's, so that pods also leave and
        enter what the gateway serves.
        """
        store, chance = self._store, random.Random(seed)
        world = store.world
        own = [*world.apps_of(gateway)]
        apps = [*own, next((a for a in range(world.policies) if a not in own), own[0])]
        present = [p for p in store.pods.items.values() if p.app in own]
        absent: list[Pod] = []

        def step() -> None:
            dice = chance.random()
            if absent and (dice < 0.1 or not present):
                present.append(absent.pop(chance.randrange(len(absent))))
                self._put(store.pods, present[-1])
                return
            place = chance.randrange(len(present))
            pod = present[place]
            if dice < 0.2 and len(absent) < len(present):
                present[place] = present[-1]
                present.pop()
                absent.append(pod)
                self._delete(store.pods, pod.key)
                return
            present[place] = pod._replace(app=chance.choice(apps))
            self._put(store.pods, present[place])

        self._start(rate, seconds, step)
        return {"at": time.monotonic_ns()}


async def _at_rate(rate: float, seconds: float, step: Callable[[], None]) -> None:
    """Call *step* *rate* times a second; late ones are made up for."""
    started, done = time.monotonic(), 0
    total = int(rate * seconds)
    while done < total:
        due = min(int((time.monotonic() - started) * rate), total)
        for _ in range(due - done):
            step()
        done = due
        await asyncio.sleep(TICK_SECONDS)
