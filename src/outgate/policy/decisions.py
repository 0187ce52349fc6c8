"""
What the rows of a policy say on one node, and what its user should know.

What it is: the choice of gateways (``gateways``), seen from one node.  Only where
the node itself is a gateway do its own facts count: an egress IP that it lacks is a
drop there, never another source address.

What it is not: which pods have these rows (``selection``), or who wins (``rows``).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from outgate.policy.gateways import (
    Chosen,
    Resolved,
    canonical_text,
    choose,
    interface_of,
    resolve_egress_ips,
    share,
)
from outgate.policy.model import (
    EgressPolicy,
    GatewayAtAddress,
    GatewayOnNodes,
    Problem,
)
from outgate.policy.never import is_never_routed
from outgate.policy.nodes import NodeIndex
from outgate.policy.problems import (
    lacking_egress_ip,
    never_routed,
    unusable_gateway,
    without_egress_ip,
    without_tunnel,
)
from outgate.policy.ranking import health_of
from outgate.state.entries import (
    Address,
    CoveredEntry,
    Family,
    Network,
    NodeName,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    PolicyId,
    ViaGateway,
    family_of,
)
from outgate.state.facts import NodeFacts


@dataclass(frozen=True, slots=True)
class Reach:
    """
    The networks of a policy that can have rows, by family, IPv4 first.

    *families* are those that have destinations; *problems* tell of other networks.
    """

    destinations: tuple[tuple[Network, ...], tuple[Network, ...]]
    excluded: tuple[tuple[Network, ...], tuple[Network, ...]]
    families: frozenset[Family] = field(compare=False)
    problems: tuple[Problem, ...] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Seat:
    """
    One gateway that shares the pods of a policy.

    Shape: *entries* and *interfaces* are by family, IPv4 first.  *node* is None when
    no node can be it; *text* is what pods are shared by.
    """

    node: NodeName | None
    text: str
    entries: tuple[PolicyEntry, PolicyEntry]
    interfaces: tuple[str, str] = ("", "")

    def entry(self, family: Family) -> PolicyEntry:
        """Return what rows of *family* say."""
        return self.entries[family is Family.V6]

    @property
    def egress_ips(self) -> Iterable[Address]:
        """Return the egress IPs that rows name."""
        for entry in self.entries:
            if isinstance(entry, ViaGateway) and entry.egress_ip is not None:
                yield entry.egress_ip


@dataclass(frozen=True, slots=True, eq=False)
class Fate:
    """
    All that the rows of one policy's pods depend on; compared by identity.
    """

    key: str
    reference: str
    id: PolicyId
    seniority: tuple[bool, str, str, str]
    seats: tuple[Seat, ...]
    reach: Reach
    covered: CoveredEntry

    def seat_of(self, pod: str) -> int:
        """Return the index of the seat that the *pod* (its key) leaves through."""
        if len(self.seats) == 1:
            return 0
        return share(pod, (seat.text for seat in self.seats))

    @property
    def networks(self) -> Iterator[Network]:
        """Return the destinations of both families, repetitions included."""
        return chain.from_iterable(self.reach.destinations)

    def covers_like(self, other: "Fate") -> bool:
        """Return whether *other* covers the same, in the same place among others."""
        return (
            self.id == other.id
            and self.seniority == other.seniority
            and self.reach == other.reach
        )

    def is_like(self, other: "Fate") -> bool:
        """Return whether pods fare the same by *other*."""
        return self.seats == other.seats and self.covers_like(other)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rows of a policy say, and what its user should know."""

    fate: Fate
    problems: tuple[Problem, ...]


def reach_of(policy: EgressPolicy) -> Reach:
    """Return where *policy* can send what; it takes as long as the lists are."""
    destinations = _by_family(policy.destinations)
    return Reach(
        destinations,
        _by_family(policy.excluded),
        frozenset(f for f, found in zip(Family, destinations, strict=True) if found),
        tuple(never_routed(policy)),
    )


def decide(
    policy: EgressPolicy,
    reach: Reach,
    nodes: NodeIndex,
    node: NodeName,
    facts: NodeFacts,
) -> Decision:
    """Return what *node* must make of *policy*, which reaches *reach*."""
    problems = [*policy.warnings, *reach.problems]
    seats = []
    for choice in choose(policy, nodes):
        problems += unusable_gateway(policy, choice)
        if choice.is_selected:
            seat, found = _seat(policy, reach.families, choice, node, facts)
            seats.append(seat)
            problems += found
    if not seats:
        no_gateway = NoGateway(policy.id)
        seats = [Seat(None, "", (no_gateway, no_gateway))]
    fate = Fate(
        key=f"{policy.kind}/{policy.name}",
        reference=policy.reference,
        id=policy.id,
        seniority=policy.seniority,
        seats=tuple(seats),
        reach=reach,
        covered=CoveredEntry(policy.id),
    )
    return Decision(fate, tuple(problems))


def _seat(
    policy: EgressPolicy,
    families: frozenset[Family],
    choice: Chosen,
    node: NodeName,
    facts: NodeFacts,
) -> tuple[Seat, list[Problem]]:
    gateway = choice.gateway
    assert choice.node is not None
    is_here = choice.node == node
    if isinstance(gateway, GatewayAtAddress):
        resolved = Resolved({family_of(gateway.egress_ip): gateway.egress_ip}, "", "")
        problems = without_egress_ip(policy, gateway, families)
    else:
        resolved = _told_egress_ips(policy, gateway, choice.node)
        problems = without_tunnel(policy, choice, families)
    if is_here:
        resolved = resolve_egress_ips(gateway, facts, families)
        if resolved.reason:
            problems = [lacking_egress_ip(policy, choice, resolved), *problems]
    entries = [_entry(policy, choice, family, resolved, is_here) for family in Family]
    if is_here:
        entries = [_with_interface(e, facts, resolved.interface) for e in entries]
    names = [e.interface if isinstance(e, ViaGateway) else "" for e in entries]
    text = canonical_text(gateway)
    seat = Seat(choice.node, text, (entries[0], entries[1]), (names[0], names[1]))
    return seat, problems


def _entry(
    policy: EgressPolicy,
    choice: Chosen,
    family: Family,
    resolved: Resolved,
    is_here: bool,
) -> PolicyEntry:
    endpoint = choice.tunnel_endpoint
    assert endpoint is not None
    egress_ip = resolved.egress_ips.get(family)
    if family is Family.V4 and family_of(endpoint) is Family.V6:
        # Rows of IPv4 have no room for the address of such a gateway.
        return NoGateway(policy.id)
    is_only_here = isinstance(choice.gateway, GatewayOnNodes) and not is_here
    if egress_ip is None and not is_only_here:
        return NoEgressIP(endpoint, policy.id)
    return ViaGateway(egress_ip, endpoint, policy.id, resolved.interface)


def _with_interface(
    entry: PolicyEntry, facts: NodeFacts, preferred: str
) -> PolicyEntry:
    """Return *entry* with the interface that really carries its egress IP."""
    if not isinstance(entry, ViaGateway) or entry.egress_ip is None:
        return entry
    return ViaGateway(
        entry.egress_ip,
        entry.tunnel_endpoint,
        entry.policy,
        interface_of(entry.egress_ip, facts, preferred),
    )


def _told_egress_ips(
    policy: EgressPolicy, gateway: GatewayOnNodes, node: NodeName
) -> Resolved:
    """Return what a node that is not the gateway knows of its egress IPs."""
    health = health_of(policy, gateway, node)
    found: dict[Family, Address] = {}
    if health is not None and health.is_usable:
        found = {family_of(address): address for address in health.egress_ips}
    if gateway.egress_ip is not None:
        if gateway.egress_ip not in found.values():
            found = {}
        found[family_of(gateway.egress_ip)] = gateway.egress_ip
    return Resolved(found, health.interface if health and found else "", "")


def _by_family(
    networks: tuple[Network, ...],
) -> tuple[tuple[Network, ...], tuple[Network, ...]]:
    """Return those that can have rows; the very tuple where that is all of them."""
    routed = tuple(n for n in networks if not is_never_routed(n))
    found = [tuple(n for n in routed if family_of(n) is family) for family in Family]
    return (
        networks if len(found[0]) == len(networks) else found[0],
        networks if len(found[1]) == len(networks) else found[1],
    )
