"""
What an agent would say of its node to the controller, as of its last round.

What it is: the join of facts, health and rows into one ``NodeReport``; a policy is
programmed here when every row of every pod that it selects is in the kernel.

What it is not: the writing; ``reporter`` calls this and writes what changed.
"""

from collections.abc import Mapping
from dataclasses import replace

from outgate.policy.answers import LocalPolicy
from outgate.policy.engine import Engine
from outgate.policy.reports import NodeReport, PolicyReport
from outgate.reconcile.status import EntryStatus, Ledger, State
from outgate.state.entries import Key, NodeName, PolicyId, RowSet, RowsKey
from outgate.state.facts import NodeFacts
from outgate.state.snapshot import Snapshot
from outgate.telemetry.health import Vitals, why_not_ready
from outgate.telemetry.version import product_version

MOST_TOLD = 3
"""How many lost networks of one policy a report names."""


def report_node(
    node: NodeName,
    facts: NodeFacts,
    engine: Engine,
    ledger: Ledger,
    vitals: Vitals,
) -> NodeReport:
    """
    Return the report; its renew_time is left to who writes it.

    Single entries that the kernel refuses make no gateway unfit: they are told with
    the policies that they belong to.
    """
    reasons = why_not_ready(replace(vitals, failed_entries=0))
    unfinished = _unfinished(engine.desired, ledger.open)
    return NodeReport(
        node=node,
        is_ready=not reasons,
        message="; ".join(reasons),
        version=product_version(),
        facts=facts,
        policies={
            policy.uid: PolicyReport(
                kind=policy.kind,
                name=policy.name,
                generation=policy.generation,
                is_programmed=policy.id not in unfinished,
                message=unfinished.get(policy.id, _beaten(policy)),
            )
            for policy in engine.local_policies()
            if policy.uid
        },
    )


def _beaten(policy: LocalPolicy) -> str:
    """Return what other policies have of it; not for how many pods: that changes."""
    if not policy.beaten:
        return ""
    more = len(policy.beaten) - MOST_TOLD
    told = ", ".join(policy.beaten[:MOST_TOLD]) + (f" and {more} more" * (more > 0))
    return f"for some pods {told}, because older policies come first, then by name"


def _unfinished(
    wanted: Snapshot, opened: Mapping[Key, EntryStatus]
) -> Mapping[PolicyId, str]:
    """Return the policies of which rows are missing, and what the kernel said."""
    found: dict[PolicyId, str] = {}
    for key, status in opened.items():
        rows = wanted.get(key)
        if not isinstance(key, RowsKey) or not isinstance(rows, RowSet):
            continue
        if status.state in (State.ERROR, State.PENDING):
            for policy in {entry.policy for entry in rows.values()}:
                found[policy] = found.get(policy) or status.error
    return found
