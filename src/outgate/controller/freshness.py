"""
Which agents live: by when their reports changed, as this controller saw it.  Pure.

What it is: a pulse per node, by this process's steady clock.  Times that agents write
are only compared with themselves, never with a clock here.

What it is not: the reason to restart anything.  Only candidate gateways renew their
reports, so only they can be silent; of the others nothing is known.
"""

from collections.abc import Set
from dataclasses import dataclass

from outgate.policy.health import Life
from outgate.state.entries import NodeName, Seconds

PATIENCE = Seconds(15.0)
"""Three renewals missed."""


@dataclass(slots=True)
class _Pulse:
    """*text* is what the agent wrote last; patience counts from *since*."""

    text: str = ""
    is_heard: bool = False
    since: float = 0.0


class Freshness:
    """The pulses of all agents; *now* is of any steady clock."""

    def __init__(self, patience: Seconds = PATIENCE) -> None:
        self._patience = patience
        self._pulses: dict[NodeName, _Pulse] = {}
        self._expected: frozenset[NodeName] = frozenset()
        self._told: dict[NodeName, Life] = {}
        self._held_at: float | None = None

    def note(
        self, node: NodeName, renewed: str, now: float, *, is_old: bool = False
    ) -> None:
        """
        Take the renew time of a report, empty when the report is gone.

        One that *is_old* was there before we looked: it may be of any age.
        """
        pulse = self._pulses.setdefault(node, _Pulse(since=now))
        if renewed != pulse.text:
            pulse.text, pulse.since = renewed, now
            pulse.is_heard = bool(renewed) and not is_old

    def expect(self, nodes: Set[NodeName], now: float) -> None:
        """Take which nodes should renew; a new one has time to begin."""
        for node in nodes - self._expected:
            pulse = self._pulses.setdefault(node, _Pulse())
            if not self._is_recent(pulse, now):
                pulse.is_heard, pulse.since = False, now
        self._expected = frozenset(nodes)

    def hold(self, now: float) -> None:
        """Take that reports do not reach us: from now on silence means nothing."""
        if self._held_at is None:
            self._held_at = now

    def resume(self, now: float) -> None:
        """Take that reports reach us again: who was not silent has its time again."""
        if self._held_at is None:
            return
        for pulse in self._pulses.values():
            if self._is_recent(pulse, self._held_at):
                pulse.since = now
        self._held_at = None

    def life(self, node: NodeName, now: float) -> Life:
        """Return what is known of the agent on *node*."""
        now = now if self._held_at is None else self._held_at
        pulse = self._pulses.get(node)
        if pulse is None:
            return Life.UNKNOWN
        if self._is_recent(pulse, now):
            return Life.FRESH if pulse.is_heard else Life.UNKNOWN
        return Life.SILENT if node in self._expected else Life.UNKNOWN

    def doubtful(self, now: float) -> frozenset[NodeName]:
        """Return the nodes that are about to be called silent, to be asked once."""
        return frozenset(
            node
            for node in self._expected
            if self._told.get(node) is not Life.SILENT
            and self.life(node, now) is Life.SILENT
        )

    def defer(self, now: float) -> None:
        """Call none of these silent yet: we could not ask."""
        for node in self.doubtful(now):
            self._pulses[node].since = now

    def take_turned(self, now: float) -> dict[NodeName, Life]:
        """Return the nodes that should renew and fare otherwise than last time."""
        lives = {node: self.life(node, now) for node in self._expected}
        turned = {n: life for n, life in lives.items() if self._told.get(n) != life}
        self._told = lives
        return turned

    def _is_recent(self, pulse: _Pulse, now: float) -> bool:
        return now - pulse.since < self._patience
