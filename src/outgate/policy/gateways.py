"""
Which node is the gateway of a policy's pods, and under which addresses they leave.

What it is: pure and deterministic.  ``choose`` looks at Node objects and at what the
controller wrote into the policy's status, which all agents see, and never at facts
that only one of them has: so every agent agrees.  ``resolve_egress_ips`` looks at
the facts of one node, for that node and for the controller.

What it is not: the rows (``decisions``, ``rows``).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from outgate.policy.model import (
    EgressPolicy,
    Gateway,
    GatewayAtAddress,
)
from outgate.policy.never import is_never_routed, is_of_one_link
from outgate.policy.nodes import NodeIndex
from outgate.policy.ranking import LACKING, best_node, health_of, knowledge, why_bad
from outgate.policy.selectors import Selector
from outgate.state.entries import Address, Family, NodeName, family_of
from outgate.state.facts import Link, NodeFacts


@dataclass(frozen=True, slots=True)
class Chosen:
    """
    What became of one of a policy's gateways.

    *node* is None when no node can be it; *candidates* counts those that match.
    *is_selected* gateways share the pods: the usable ones or, without any, all that
    have a node.  *reason* says why it is not usable.
    """

    gateway: Gateway
    node: NodeName | None = None
    tunnel_endpoint: Address | None = None
    candidates: int = 0
    is_usable: bool = False
    is_selected: bool = False
    reason: str = ""


class Resolved(NamedTuple):
    """
    What pods leave under through a gateway, by what its node observes.

    *interface* carries the addresses; with two default routes, that of IPv4.  *reason*
    says why addresses are missing and what to do, and is empty when none is.
    """

    egress_ips: Mapping[Family, Address]
    interface: str
    reason: str


def needed_families(policy: EgressPolicy) -> frozenset[Family]:
    """Return the families in which *policy* sends anything to its gateway."""
    return frozenset(
        family_of(network)
        for network in policy.destinations
        if not is_never_routed(network)
    )


def choose(policy: EgressPolicy, nodes: NodeIndex) -> tuple[Chosen, ...]:
    """
    Return the choice for each gateway of *policy*, in their order.

    A node is preferred that is ready, is not being deleted and is not known to be
    unusable; among these one that is known to have the egress IP, then one of which
    nobody knows; then the first by name.  With nothing better a bad one is used.
    """
    found = tuple(_choose(policy, gateway, nodes) for gateway in policy.gateways)
    is_any_usable = any(chosen.is_usable for chosen in found)
    return tuple(
        Chosen(
            gateway=c.gateway,
            node=c.node,
            tunnel_endpoint=c.tunnel_endpoint,
            candidates=c.candidates,
            is_usable=c.is_usable,
            is_selected=c.node is not None and (c.is_usable or not is_any_usable),
            reason=c.reason,
        )
        for c in found
    )


def share(pod: str, texts: Iterable[str]) -> int:
    """
    Return the index of the gateway that the *pod* (its key) leaves through.

    Rendezvous hashing over the canonical *texts* of gateways: one that comes or goes
    moves only its own share of the pods.
    """
    weights = [
        (blake2b(f"{pod}\0{text}".encode(), digest_size=8).digest(), text)
        for text in texts
    ]
    return max(range(len(weights)), key=weights.__getitem__)


def canonical_text(gateway: Gateway) -> str:
    """Return what *gateway* asks for, whatever its place in the policy."""
    if isinstance(gateway, GatewayAtAddress):
        return f"at {gateway.egress_ip}"
    requirements = sorted(
        f"{r.key} {r.operator} {','.join(sorted(r.values))}"
        for r in gateway.nodes.requirements
    )
    return f"{gateway.interface}|{gateway.egress_ip}|{'|'.join(requirements)}"


def resolve_egress_ips(
    gateway: Gateway,
    facts: NodeFacts,
    families: Collection[Family] = tuple(Family),
) -> Resolved:
    """
    Return under which addresses pods leave through *gateway* on the node of *facts*.

    *families* are those that are needed: only what they lack is a reason.
    """
    if isinstance(gateway, GatewayAtAddress):
        links = _links_with(gateway.egress_ip, facts)
        wanted = {family_of(gateway.egress_ip): gateway.egress_ip}
        reason = "" if links else _no_address(gateway.egress_ip)
        return Resolved(wanted if links else {}, links[0].name if links else "", reason)
    if gateway.interface:
        return _by_interface(gateway.interface, facts, families)
    if gateway.egress_ip is not None:
        return _by_address(gateway.egress_ip, facts, families)
    return _by_default_route(facts, families)


def interface_of(address: Address, facts: NodeFacts, preferred: str) -> str:
    """Return what carries *address*, *preferred* if it does; empty when none does."""
    names = [link.name for link in _links_with(address, facts)]
    return preferred if preferred in names else next(iter(names), "")


def _choose(policy: EgressPolicy, gateway: Gateway, nodes: NodeIndex) -> Chosen:
    if isinstance(gateway, GatewayAtAddress):
        node = nodes.owner(gateway.egress_ip)
        count = len(nodes.claimants(gateway.egress_ip))
        if node is None:
            return Chosen(
                gateway, reason=f"no node has the address {gateway.egress_ip}"
            )
        endpoint: Address | None = gateway.egress_ip
        if family_of(gateway.egress_ip) is Family.V6:
            endpoint = node.tunnel_endpoint or gateway.egress_ip
    else:
        count = len(nodes.matching(gateway.nodes))
        node = best_node(policy, gateway, nodes)
        if node is None:
            return Chosen(
                gateway, candidates=count, reason=_no_node(gateway.nodes, count)
            )
        endpoint = node.tunnel_endpoint
    health = health_of(policy, gateway, node.name)
    reason = why_bad(node, health)
    if not reason and knowledge(gateway, node, health) == LACKING:
        reason = f"node {node.name} lacks the egress IP"
    return Chosen(gateway, node.name, endpoint, count, not reason, reason=reason)


def _no_node(selector: Selector, candidates: int) -> str:
    if candidates:
        return "no node that matches nodeSelector has an address to tunnel to"
    wanted = ", ".join(
        f"{r.key} {r.operator} {' '.join(sorted(r.values))}".rstrip()
        for r in selector.requirements
    )
    return f"no node matches nodeSelector ({wanted or 'any node'})"


def _by_interface(
    name: str, facts: NodeFacts, families: Collection[Family]
) -> Resolved:
    for link in facts.links:
        if name == link.name or name in link.altnames:
            return _of_link(link, {}, families)
    with_address = (link.name for link in facts.links if link.addresses)
    names = ", ".join(with_address) or "none with an address"
    return Resolved(
        {},
        "",
        f"none of its interfaces is called {name!r}; it has: {names}; create it, or"
        " name one that is there",
    )


def _by_address(
    address: Address, facts: NodeFacts, families: Collection[Family]
) -> Resolved:
    links = _links_with(address, facts)
    if not links:
        return Resolved({}, "", _no_address(address))
    return _of_link(links[0], {family_of(address): address}, families)


def _by_default_route(facts: NodeFacts, families: Collection[Family]) -> Resolved:
    by_name = {link.name: link for link in facts.links}
    routes = {
        Family.V4: facts.default_interface,
        Family.V6: facts.default_interface_v6,
    }
    found: dict[Family, Address] = {}
    reasons = []
    for family, name in routes.items():
        link = by_name.get(name or "")
        address = _first(link, family) if link else None
        if address is not None:
            found[family] = address
        elif family in families:
            reasons.append(
                f"{link.name}, which has its default route of IPv{family}, has no"
                f" IPv{family} address; add one"
                if link
                else f"it has no default route of IPv{family}; add one, or name an"
                " interface or an egressIP"
            )
    names = [name for family, name in routes.items() if name and family in found]
    return Resolved(found, names[0] if names else "", "; ".join(reasons))


def _of_link(
    link: Link, given: Mapping[Family, Address], families: Collection[Family]
) -> Resolved:
    found = dict(given)
    for family in Family:
        address = _first(link, family)
        if address is not None:
            found.setdefault(family, address)
    reason = "; ".join(
        f"its interface {link.name} has no IPv{family} address; add one"
        for family in Family
        if family in families and family not in found
    )
    return Resolved(found, link.name, reason)


def _first(link: Link, family: Family) -> Address | None:
    """Return the first address of *family* that others can answer to."""
    for address in link.addresses:
        if family_of(address) is family and not is_of_one_link(address):
            return address
    return None


def _links_with(address: Address, facts: NodeFacts) -> list[Link]:
    return [
        link
        for link in facts.links
        if address in link.addresses and not address.is_loopback
    ]


def _no_address(address: Address) -> str:
    return f"none of its interfaces carries {address}; add the address"
