"""
What a node's agent tells the controller about its node: an EgressNode's status.

What it is: the value, and its JSON, which the agent writes; ``source.objects`` reads
it back.  Equal reports have equal JSON, so that only changes are written.

What it is not: the controller's answer; that is ``status.gateways`` of each policy.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from outgate.state.entries import Address, NodeName
from outgate.state.facts import Link, NodeFacts


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """Whether all rows of one policy are in a node's kernel, and if not, why."""

    kind: str
    name: str
    generation: int
    is_programmed: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """
    One node as its own agent sees it.

    *renew_time* is when the agent last said that it lives, as RFC 3339 in UTC with
    microseconds.  *facts* hold the links that can carry egress IPs.  *policies* are
    those with rows on the node, by uid.
    """

    node: NodeName
    is_ready: bool
    message: str = ""
    version: str = ""
    renew_time: str = ""
    facts: NodeFacts = field(default_factory=NodeFacts)
    policies: Mapping[str, PolicyReport] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the ``status`` of the EgressNode; cables of pods are left out."""
        routes = {
            "ipv4": self.facts.default_interface,
            "ipv6": self.facts.default_interface_v6,
        }
        return {
            "renewTime": self.renew_time,
            "ready": self.is_ready,
            "message": self.message,
            "version": self.version,
            "interfaces": [_link_to_json(link) for link in _carriers(self.facts)],
            "defaultRoute": {
                family: _as_text(name) for family, name in routes.items() if name
            },
            "policies": [
                {
                    "kind": policy.kind,
                    "name": policy.name,
                    "uid": uid,
                    "generation": policy.generation,
                    "programmed": policy.is_programmed,
                    "message": policy.message,
                }
                for uid, policy in sorted(self.policies.items())
            ],
        }


def _carriers(facts: NodeFacts) -> list[Link]:
    """
    Return the links that can carry egress IPs, by name: not the cables of pods.

    A node may itself hang on such a cable, as in kind; one that has an address of its
    own, or the default route, is no pod's.  (Plugins that give the host's ends an
    address give all of them the same one.)
    """
    cables = Counter(a for link in facts.links for a in _cable_addresses(link))
    found = [
        link
        for link in facts.links
        if not link.peer_elsewhere
        or link.name in facts.default_interfaces
        or any(cables[address] == 1 for address in link.addresses)
    ]
    return sorted(found, key=lambda link: link.name)


def _cable_addresses(link: Link) -> tuple[Address, ...]:
    return link.addresses if link.peer_elsewhere else ()


def _link_to_json(link: Link) -> dict[str, object]:
    """Return a link; the order of its addresses means something, it stays."""
    return {
        "name": _as_text(link.name),
        "altnames": sorted(map(_as_text, link.altnames)),
        "addresses": [str(address) for address in link.addresses],
    }


def _as_text(name: str) -> str:
    """Return the name of an interface, whose bytes may be no text, as JSON can hold."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
