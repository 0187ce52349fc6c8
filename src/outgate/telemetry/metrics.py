"""
The agent's numbers as a value, and the value as Prometheus text.

Numbers are read when somebody asks: nothing is counted twice, and no counter can
drift from what the parts themselves say.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

ROUNDS = "outgate_reconcile_rounds"
"""Rounds by ``outcome`` (ok, failed)."""

ROUND_SECONDS = "outgate_reconcile_last_round_seconds"
"""How long the last round took."""

ENTRIES = "outgate_entries"
"""Entries by ``kind``, ``family`` and ``state`` (pending, done, error, kept)."""

COMPLETE = "outgate_source_complete"
"""1 while desired state is fully known, 0 while nothing is removed."""

OBJECTS = "outgate_source_objects"
"""Objects that the source knows, by ``kind``."""

PROBLEMS = "outgate_policy_problems"
"""Problems of policies that the agent shows."""

PACKETS = "outgate_datapath_packets"
"""Packets by ``reason``, ``direction`` and ``policy``; ``forwarded`` is no drop."""

BYTES = "outgate_datapath_bytes"
"""Bytes of the same."""

LABELS = ("reason", "direction", "policy")

COLLECTED = "outgate_datapath_collected_flows"
"""Flows that were over and dropped by the kernel's timer, by ``family``."""

COLLECTING = "outgate_datapath_collecting"
"""1 where the kernel drops such entries by a timer, 0 where packets alone do."""

HOOKS = "outgate_uplink_hook"
"""1 for the hook (xdp, tc) that meets packets of an uplink first, by ``interface``."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class PacketCount:
    """What the datapath counted under one reason, direction and policy (by name)."""

    reason: str
    direction: str
    policy: str
    packets: int
    byte_count: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """
    Everything that is counted, at one moment.

    Shape: *entries* is by (kind, family, state), *source_objects* by kind, *hooks* by
    interface.
    """

    rounds: int = 0
    failed_rounds: int = 0
    last_round_seconds: float = 0.0
    is_source_complete: bool = False
    source_objects: Mapping[str, int] = field(default_factory=dict)
    entries: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    problems: int = 0
    packets: tuple[PacketCount, ...] = ()
    is_collecting: bool = False
    collected: Mapping[str, int] = field(default_factory=dict)
    hooks: Mapping[str, str] = field(default_factory=dict)


class _StatisticsCollector(Collector):
    def __init__(self, statistics: Statistics) -> None:
        self._now = statistics

    def collect(self) -> Iterable[Metric]:
        now = self._now
        outcomes = {
            ("ok",): now.rounds - now.failed_rounds,
            ("failed",): now.failed_rounds,
        }
        yield _fill(
            CounterMetricFamily(ROUNDS, "Rounds.", labels=["outcome"]), outcomes
        )
        for name, meaning, value in (
            (ROUND_SECONDS, "Duration of the last round.", now.last_round_seconds),
            (COMPLETE, "1 while desired state is known.", now.is_source_complete),
            (PROBLEMS, "Problems of policies.", now.problems),
            (COLLECTING, "1 while a timer drops flows.", now.is_collecting),
        ):
            yield GaugeMetricFamily(name, meaning, value=float(value))
        objects = {(kind,): count for kind, count in now.source_objects.items()}
        yield _fill(
            GaugeMetricFamily(OBJECTS, "Objects known.", labels=["kind"]), objects
        )
        entries = GaugeMetricFamily(
            ENTRIES, "Entries.", labels=["kind", "family", "state"]
        )
        yield _fill(entries, now.entries)
        packets = CounterMetricFamily(PACKETS, "Packets decided.", labels=LABELS)
        sizes = CounterMetricFamily(BYTES, "Bytes decided.", labels=LABELS)
        for count in now.packets:
            labels = count.reason, count.direction, count.policy
            packets.add_metric(labels, count.packets)
            sizes.add_metric(labels, count.byte_count)
        collected = CounterMetricFamily(COLLECTED, "Flows dropped.", labels=["family"])
        yield _fill(collected, {(f,): count for f, count in now.collected.items()})
        hooks = GaugeMetricFamily(
            HOOKS, "First hook of an uplink.", labels=["interface", "hook"]
        )
        yield _fill(hooks, dict.fromkeys(now.hooks.items(), 1))
        yield packets
        yield sizes


def _fill(
    family: CounterMetricFamily | GaugeMetricFamily,
    values: Mapping[tuple[str], int]
    | Mapping[tuple[str, str], int]
    | Mapping[tuple[str, str, str], int],
) -> Metric:
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def exposition(statistics: Statistics) -> bytes:
    """Return *statistics* as Prometheus text, always in the same order."""
    registry = CollectorRegistry()
    registry.register(_StatisticsCollector(statistics))
    return generate_latest(registry)
