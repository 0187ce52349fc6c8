"""
What the agent needs of a source of desired state, whatever is behind it.

What it is: a Protocol and the values it reports.  ``kubernetes`` satisfies it.
What it is not: a base class; sources share nothing else.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Protocol

from outgate.policy.model import ClusterChanges, PodQuery


@dataclass(frozen=True, slots=True)
class KindStatistics:
    """
    How one kind of objects fares.

    *lists* and *watches* count requests that succeeded; *error* is why the last
    one failed, None while all is well.
    """

    kind: str
    objects: int
    is_listed: bool
    lists: int
    watches: int
    events: int
    failures: int
    error: str | None


class Source(Protocol):
    """Where the cluster comes from."""

    def take_changes(self) -> ClusterChanges:
        """
        Return what changed since the last call; the first call returns everything.

        Before ``is_listed`` the cluster has holes (pods without the policies that
        cover them), so nothing may be compiled from it.
        """

    def need_pods(self, queries: Set[PodQuery]) -> None:
        """
        Say which pods are needed beside those of this node; the rest may be dropped.

        While pods that are needed have not been listed, ``is_complete`` is False.
        """

    @property
    def is_listed(self) -> bool:
        """Return whether every kind had its first full list, ever."""

    @property
    def is_complete(self) -> bool:
        """Return whether that is so and no kind is failing: entries may be removed."""

    @property
    def errors(self) -> Mapping[str, str]:
        """Return why kinds are failing, by kind; empty while all is well."""

    def statistics(self) -> tuple[KindStatistics, ...]:
        """Return one row per kind."""

    async def wait_changed(self) -> None:
        """Return when anything above may have changed since the last return."""

    async def run(self) -> None:
        """Keep the cluster current until cancelled."""
