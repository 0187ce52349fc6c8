"""
Is the agent alive, is the node ready, and why not.

Pure: what is known goes in, reasons come out; an empty tuple means yes.  Alive says
"do not restart me"; ready says "covered traffic of this node is handled as its
policies say".  An API that is away makes a node that was ready no less ready.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

SILENCE_SECONDS = 300.0
"""A loop without any round for so long (five resyncs) hangs."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """
    What health is told from.

    Units: *round_age* is in seconds since the last round ended, None before the
    first.  *failed_entries* counts entries in state error.
    """

    is_source_listed: bool
    source_errors: Mapping[str, str] = field(default_factory=dict)
    round_age: float | None = None
    round_error: str | None = None
    failed_entries: int = 0


def why_not_alive(vitals: Vitals) -> tuple[str, ...]:
    """Return why the agent should be restarted."""
    if vitals.round_age is not None and vitals.round_age > SILENCE_SECONDS:
        return (f"no reconcile round for {vitals.round_age:.0f} s",)
    return ()


def why_not_ready(vitals: Vitals) -> tuple[str, ...]:
    """Return what is missing until the node handles covered traffic."""
    reasons = []
    if not vitals.is_source_listed:
        reasons.append("the source has not been listed yet")
        reasons += [
            f"source {kind}: {error}"
            for kind, error in sorted(vitals.source_errors.items())
        ]
    if vitals.round_age is None:
        reasons.append("no reconcile round has ended yet")
    if vitals.round_error:
        reasons.append(f"the last round failed: {vitals.round_error}")
    if vitals.failed_entries:
        reasons.append(f"the kernel refuses {vitals.failed_entries} entries")
    return tuple(reasons)
