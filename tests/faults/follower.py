"""
What an agent would know: all that a source said, added up, and what it took away.
"""

import asyncio
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from outgate.policy.model import BadPolicy, ClusterChanges, EgressPolicy, Endpoint
from outgate.source.kubernetes import KubernetesSource


class Follower:
    """The state of a cluster as its *source* tells it."""

    def __init__(self, source: KubernetesSource) -> None:
        self.source = source
        self.state: dict[str, dict[str, Any]] = {
            part.name: {} for part in fields(ClusterChanges)
        }
        self.removed: set[str] = set()
        self.incomplete = 0

    def look(self) -> ClusterChanges:
        """Take what changed, as a round of the agent does, and return it."""
        changes = self.source.take_changes()
        for part in fields(ClusterChanges):
            for key, value in getattr(changes, part.name).items():
                if value is None:
                    self.state[part.name].pop(key, None)
                    self.removed.add(key)
                else:
                    self.state[part.name][key] = value
        self.incomplete += not self.source.is_complete
        return changes

    async def until(self, is_met: Callable[[], bool], seconds: float = 10) -> None:
        """Look again after each change, and only then, until *is_met*."""
        async with asyncio.timeout(seconds):
            self.look()
            while not is_met():
                await self.source.wait_changed()
                self.look()

    async def while_looking(self, is_met: Callable[[], bool]) -> None:
        """Look again and again until *is_met*, which may be about something else."""
        async with asyncio.timeout(10):
            while not is_met():
                self.look()
                await asyncio.sleep(0.005)

    async def until_complete(self) -> None:
        """Wait until everything is listed and all is well."""
        await self.until(lambda: self.source.is_complete)

    async def until_failing(self, kind: str) -> str:
        """Wait until *kind* is failing; return why."""
        await self.until(lambda: kind in self.source.errors)
        return self.source.errors[kind]

    @property
    def pods(self) -> dict[str, Endpoint]:
        """Return the pods, by key."""
        return self.state["pods"]

    @property
    def policies(self) -> dict[str, EgressPolicy | BadPolicy]:
        """Return the policies, by key."""
        return self.state["policies"]
