"""
What an agent knows and does: all that a source said, and the rows that it became.

What it is: the agent's engine and loop over a kernel in memory, one round at a time.
What it is not: the agent process; nothing here waits for a kernel.
"""

import asyncio
from collections.abc import Callable, Mapping, Set
from dataclasses import fields
from ipaddress import IPv4Address
from typing import Any

from outgate.agent.target import CompiledTarget
from outgate.kernel.fake import FakeKernel
from outgate.policy.model import (
    BadPolicy,
    ClusterChanges,
    EgressPolicy,
    Endpoint,
    PodQuery,
)
from outgate.reconcile.loop import Reconciler, Round
from outgate.source.interface import KindStatistics
from outgate.source.kubernetes import KubernetesSource
from outgate.state.entries import (
    InterfaceIndex,
    NodeName,
    RowSet,
    RowsKey,
    TunnelDevice,
)
from outgate.state.facts import Link, NodeFacts

FACTS = NodeFacts(
    links=(
        Link("eth0", InterfaceIndex(2), addresses=(IPv4Address("192.0.2.1"),)),
        Link("outgate_vx", InterfaceIndex(3), kind="vxlan"),
    ),
    default_interface="eth0",
)


class Told:
    """A source that passes on what *source* says, and adds it up."""

    def __init__(self, source: KubernetesSource) -> None:
        self._source = source
        self.state: dict[str, dict[str, Any]] = {
            part.name: {} for part in fields(ClusterChanges)
        }
        self.removed: set[str] = set()
        self.last = ClusterChanges()

    def take_changes(self) -> ClusterChanges:
        """Take what changed."""
        self.last = self._source.take_changes()
        for part in fields(ClusterChanges):
            for key, value in getattr(self.last, part.name).items():
                if value is None:
                    self.state[part.name].pop(key, None)
                    self.removed.add(key)
                else:
                    self.state[part.name][key] = value
        return self.last

    def need_pods(self, queries: Set[PodQuery]) -> None:
        self._source.need_pods(queries)

    @property
    def is_listed(self) -> bool:
        return self._source.is_listed

    @property
    def is_complete(self) -> bool:
        return self._source.is_complete

    @property
    def errors(self) -> Mapping[str, str]:
        return self._source.errors

    def statistics(self) -> tuple[KindStatistics, ...]:
        return self._source.statistics()

    async def wait_changed(self) -> None:
        await self._source.wait_changed()

    async def run(self) -> None:
        await self._source.run()


class Follower:
    """One who takes what *source* says and does nothing with it."""

    def __init__(self, source: KubernetesSource) -> None:
        self.source = Told(source)

    async def look(self) -> ClusterChanges:
        """Take what changed, and return it."""
        return self.source.take_changes()

    async def until(self, is_met: Callable[[], bool], seconds: float = 10) -> None:
        """Look again after each change, and only then, until *is_met*."""
        async with asyncio.timeout(seconds):
            await self.look()
            while not is_met():
                await self.source.wait_changed()
                await self.look()

    async def while_looking(self, is_met: Callable[[], bool]) -> None:
        """Look again and again until *is_met*, which may be about something else."""
        async with asyncio.timeout(10):
            while not is_met():
                await self.look()
                await asyncio.sleep(0.005)

    async def until_complete(self) -> None:
        """Wait until everything is listed and all is well."""
        await self.until(lambda: self.source.is_complete)

    async def until_failing(self, kind: str) -> str:
        """Wait until *kind* is failing; return why."""
        await self.until(lambda: kind in self.source.errors)
        return self.source.errors[kind]

    @property
    def state(self) -> Mapping[str, dict[str, Any]]:
        """Return everything, by the parts of ``ClusterChanges``."""
        return self.source.state

    @property
    def removed(self) -> set[str]:
        """Return the keys of what went."""
        return self.source.removed

    @property
    def pods(self) -> dict[str, Endpoint]:
        """Return the pods, by key."""
        return self.source.state["pods"]

    @property
    def policies(self) -> dict[str, EgressPolicy | BadPolicy]:
        """Return the policies, by key."""
        return self.source.state["policies"]


class Agent(Follower):
    """One who makes rows of it, as the agent of *node* does, in a kernel in memory."""

    def __init__(self, source: KubernetesSource, node: NodeName) -> None:
        super().__init__(source)
        self.kernel = FakeKernel(FACTS)
        self.lost: set[str] = set()
        tunnel = TunnelDevice("outgate_vx", 4789)
        target = CompiledTarget(self.source, node, tunnel, lambda: self.kernel.facts)
        self._loop = Reconciler(self.kernel, target, self._note)

    async def look(self) -> ClusterChanges:
        """Do one round of the agent, and note which rows it took away."""
        before = await self.rows()
        self.source.last = ClusterChanges()
        await self._loop.reconcile()
        self.lost |= before.keys() - (await self.rows()).keys()
        return self.source.last

    async def rows(self) -> dict[str, str]:
        """Return the rows of policies in the kernel: pod and network, and what is."""
        observed = await self.kernel.observe()
        return {
            f"{key.source} -> {network}": type(entry).__name__
            for key, rows in observed.snapshot.items()
            if isinstance(key, RowsKey) and isinstance(rows, RowSet)
            for network, entry in rows.items()
        }

    def _note(self, done: Round) -> None:
        assert done.error is None, done.error
