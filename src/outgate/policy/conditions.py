"""
The judgement of one policy: what users read under its ``status``.  Pure.

What it is: from what is known of a policy, its gateways, its pods and the agents'
reports, four conditions with a reason and a sentence that says what to do.

What it is not: the choice of gateways, nor the times in a status (``status``).

Who calls it: the controller; nobody else writes status.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from outgate.policy.health import AGENT_MISSING, NO_EGRESS_IP, Verdict
from outgate.policy.model import (
    BadPolicy,
    EgressPolicy,
    Gateway,
    GatewayAtAddress,
    Problem,
)
from outgate.policy.reports import NodeReport, PolicyReport
from outgate.policy.status import (
    PENDING,
    Aspect,
    Condition,
    GatewayStatus,
    PolicyStatus,
    Truth,
)
from outgate.state.entries import Address, NodeName

FAILED = "Failed"
_WORST_FIRST = (AGENT_MISSING, FAILED, PENDING)

TOLD = 3
"""So many nodes or problems are named in one message; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A candidate of *gateway* that users should see, as it was found."""

    gateway: Gateway
    node: NodeName
    verdict: Verdict
    is_selected: bool
    tunnel_endpoint: Address | None = None

    def to_status(self) -> GatewayStatus:
        """Return its item of ``status.gateways``."""
        return GatewayStatus(
            node=self.node,
            is_usable=self.verdict.is_usable is not False,
            is_selected=self.is_selected,
            reason=self.verdict.reason,
            egress_ips=self.verdict.egress_ips,
            interface=self.verdict.interface,
            tunnel_endpoint=self.tunnel_endpoint,
        )


@dataclass(frozen=True, slots=True)
class Situation:
    """
    What is known of one policy.

    *policy* is the version in force, *bad* the newer one that is wrong; at least one
    is there.  *listed* are candidates in the order in which they come; *lacking* are
    gateways that no node can be.  *pods* counts selected pods by node, *serving* are
    the selected gateways that one of them leaves through.
    """

    policy: EgressPolicy | None
    bad: BadPolicy | None = None
    listed: tuple[Listed, ...] = ()
    lacking: tuple[Gateway, ...] = ()
    pods: Mapping[NodeName, int] = field(default_factory=dict)
    serving: frozenset[NodeName] = frozenset()
    reports: Mapping[NodeName, NodeReport] = field(default_factory=dict)

    @property
    def selected(self) -> tuple[Listed, ...]:
        """Return the gateways that pods leave through."""
        return tuple(listed for listed in self.listed if listed.is_selected)


def judge(situation: Situation) -> PolicyStatus:
    """Return the status of the policy."""
    policy, bad = situation.policy, situation.bad
    if policy is None:
        assert bad is not None, "a situation is of some policy"
        return _never_right(bad, situation)
    conditions = (
        _accepted(policy, bad),
        _gateway_selected(situation),
        _egress_ip_ready(situation),
        _programmed(policy, situation),
    )
    return PolicyStatus(
        generation=policy.generation if bad is None else bad.generation,
        conditions=conditions,
        matched_pods=sum(situation.pods.values()),
        gateways=tuple(listed.to_status() for listed in situation.listed),
    )


def _never_right(bad: BadPolicy, situation: Situation) -> PolicyStatus:
    """
    Judge a policy of which this controller knows no good version.

    Agents may: those that ran when there was one keep it, and say so.
    """
    kept = generation_in_force(bad.uid, situation.reports)
    unknown = "nothing is known of it before the policy is mended"
    others = tuple(
        Condition(aspect, Truth.UNKNOWN, "NotAccepted", unknown)
        for aspect in Aspect
        if aspect is not Aspect.ACCEPTED
    )
    accepted = Condition(
        Aspect.ACCEPTED, Truth.FALSE, "Invalid", _invalid(bad.problems, kept)
    )
    gateways = () if kept is None else None
    return PolicyStatus(bad.generation, (accepted, *others), 0, gateways)


def generation_in_force(uid: str, reports: Mapping[NodeName, NodeReport]) -> int | None:
    """Return the newest generation of a policy that some agent has rows of."""
    found = [r.policies[uid].generation for r in reports.values() if uid in r.policies]
    return max(found, default=None)


def _accepted(policy: EgressPolicy, bad: BadPolicy | None) -> Condition:
    if bad is not None:
        message = _invalid(bad.problems, policy.generation)
        return Condition(Aspect.ACCEPTED, Truth.FALSE, "Invalid", message)
    message = "every field is right"
    if policy.warnings:
        message += f"; note: {_problems(policy.warnings)}"
    return Condition(Aspect.ACCEPTED, Truth.TRUE, "Valid", message)


def _invalid(problems: Iterable[Problem], kept: int | None) -> str:
    stays = (
        "nothing of it is in force"
        if kept is None
        else f"generation {kept} stays in force"
    )
    return f"{_problems(problems)}; {stays}"


def _gateway_selected(situation: Situation) -> Condition:
    selected = situation.selected
    gaps = [_lack(gateway) for gateway in situation.lacking]
    if not selected:
        message = _few(gaps) + "; until then what the policy covers is dropped"
        return _selection(Truth.FALSE, "NoMatchingNode", message)
    names = ", ".join(dict.fromkeys(listed.node for listed in selected))
    if all(listed.verdict.is_usable is False for listed in selected):
        reasons = _few(dict.fromkeys(listed.verdict.message for listed in selected))
        message = f"no candidate is usable, so {names} stays selected: {reasons}"
        return _selection(Truth.FALSE, "NoUsableGateway", message)
    verb = "share the pods" if len(selected) > 1 else "is the gateway"
    notes = [f"{names} {verb}", *gaps, *_passed_over(situation)]
    return _selection(Truth.TRUE, "Selected", "; ".join(notes))


def _selection(truth: Truth, reason: str, message: str) -> Condition:
    return Condition(Aspect.GATEWAY_SELECTED, truth, reason, message)


def _passed_over(situation: Situation) -> list[str]:
    """Say why candidates that would come before were not taken."""
    reasons = [
        listed.verdict.message
        for listed in situation.listed
        if not listed.is_selected and listed.verdict.is_usable is False
    ]
    return [f"passed over: {_few(dict.fromkeys(reasons))}"] if reasons else []


def _lack(gateway: Gateway) -> str:
    if isinstance(gateway, GatewayAtAddress):
        return (
            f"{gateway.path}: no node has the address {gateway.egress_ip}; use one"
            " that `kubectl get nodes -o wide` shows"
        )
    return (
        f"{gateway.path}.nodeSelector: no node has these labels; label a node with"
        " `kubectl label node`"
    )


def _egress_ip_ready(situation: Situation) -> Condition:
    selected = situation.selected
    if not selected:
        return _ip(Truth.FALSE, "NoGateway", "no gateway, so no egress IP")
    lacking = [s for s in selected if s.verdict.missing]
    if lacking:
        reasons = _few(dict.fromkeys(listed.verdict.message for listed in lacking))
        return _ip(Truth.FALSE, NO_EGRESS_IP, reasons)
    unknown = [s for s in selected if not s.verdict.is_usable]
    if unknown:
        reasons = _few(dict.fromkeys(listed.verdict.message for listed in unknown))
        return _ip(Truth.UNKNOWN, unknown[0].verdict.reason, reasons)
    ways = [
        f"{', '.join(map(str, listed.verdict.egress_ips))} on {listed.node}"
        for listed in selected
    ]
    return _ip(Truth.TRUE, "Ready", f"pods leave as {_few(dict.fromkeys(ways))}")


def _ip(truth: Truth, reason: str, message: str) -> Condition:
    return Condition(Aspect.EGRESS_IP_READY, truth, reason, message)


def _programmed(policy: EgressPolicy, situation: Situation) -> Condition:
    if not situation.pods:
        message = "no pod is selected; see the labels of pods and namespaces"
        return _rows(Truth.TRUE, "NoPods", message)
    if not situation.reports:
        message = "no agent has reported; run the DaemonSet on every node"
        return _rows(Truth.UNKNOWN, "NotReported", message)
    nodes = sorted({*situation.pods, *situation.serving})
    waiting: dict[str, list[str]] = {}
    for node in nodes:
        reason, message = _behind(policy, node, situation.reports.get(node))
        if reason:
            waiting.setdefault(reason, []).append(message)
    if not waiting:
        message = "the rows are in the kernel of every node concerned"
        told = {situation.reports[node].policies[policy.uid].message for node in nodes}
        if notes := sorted(told - {""}):
            message += f"; note: {_few(notes)}"
        return _rows(Truth.TRUE, "Programmed", message)
    reasons = sorted(waiting, key=_WORST_FIRST.index)
    messages = [message for reason in reasons for message in waiting[reason]]
    return _rows(Truth.FALSE, reasons[0], _few(messages))


def _behind(
    policy: EgressPolicy, node: NodeName, report: NodeReport | None
) -> tuple[str, str]:
    """Return why *node* does not do what *policy* says; empty when it does."""
    if report is None:
        return AGENT_MISSING, f"{node}: no agent reports; run the DaemonSet there"
    found: PolicyReport | None = report.policies.get(policy.uid)
    if found is not None and found.generation == policy.generation:
        if found.is_programmed:
            return "", ""
        if found.message:
            return FAILED, f"{node}: {found.message}"
        return PENDING, f"{node}: not all rows are in the kernel yet"
    if not report.is_ready and report.message:
        return FAILED, f"{node}: the agent is not ready: {report.message}"
    return PENDING, f"{node}: generation {policy.generation} is not programmed yet"


def _rows(truth: Truth, reason: str, message: str) -> Condition:
    return Condition(Aspect.PROGRAMMED, truth, reason, message)


def _problems(problems: Iterable[Problem]) -> str:
    return _few([f"{problem.path}: {problem.message}" for problem in problems])


def _few(messages: Iterable[str]) -> str:
    """Join a few messages and count the others."""
    found = list(messages)
    rest = len(found) - TOLD
    more = [f"and {rest} more"] if rest > 0 else []
    return "; ".join(found[:TOLD] + more)
