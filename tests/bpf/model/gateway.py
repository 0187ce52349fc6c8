"""
The model of a gateway: what leaves through this node, and under which port.

Used by the hooks of :mod:`bpf.model.datapath`.  A port that the walk chooses is the
program's choice: the model only says which ones are right, and learns (*chosen*) the
one that was taken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from bpf.harness import MARK_TRANSLATED, PASS
from bpf.model.answers import time_exceeded
from bpf.model.headers import Part
from bpf.model.outcome import Expected, answered, dropped, sent, unsupported
from bpf.model.packet import Kind, Quote, Read, Tuple, reverse
from bpf.model.parts import translated
from bpf.model.rewrite import Change, translate, translate_error
from bpf.model.rules import Rules, egress_ip_of
from bpf.model.table import Flow, Half, NoPortError, Origin, Table
from bpf.uplink import UPLINK, UplinkAddress
from outgate.kernel.reasons import Reason
from outgate.state.entries import Family, NoEgressIP, NoGateway, PolicyEntry, ViaGateway


def _network(at: UplinkAddress) -> IPv4Network | IPv6Network:
    return ip_network((at.address, at.prefix_length), strict=False)


HERE_TOO = frozenset(
    (
        _network(UPLINK[Family.V6]).network_address.packed,
        _network(UPLINK[Family.V4]).broadcast_address.packed,
    )
)
"""
Whom every router of the uplink's network answers to, this node too: IPv6's anycast
address of the subnet's routers (RFC 4291, 2.6.1), IPv4's broadcast.  IPv4's lowest
address is one like any other (Linux since 5.14).
"""


@dataclass(frozen=True, slots=True)
class Leaving:
    """
    One frame that leaves; *flow* is what was decided, None where the row decides.

    *is_routed_here*: no stack routes it, so that its hops and its way are ours.
    """

    frame: bytes
    seen: Read
    origin: Origin
    flow: Flow | None = None
    is_routed_here: bool = True


class Gateway:
    """See the module's docstring."""

    def __init__(
        self, rules: Rules, table: Table, chosen: Callable[[Tuple], int]
    ) -> None:
        self.rules = rules
        self.table = table
        self._chosen = chosen

    def translate(self, leaving: Leaving) -> Expected:
        """Translate a TCP, UDP or echo packet."""
        found = self._translation(leaving)
        if isinstance(found, Expected):
            return found
        frame, seen, half = leaving.frame, leaving.seen, found
        policy = leaving.flow.policy if leaving.flow else half.policy
        if not leaving.flow:
            # The tunnel keeps parts in order.
            self.table.parts.note_first(seen)
        if leaving.is_routed_here and seen.hops <= 1:
            answer = time_exceeded(frame, seen, half.address)
            return answered(Reason.DROP_TTL_EXCEEDED, policy, answer)
        hops = 1 if leaving.is_routed_here else 0
        out = translate(frame, seen, Change(True, half.address, half.port, hops))
        self.learn_translated(seen, half, is_source=True)
        return _left(leaving, policy, out)

    def _translation(self, leaving: Leaving) -> Half | Expected:
        key, origin, flow = leaving.seen.tuple, leaving.origin, leaving.flow
        assert key
        policy = flow.policy if flow else 0
        known = self.table.forward.get(key)
        if known and self.table.is_live(key[4], known):
            policy = policy or known.policy
            is_moved = known.origin.endpoint != origin.endpoint
            if is_moved and self._is_forged(key[0], origin):
                return dropped(Reason.DROP_FORGED_POD, flow.policy if flow else 0)
        try:
            half = self.table.find(leaving.seen, origin)
        except NoPortError:
            return dropped(Reason.DROP_SNAT_NO_PORT, policy)
        return half or self._open(key, flow, origin)

    def _open(self, key: Tuple, flow: Flow | None, origin: Origin) -> Half | Expected:
        if flow:
            egress_ip, policy = flow.egress_ip, flow.policy
        else:
            row = self.row(key, origin)
            if isinstance(row, Expected):
                return row
            egress_ip, policy = egress_ip_of(row), row.policy
        if key[1] in HERE_TOO and not self.table.mode.is_stack:
            return dropped(Reason.DROP_NO_ROUTE, policy)
        port = self.table.port_for(key, egress_ip, self._chosen)
        if port is None:
            return dropped(Reason.DROP_SNAT_NO_PORT, policy)
        return self.table.open(key, port, egress_ip, policy, origin)

    def learn_translated(self, seen: Read, half: Half, *, is_source: bool) -> None:
        """Remember what a first part becomes, for errors that quote a later one."""
        header = seen.header
        if seen.tuple and header and header.part is Part.FIRST:
            key = translated(seen.tuple, half.address, half.port, is_source=is_source)
            self.table.parts.note(key, header.identifier)

    def row(self, key: Tuple, origin: Origin) -> ViaGateway | Expected:
        """Return the row that makes this node the gateway, or what becomes of *key*."""
        if self._is_forged(key[0], origin):
            return dropped(Reason.DROP_FORGED_POD)
        row = self.rules.covering(key[0], key[1])
        if isinstance(row, ViaGateway) and self.rules.is_host(
            row.tunnel_endpoint.packed
        ):
            return row
        return _no_gateway_here(row)

    def _is_forged(self, pod: bytes, origin: Origin) -> bool:
        """Tell whether the tunnel's source is no node that holds *pod*."""
        return bool(origin.endpoint) and not self.rules.holds(origin.endpoint, pod)

    def translate_error(self, leaving: Leaving, quote: Quote, policy: int) -> Expected:
        """Translate an ICMP error of a pod; *policy* is its flow's, as far as known."""
        seen = leaving.seen
        if quote.kind is not Kind.ERROR:
            return unsupported(quote.kind, policy)
        assert quote.tuple
        assert seen.tuple
        view = reverse(quote.tuple)
        half = self.table.forward.get(view)
        is_ours = view[0] == seen.tuple[0] and half is not None
        if not half or not is_ours or not self.table.is_live(view[4], half):
            return dropped(Reason.DROP_ICMP_NO_FLOW, policy)
        if leaving.is_routed_here:
            if half.origin.endpoint != leaving.origin.endpoint:
                return dropped(Reason.DROP_ICMP_NO_FLOW, half.policy)
            if seen.hops <= 1:
                return dropped(Reason.DROP_TTL_EXCEEDED, half.policy)
        hops = 1 if leaving.is_routed_here else 0
        change = Change(True, half.address, half.port, hops)
        out = translate_error(leaving.frame, seen, quote, change)
        return _left(leaving, half.policy, out)


def _left(leaving: Leaving, policy: int, frame: bytes) -> Expected:
    if leaving.is_routed_here:
        return sent(policy, frame, MARK_TRANSLATED)
    # Passed on its way to the wire; counted only under a policy.
    reason = Reason.FORWARDED if policy else None
    return Expected(PASS, reason, policy, frame, MARK_TRANSLATED)


def _no_gateway_here(row: PolicyEntry | None) -> Expected:
    policy = row.policy if row else 0
    if isinstance(row, NoGateway):
        return dropped(Reason.DROP_NO_GATEWAY, policy)
    if isinstance(row, NoEgressIP):
        return dropped(Reason.DROP_NO_EGRESS_IP, policy)
    return dropped(Reason.DROP_NO_POLICY, policy)
