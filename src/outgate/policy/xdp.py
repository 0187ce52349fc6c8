"""
Which uplinks of a node get the XDP program, and why the others do not.

What it is: a table over observed links; ``attachments`` asks it for the plan, and the
agent for its status.  What it is not: the attaching, nor whether it succeeded.

What XDP does not take, or where it is not, the tc hooks do; they are on every uplink.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from outgate.policy.model import Problem
from outgate.state.entries import NodeName
from outgate.state.facts import Link, NodeFacts, XdpFeature, XdpProgram

SETTING = "gateway-hook"


class GatewayHook(StrEnum):
    """
    Where a gateway meets its packets first.

    AUTO: in XDP on network cards of nodes that are a gateway; XDP: on each uplink
    whose driver can; TC: never in XDP.
    """

    AUTO = "auto"
    XDP = "xdp"
    TC = "tc"


NEEDED = XdpFeature.BASIC | XdpFeature.REDIRECT
"""
What a driver must say that it can, to be chosen by itself.

Not SEND: most drivers have that only while a program is attached.
"""

WITHOUT_DRIVER = "its driver has no native XDP"
NOT_SENDING = (
    "its driver does not send for XDP now, so XDP leaves everything to tc"
    " (a veth sends once its peer has NAPI: ethtool -K PEER gro on)"
)
NOT_YET = "not attached yet"

Test = Callable[[Link], bool]


def _is_foreign(link: Link) -> bool:
    return link.xdp_program is XdpProgram.FOREIGN


def _is_virtual(link: Link) -> bool:
    return bool(link.kind)


def _is_unable(link: Link) -> bool:
    return link.xdp_features is not None and NEEDED not in link.xdp_features


FOREIGN = "an XDP program of somebody else is there"

REFUSALS: dict[GatewayHook, tuple[tuple[Test, str], ...]] = {
    GatewayHook.TC: (
        (lambda link: True, "the agent's settings leave everything to tc"),
    ),
    GatewayHook.XDP: ((_is_foreign, FOREIGN), (_is_unable, WITHOUT_DRIVER)),
    GatewayHook.AUTO: (
        (_is_foreign, FOREIGN),
        (_is_virtual, "it is no network card but a {link.kind}"),
        (
            lambda link: link.has_vlans,
            "VLAN devices stand on it, and a card may hide their tags from XDP",
        ),
        (
            lambda link: link.xdp_features is None,
            "the kernel does not tell what its driver can (Linux 6.3 does)",
        ),
        (_is_unable, WITHOUT_DRIVER),
    ),
}
"""Why a link has no XDP, in each setting; the first that is true is told."""

NO_GATEWAY = "no pod leaves through this node"


@dataclass(frozen=True, slots=True)
class XdpRule:
    """The setting, and whether this node is a gateway: it has an egress IP."""

    setting: GatewayHook = GatewayHook.AUTO
    is_gateway: bool = False

    def why_not(self, link: Link) -> str:
        """
        Return why the uplink *link* shall have no XDP program, empty if it shall.

        With AUTO, what this agent attached stays when the node ceases to be a
        gateway: many drivers stop their queues for each change.
        """
        for is_true, reason in REFUSALS[self.setting]:
            if is_true(link):
                return reason.format(link=link)
        is_ours = link.xdp_program is XdpProgram.OURS
        if self.setting is GatewayHook.AUTO and not (self.is_gateway or is_ours):
            return NO_GATEWAY
        return ""

    def problems(self, node: NodeName, uplinks: Iterable[Link]) -> Iterator[Problem]:
        """Tell where XDP was asked for and cannot be."""
        if self.setting is not GatewayHook.XDP:
            return
        for link in uplinks:
            if reason := self.why_not(link):
                message = (
                    f"{link.name} has no XDP: {reason}; its tc programs do the work;"
                    " set gateway-hook to auto or tc on this node"
                )
                yield Problem(f"Node {node}", SETTING, message)


@dataclass(frozen=True, slots=True)
class UplinkState:
    """
    Where packets of an uplink are met first, now: *hook* is XDP or TC.

    *reason* says why not in XDP, or what XDP lacks there; else it is empty.
    """

    interface: str
    hook: GatewayHook
    reason: str = ""


def uplink_states(
    facts: NodeFacts,
    uplinks: Iterable[Link],
    rule: XdpRule,
    errors: Mapping[str, str],
) -> Iterator[UplinkState]:
    """Return the state of each of *uplinks*; *errors* of attaching by interface."""
    senders = facts.xdp_senders
    for link in uplinks:
        if link.has_xdp:
            reason = "" if link in senders else NOT_SENDING
            yield UplinkState(link.name, GatewayHook.XDP, reason)
        else:
            reason = rule.why_not(link) or errors.get(link.name) or NOT_YET
            yield UplinkState(link.name, GatewayHook.TC, reason)
