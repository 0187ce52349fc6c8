"""
Every log event, once, with its meaning.

Names are what users search for and alert on: constant and dotted; the rest of a line
is key=value.  Nothing is logged here; metrics have their names in ``metrics``.
"""

from enum import StrEnum


class Event(StrEnum):
    """Log events; the text under each is its meaning."""

    AGENT_STARTED = "agent.started"
    """Programs are loaded and maps adopted; ``node``, ``pin_dir``."""

    AGENT_STOPPED = "agent.stopped"
    """A clean stop; maps, links and flows stay, traffic goes on."""

    ROUND = "reconcile.round"
    """A round changed something or failed to; at level debug also the others."""

    ROUND_FAILED = "reconcile.round_failed"
    """A round could not be finished; ``error`` says why, it is tried again."""

    ENTRY_FAILED = "reconcile.entry_failed"
    """The kernel refused an entry for the first time; status shows it until done."""

    SOURCE_ERRORS = "source.errors"
    """The kinds that fail changed; while there are some, nothing is removed."""

    PROBLEMS = "policy.problems"
    """What is wrong with policies changed; ``problems`` are for their authors."""

    KERNEL_EVENTS_FAILED = "kernel.events_failed"
    """Following the kernel's events failed; it is begun anew."""
