"""
Can a node be the gateway that a policy asks for: from what its agent reports.  Pure.

What it is: one candidate's verdict, with the word and the sentence that users read.

What it is not: the choice among candidates (``gateways``); nor a clock: whether a
report is fresh is told by the caller, who saw it change.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from outgate.policy.gateways import resolve_egress_ips
from outgate.policy.model import Gateway, GatewayAtAddress, GatewayHealth, Node
from outgate.policy.reports import NodeReport
from outgate.state.entries import Address, Family, NodeName, family_of


class Life(Enum):
    """What is known of an agent: it renews its report, it has stopped, or neither."""

    FRESH = "fresh"
    SILENT = "silent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What is known of one candidate.

    *is_usable* is None while nothing is known for or against it.  *reason* is a word
    in CamelCase, *message* says what is wrong and what to do; empty when all is well.
    *missing* are families in which pods cannot leave there.
    """

    is_usable: bool | None
    reason: str
    message: str = ""
    egress_ips: tuple[Address, ...] = ()
    interface: str = ""
    missing: frozenset[Family] = frozenset()

    def to_health(self, node: NodeName) -> GatewayHealth:
        """Return what agents will know of it."""
        is_usable = self.is_usable is not False
        return GatewayHealth(node, is_usable, self.egress_ips, self.interface)


USABLE = "Usable"
NOT_REPORTED = "NotReported"
AGENT_SILENT = "AgentSilent"
AGENT_MISSING = "AgentMissing"
AGENT_NOT_READY = "AgentNotReady"
NODE_NOT_READY = "NodeNotReady"
NODE_DELETED = "NodeDeleted"
NO_EGRESS_IP = "NoEgressIP"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that may be the gateway, and what its agent last said."""

    node: Node
    report: NodeReport | None
    life: Life


def assess(
    gateway: Gateway, families: Collection[Family], candidate: Candidate
) -> Verdict:
    """Return whether *candidate* can be *gateway* for traffic of *families*."""
    node, report = candidate.node, candidate.report
    if node.is_deleted:
        return Verdict(False, NODE_DELETED, f"node {node.name} is being deleted")
    if not node.is_ready:
        return Verdict(
            False, NODE_NOT_READY, f"node {node.name} is not Ready: see its conditions"
        )
    if report is None:
        return _without_report(candidate)
    if isinstance(gateway, GatewayAtAddress):
        families = {family_of(gateway.egress_ip)}
    addresses, interface, reason = resolve_egress_ips(gateway, report.facts, families)
    ips = tuple(addresses[family] for family in sorted(addresses))
    missing = frozenset(families) - addresses.keys()
    match candidate.life:
        case Life.UNKNOWN:
            message = f"the agent on node {node.name} has not renewed its report yet"
            return Verdict(None, NOT_REPORTED, message, ips, interface)
        case Life.SILENT:
            message = (
                f"the agent on node {node.name} is silent since {report.renew_time}:"
                " see whether it runs and reaches the API"
            )
            return Verdict(False, AGENT_SILENT, message, ips, interface)
        case Life.FRESH:
            pass
    if not report.is_ready:
        message = f"the agent on node {node.name} is not ready: {report.message}"
        return Verdict(False, AGENT_NOT_READY, message, ips, interface)
    if missing:
        message = f"node {node.name}: {reason}"
        return Verdict(False, NO_EGRESS_IP, message, ips, interface, missing)
    return Verdict(True, USABLE, "", ips, interface)


def _without_report(candidate: Candidate) -> Verdict:
    name = candidate.node.name
    if candidate.life is not Life.SILENT:
        return Verdict(None, NOT_REPORTED, f"no agent has reported from node {name}")
    message = f"no agent reports from node {name}: run the DaemonSet there"
    return Verdict(False, AGENT_MISSING, message)
