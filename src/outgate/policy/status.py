"""
What a policy's ``status`` says, as a value and as the JSON that is written.  Pure.

What it is not: the judgement (``conditions``), nor the writing (the controller).  The
schema of the same is in ``deploy/crds``; a test compares them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from outgate.state.entries import Address, NodeName

Json = Mapping[str, Any]

PENDING = "Pending"
"""The reason of a condition that is about to turn True; it passes by itself."""

NONE = "-"
"""What a printer column shows where there is nothing."""


class Aspect(StrEnum):
    """The conditions, in the order in which they depend on each other."""

    ACCEPTED = "Accepted"
    GATEWAY_SELECTED = "GatewaySelected"
    EGRESS_IP_READY = "EgressIPReady"
    PROGRAMMED = "Programmed"


class Truth(StrEnum):
    """A condition's status."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


_WORST_FIRST = (Truth.FALSE, Truth.UNKNOWN, Truth.TRUE)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: *reason* is a word in CamelCase, *message* says what to do."""

    aspect: Aspect
    truth: Truth
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """
    One node that pods of a policy leave through, or would if it were usable.

    *is_usable* is False only when something is known to be wrong with it; *reason* is
    a word in CamelCase.
    """

    node: NodeName
    is_usable: bool
    is_selected: bool
    reason: str
    egress_ips: tuple[Address, ...] = ()
    interface: str = ""
    tunnel_endpoint: Address | None = None

    def to_json(self) -> dict[str, Any]:
        """Return one item of ``status.gateways``."""
        endpoint = self.tunnel_endpoint
        return {
            "node": self.node,
            "usable": self.is_usable,
            "selected": self.is_selected,
            "reason": self.reason,
            "egressIPs": [str(address) for address in self.egress_ips],
            "interface": self.interface,
            "tunnelEndpoint": "" if endpoint is None else str(endpoint),
        }


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """
    Everything that is written under ``status``, apart from times.

    *conditions* has one of each ``Aspect``, in that order.  *gateways* is None where
    those written before still hold.
    """

    generation: int
    conditions: tuple[Condition, ...]
    matched_pods: int
    gateways: tuple[GatewayStatus, ...] | None

    @property
    def ready(self) -> Truth:
        """Return whether all is well: the worst of the conditions."""
        truths = {condition.truth for condition in self.conditions}
        return next(truth for truth in _WORST_FIRST if truth in truths)

    def to_json(self, previous: Json, now: str) -> dict[str, Any]:
        """
        Return ``status`` as it is to be written over *previous*.

        *now* (RFC 3339, seconds) becomes the lastTransitionTime of conditions whose
        status is another than before.
        """
        gateways = (
            previous.get("gateways") or []
            if self.gateways is None
            else [gateway.to_json() for gateway in self.gateways]
        )
        return {
            "observedGeneration": self.generation,
            "matchedPods": self.matched_pods,
            "conditions": [
                {
                    "type": str(condition.aspect),
                    "status": str(condition.truth),
                    "reason": condition.reason,
                    "message": condition.message,
                    "lastTransitionTime": _since(condition, previous) or now,
                    "observedGeneration": self.generation,
                }
                for condition in self.conditions
            ],
            "gateways": gateways,
            "summary": self._summary(gateways),
        }

    def _summary(self, gateways: Iterable[Json]) -> dict[str, str]:
        wrong = [c for c in self.conditions if c.truth is not Truth.TRUE]
        selected = [g for g in gateways if g.get("selected")]
        addresses = [ip for g in selected for ip in g.get("egressIPs") or ()]
        return {
            "ready": str(self.ready),
            "reason": wrong[0].reason if wrong else NONE,
            "gateways": _joined(g.get("node", "") for g in selected),
            "egressIPs": _joined(addresses),
        }


def conditions_of(status: Json) -> dict[str, Json]:
    """Return the conditions in a status that was read, by type; leaves out nonsense."""
    found = status.get("conditions")
    if not isinstance(found, list):
        return {}
    return {
        item["type"]: item
        for item in found
        if isinstance(item, Mapping) and isinstance(item.get("type"), str)
    }


def _since(condition: Condition, previous: Json) -> str:
    before = conditions_of(previous).get(condition.aspect, {})
    if before.get("status") != condition.truth:
        return ""
    since = before.get("lastTransitionTime")
    return since if isinstance(since, str) else ""


def _joined(parts: Iterable[str]) -> str:
    return ",".join(dict.fromkeys(parts)) or NONE
