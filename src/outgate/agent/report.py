"""
What the agent says of itself, as plain data ready for JSON.

Reads the parts and changes none; ``agent.server`` serves it, ``outgate status`` and
``outgate map get`` render it.  Ages and waits are in seconds from now.
"""

from collections import defaultdict
from dataclasses import asdict
from typing import Any, Protocol

from outgate.agent.config import AgentConfig
from outgate.agent.reporter import Reporter
from outgate.agent.target import CompiledTarget
from outgate.kernel.collector import Collection
from outgate.kernel.reasons import Reason, reason_name
from outgate.kernel.records import MetricRecord
from outgate.policy.xdp import UplinkState, uplink_states
from outgate.reconcile.loop import Reconciler, Round
from outgate.reconcile.status import EntryStatus, State
from outgate.source.interface import Source
from outgate.state.entries import (
    AttachmentKey,
    Family,
    Hook,
    Key,
    PolicyEntry,
    PolicyKey,
    RowsKey,
    Value,
)
from outgate.state.snapshot import key_family, lines, render_key, render_value, sort_key
from outgate.telemetry.health import Vitals
from outgate.telemetry.metrics import PacketCount, Statistics
from outgate.telemetry.version import product_version

PASSES = (reason_name(Reason.OTHER_FAMILY), reason_name(Reason.FRAGMENT_HELD))
"""Reasons of packets that are counted and left alone: no drops."""


FAMILY_NAMES = {Family.V4: "ipv4", Family.V6: "ipv6", None: ""}
"""How metrics call a family; links and the tunnel are of none."""


class Counting(Protocol):
    """Whatever has the datapath's counters."""

    def metrics(self) -> tuple[MetricRecord, ...]:
        """Return them, one row per reason, direction and policy."""
        ...

    def collection(self) -> Collection:
        """Return what became of flows that are over."""
        ...


class Report:
    """
    A view of one agent.

    Units: *now* in the methods is of the reconciler's clock, in seconds.
    """

    def __init__(
        self,
        config: AgentConfig,
        source: Source,
        kernel: Counting,
        target: CompiledTarget,
        reporter: Reporter | None = None,
    ) -> None:
        self._config = config
        self._source = source
        self._kernel = kernel
        self._target = target
        self._reporter = reporter
        self._failed_rounds = 0
        self._last_round_at: float | None = None

    def note_round(self, done: Round, now: float) -> None:
        """Remember when a round ended, and whether it could be finished."""
        self._last_round_at = now
        self._failed_rounds += done.error is not None

    def vitals(self, loop: Reconciler, now: float) -> Vitals:
        """Return what health is told from."""
        last = loop.last_round
        return Vitals(
            is_source_listed=self._source.is_listed,
            source_errors=self._source.errors,
            round_age=None
            if self._last_round_at is None
            else now - self._last_round_at,
            round_error=last.error if last else None,
            failed_entries=sum(not _is_xdp(key) for key, _ in _failed(loop)),
        )

    def statistics(self, loop: Reconciler) -> Statistics:
        """Return every count, for metrics."""
        last, collection = loop.last_round, self._kernel.collection()
        return Statistics(
            rounds=last.number if last else 0,
            failed_rounds=self._failed_rounds,
            last_round_seconds=last.seconds if last else 0.0,
            is_source_complete=self._source.is_complete,
            source_objects={k.kind: k.objects for k in self._source.statistics()},
            entries={
                (kind, FAMILY_NAMES[family], str(state)): count
                for (kind, family, state), count in loop.ledger.counts().items()
            },
            problems=len(self._target.problems),
            packets=self._packets(),
            is_collecting=not collection.error,
            collected={
                f"ipv{family}": record.released
                for family, record in collection.records.items()
            },
            hooks={state.interface: state.hook for state in self._uplinks(loop)},
        )

    def _uplinks(self, loop: Reconciler) -> tuple[UplinkState, ...]:
        """Return where packets are met first on each uplink, and why not in XDP."""
        engine = self._target.engine
        errors = {
            key.interface: status.error
            for key, status in _failed(loop)
            if isinstance(key, AttachmentKey) and _is_xdp(key)
        }
        rule = engine.xdp_rule
        return tuple(uplink_states(engine.facts, engine.uplinks, rule, errors))

    def _packets(self) -> tuple[PacketCount, ...]:
        names = self._policy_names()
        return tuple(
            PacketCount(
                reason_name(record.reason),
                record.direction.name.lower(),
                names.get(record.policy, f"{record.policy:#010x}"),
                record.packets,
                record.byte_count,
            )
            for record in sorted(self._kernel.metrics(), key=_metric_order)
        )

    def _policy_names(self) -> dict[int, str]:
        """Return policies as users write them, by the datapath's number; 0 is none."""
        names: dict[int, str] = {0: ""}
        names.update(self._target.engine.policy_names.items())
        return names

    def policies(self) -> dict[str, Any]:
        """Return what each number stands for that the datapath has for a policy."""
        names = sorted(self._policy_names().items())
        return {"policies": [{"id": id, "name": name} for id, name in names if id]}

    def _collection(self) -> dict[str, Any]:
        collection = self._kernel.collection()
        counted = {f"ipv{f}": asdict(r) for f, r in collection.records.items()}
        return {"error": collection.error, **counted}

    def status(self, loop: Reconciler, now: float) -> dict[str, Any]:
        """Return the answer to ``outgate status``."""
        entries: dict[str, dict[str, int]] = defaultdict(dict)
        for (kind, _, state), count in loop.ledger.counts().items():
            entries[kind][state] = entries[kind].get(state, 0) + count
        packets: dict[str, int] = defaultdict(int)
        for counted in self._packets():
            packets[counted.reason] += counted.packets
        forwarded = packets.pop(reason_name(Reason.FORWARDED), 0)
        told = self._reporter.statistics() if self._reporter else None
        passed = {r: packets.pop(r) for r in PASSES if r in packets}
        return {
            "node": self._config.node,
            "version": product_version(),
            "pinDir": str(self._config.pin_dir),
            "gatewayPath": self._config.gateway_path,
            "existingFlows": self._config.existing_flows,
            "otherFamily": self._config.other_family,
            "gatewayHook": self._config.gateway_hook,
            "uplinks": [asdict(state) for state in self._uplinks(loop)],
            "source": {
                "listed": self._source.is_listed,
                "complete": self._source.is_complete,
                "errors": dict(self._source.errors),
                "kinds": [asdict(kind) for kind in self._source.statistics()],
            },
            "egressNode": asdict(told) if told else None,
            "lastRound": asdict(loop.last_round) if loop.last_round else None,
            "lastRoundAge": None
            if self._last_round_at is None
            else now - self._last_round_at,
            "entries": {
                kind: dict(sorted(entries[kind].items())) for kind in sorted(entries)
            },
            "failures": [
                self._entry(key, self._target.snapshot.get(key), status, now)
                for key, status in sorted(_failed(loop), key=_key_order)
            ],
            "problems": [asdict(p) for p in self._target.problems],
            "forwarded": forwarded,
            "passed": passed,
            "drops": packets,
            "packets": [asdict(counted) for counted in self._packets()],
            "garbage": self._collection(),
        }

    def entries(self, loop: Reconciler, now: float) -> dict[str, Any]:
        """Return every entry that is wanted or kept, row by row, with its state."""
        wanted, ledger = self._target.snapshot, loop.ledger
        found = [
            self._entry(key, value, ledger[_owner(key)], now)
            for key, value in lines(wanted)
            if _owner(key) in ledger
        ]
        kept = [
            self._entry(key, None, status, now)
            for key, status in ledger.open.items()
            if key not in wanted
        ]
        return {"entries": found + kept}

    @staticmethod
    def _entry(
        key: Key | PolicyKey,
        value: Value | PolicyEntry | None,
        status: EntryStatus,
        now: float,
    ) -> dict[str, Any]:
        kind, subject = render_key(key)
        due = status.next_attempt
        return {
            "kind": kind,
            "key": subject,
            "family": key_family(_owner(key)),
            "wanted": None if value is None else render_value(value),
            "state": status.state,
            "age": None if status.since is None else now - status.since,
            "error": status.error,
            "nextAttempt": None if due is None else max(due - now, 0.0),
        }


def _owner(key: Key | PolicyKey) -> Key:
    """Return the key whose status a line has: rows share that of their pod."""
    return RowsKey(key.source) if isinstance(key, PolicyKey) else key


def _failed(loop: Reconciler) -> list[tuple[Key, EntryStatus]]:
    opened = loop.ledger.open.items()
    return [(key, status) for key, status in opened if status.state is State.ERROR]


def _is_xdp(key: Key) -> bool:
    """Tell whether *key* is about XDP, without which tc does all the work."""
    return isinstance(key, AttachmentKey) and key.hook is Hook.XDP_NETDEV


def _key_order(entry: tuple[Key, EntryStatus]) -> tuple[Any, ...]:
    return sort_key(entry[0])


def _metric_order(record: MetricRecord) -> tuple[int, int, int]:
    return record.reason, record.direction, record.policy
