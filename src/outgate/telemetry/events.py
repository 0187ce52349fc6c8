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

    CONTROLLER_STARTED = "controller.started"
    """The controller watches the cluster; ``instance`` is its name in the Lease."""

    CONTROLLER_STOPPED = "controller.stopped"
    """A clean stop; another controller may lead at once."""

    LEADER_WON = "controller.leader_won"
    """This controller writes status from now on."""

    LEADER_LOST = "controller.leader_lost"
    """This controller no longer writes; ``holder`` leads, ``error`` says why not we."""

    LEASE_KEPT = "controller.lease_kept"
    """The Lease could not be let go; others wait until it has expired."""

    STATUS_REFUSED = "controller.status_refused"
    """A policy's status could not be written; it is tried again with longer waits."""

    EVENT_REFUSED = "controller.event_refused"
    """An Event could not be written and is let go; the status says the same."""

    REPORT_REFUSED = "agent.report_refused"
    """The node's report could not be written for the first time; it is tried again."""

    REPORT_SWEPT = "controller.report_swept"
    """The report of a ``node`` that is no more was deleted."""
