"""
The model of the five hooks: what must become of one frame, and of the table.

What a pod sends and gets is here, the node's uplinks are in :mod:`bpf.model.uplink`.
"""

from collections.abc import Callable

from bpf.harness import (
    MARK_OVERLAY,
    MARK_SEEN,
    PASS,
    TUNNEL_MAC,
    TUNNEL_MTU,
    TUNNEL_PORT,
    VNI,
)
from bpf.model.answers import too_big
from bpf.model.gateway import Gateway, Leaving
from bpf.model.headers import EXTENSIONS, ICMP, ICMPV6, TCP, UDP, V6, layout_of
from bpf.model.outcome import (
    LET_PASS,
    PASSED,
    Arrival,
    Expected,
    Seen,
    answered,
    dropped,
    released,
    sent,
    unsupported,
)
from bpf.model.packet import (
    Kind,
    Read,
    Tuple,
    reverse,
)
from bpf.model.rules import Rules, egress_ip_of
from bpf.model.table import (
    FROM_TUNNEL,
    INBOUND,
    LOCAL_GATEWAY,
    TO_GATEWAY,
    Flow,
    Origin,
    Table,
    is_closed,
    tcp_bits,
)
from bpf.model.tunnel import clamped, is_too_big
from bpf.model.uplink import Uplink
from outgate.kernel.reasons import Reason
from outgate.state.entries import Hook, NoGateway, ViaGateway


def _learn_veth(flow: Flow, origin: Origin) -> None:
    """Note where the pod is, of a flow that began outside."""
    if not any(flow.macs):
        flow.macs = origin.macs


def _is_for_tunnel(seen: Seen, key: Tuple) -> bool:
    """UDP to the tunnel's port, or what may be that: not all headers were walked."""
    header = seen.read.header
    is_unread = header is not None and header.layout is V6 and key[4] in EXTENSIONS
    return is_unread or (key[4], key[3]) == (UDP, TUNNEL_PORT)


def _any(seen: Read) -> bool:
    return seen.kind is Kind.FLOW


_BEGINNINGS: dict[int, Callable[[Read], bool]] = {
    TCP: lambda seen: seen.is_syn,
    ICMP: lambda seen: seen.is_echo_request,
    ICMPV6: lambda seen: seen.is_echo_request,
}
"""By protocol: may this packet begin a flow?  Of others each one may."""


class Datapath:
    """One node; *chosen* tells which port the kernel gave a flow."""

    def __init__(
        self, rules: Rules, table: Table, chosen: Callable[[Tuple], int]
    ) -> None:
        self.rules = rules
        self.table = table
        self._gateway = Gateway(rules, table, chosen)
        self._uplink = Uplink(self._gateway)

    def expect(self, arrival: Arrival) -> Expected:
        """Say what must become of *arrival*, which the kernel had before."""
        seen = Seen.of(arrival)
        if arrival.hook is Hook.TO_CONTAINER:
            self._to_container(seen.read)
            return PASSED
        seen = self.table.parts.resolve(seen)
        if arrival.hook is Hook.FROM_CONTAINER:
            return self._from_container(seen)
        if arrival.hook is Hook.FROM_OVERLAY:
            return self._from_overlay(seen)
        if arrival.hook is Hook.FROM_NETDEV:
            return self._uplink.from_netdev(seen)
        return self._uplink.to_netdev(seen)

    def _from_container(self, seen: Seen) -> Expected:
        key, frame = seen.read.tuple, seen.arrival.frame
        if seen.kind is Kind.OTHER:
            return PASSED
        if key is None:
            return dropped(Reason.DROP_INVALID)
        origin = Origin(macs=frame[6:12] + frame[:6])
        if seen.kind is Kind.ERROR:
            flow = self.table.error_flow(seen.read, seen.quote)
            if flow is None:
                return self._undecided(seen)
            _learn_veth(flow, origin)
            return self._send_error(seen, flow, origin)
        flow = self.table.continued(seen.read) if seen.kind is Kind.FLOW else None
        if flow:
            self.table.touch(flow, tcp_bits(seen.read, is_reverse=False))
            _learn_veth(flow, origin)
            return self._send(seen, flow, origin)
        decided = self._decide(seen, key, origin)
        if isinstance(decided, Expected):
            return decided
        return self._send(seen, decided, origin)

    def _undecided(self, seen: Seen) -> Expected:
        """Say what becomes of an error that speaks of no flow."""
        assert seen.read.tuple
        decided = self._decide(seen, seen.read.tuple, Origin())
        assert isinstance(decided, Expected)
        return decided

    def _send_error(self, seen: Seen, flow: Flow, origin: Origin) -> Expected:
        if flow.decision == INBOUND:
            return LET_PASS
        if flow.decision == TO_GATEWAY:
            return sent(flow.policy)
        if flow.decision != LOCAL_GATEWAY:
            return dropped(Reason.DROP_INVALID, flow.policy)
        if self.table.mode.is_stack:
            return Expected(PASS, mark=MARK_OVERLAY)
        leaving = Leaving(seen.arrival.frame, seen.read, origin)
        return self._gateway.translate_error(leaving, seen.quote, flow.policy)

    def _decide(self, seen: Seen, key: Tuple, origin: Origin) -> Flow | Expected:
        if _is_for_tunnel(seen, key) and self.rules.is_of_node(key[1]):
            return dropped(Reason.DROP_FORGED_TUNNEL)
        if not self.rules.is_pod(key[0]):
            if self.rules.is_of_node(key[0]):
                return dropped(Reason.DROP_FORGED_TUNNEL)
            policy = self.rules.unknown_pod_policy(key[0], key[1], local_only=False)
            return dropped(Reason.DROP_UNKNOWN_POD, policy) if policy else LET_PASS
        row = self.rules.covering(key[0], key[1])
        if row is None:
            return self._leave_alone(key)
        if seen.kind is Kind.FRAGMENT and seen.is_later:
            hook, frame = seen.arrival.hook, seen.arrival.frame
            is_held = self.table.parts.hold(hook, seen.read, frame)
            reason = Reason.FRAGMENT_HELD if is_held else Reason.DROP_FRAGMENT
            return dropped(reason, row.policy)
        if seen.kind is not Kind.FLOW:
            return unsupported(seen.kind, row.policy)
        if isinstance(row, NoGateway):
            return dropped(Reason.DROP_NO_GATEWAY, row.policy)
        if not isinstance(row, ViaGateway):
            return dropped(Reason.DROP_NO_EGRESS_IP, row.policy)
        gateway = row.tunnel_endpoint.packed
        flow = Flow(
            LOCAL_GATEWAY if self.rules.is_host(gateway) else TO_GATEWAY,
            row.policy,
            gateway,
            egress_ip_of(row),
            origin.macs,
            tcp_bits(seen.read, is_reverse=False),
            self.table.now,
            self.table.generation,
        )
        self.table.flows[key] = flow
        return flow

    def _leave_alone(self, key: Tuple) -> Expected:
        """No policy covers the pair; maybe one does in the other family."""
        endpoint = self.rules.endpoint(key[0])
        is_selected = endpoint is not None and endpoint.is_selected
        if is_selected and self.rules.is_inside(key[1]):
            # A Service may lead outside: the guard looks at it again.
            return PASSED
        if not self._is_of_other_family(key):
            return LET_PASS
        if self.table.mode.is_other_family_dropped:
            return dropped(Reason.DROP_OTHER_FAMILY)
        return Expected(PASS, Reason.OTHER_FAMILY, mark=MARK_SEEN)

    def _is_of_other_family(self, key: Tuple) -> bool:
        """Do policies select the pod in the other family alone?"""
        endpoint = self.rules.endpoint(key[0])
        is_other = endpoint is not None and endpoint.is_other_family
        return is_other and not self.rules.is_cluster(key[1])

    def _is_cut_off(self, key: Tuple) -> bool:
        """Would what the pod answers be dropped, if nobody knew who called?"""
        is_dropped = self.table.mode.is_other_family_dropped
        return is_dropped and self._is_of_other_family(key)

    def _send(self, seen: Seen, flow: Flow, origin: Origin) -> Expected:
        frame = seen.arrival.frame
        waiting = self.table.parts.learn(seen.arrival.hook, seen.read)
        if waiting:
            return released(waiting)
        if flow.decision == INBOUND:
            return LET_PASS
        if flow.decision == TO_GATEWAY:
            if is_too_big(frame, seen.read):
                assert seen.read.tuple
                peer = seen.read.tuple[1]
                answer = too_big(frame, seen.read, peer, TUNNEL_MTU)
                return answered(Reason.DROP_TOO_BIG, flow.policy, answer)
            return sent(flow.policy, clamped(frame, seen.read))
        if flow.decision != LOCAL_GATEWAY:
            return dropped(Reason.DROP_INVALID, flow.policy)
        if self.table.mode.is_stack:
            return Expected(PASS, mark=MARK_OVERLAY)
        return self._gateway.translate(Leaving(frame, seen.read, origin, flow))

    def _from_overlay(self, seen: Seen) -> Expected:
        node, key = seen.arrival.tunnel, seen.read.tuple
        is_node = self.rules.is_node(node)
        if len(node) == V6.address and layout_of(seen.arrival.frame) is not V6:
            # IPv4's program, which comes first, knows no outer header of IPv6.
            is_node = False
        if seen.arrival.vni != VNI or not is_node:
            return dropped(Reason.DROP_UNKNOWN_TUNNEL_SOURCE)
        if seen.kind is Kind.OTHER or key is None:
            return dropped(Reason.DROP_INVALID)
        if seen.kind not in (Kind.FLOW, Kind.ERROR):
            return unsupported(seen.kind)
        if self.rules.is_pod(key[1]):
            return self._deliver(seen, key, node)
        if self.table.mode.is_stack:
            return self._hand_to_stack(seen, key, node)
        leaving = Leaving(seen.arrival.frame, seen.read, Origin(node))
        if seen.kind is Kind.ERROR:
            return self._gateway.translate_error(leaving, seen.quote, 0)
        return self._gateway.translate(leaving)

    def _deliver(self, seen: Seen, key: Tuple, node: bytes) -> Expected:
        view = seen.quote.tuple or reverse(key)
        flow = self.table.live_flow(view)
        if flow is None or flow.decision != TO_GATEWAY:
            return dropped(Reason.DROP_NO_FLOW)
        if not self.rules.is_same_node(flow.endpoint, node):
            return dropped(Reason.DROP_NO_FLOW)
        if seen.kind is Kind.FLOW:
            self.table.touch(flow, tcp_bits(seen.read, is_reverse=True))
            self.table.parts.note_first(seen.read)
        return sent(flow.policy, flow.macs + seen.arrival.frame[12:])

    def _hand_to_stack(self, seen: Seen, key: Tuple, node: bytes) -> Expected:
        if seen.kind is Kind.ERROR:
            flow = self.table.error_flow(seen.read, seen.quote)
            if not flow or (flow.decision, flow.endpoint) != (FROM_TUNNEL, node):
                return dropped(Reason.DROP_ICMP_NO_FLOW)
            return _handed(seen)
        flow = self.table.continued(seen.read)
        if flow and (flow.decision, flow.endpoint) == (FROM_TUNNEL, node):
            self.table.touch(flow, tcp_bits(seen.read, is_reverse=False))
            self.table.parts.note_first(seen.read)
            return _handed(seen)
        row = self._gateway.row(key, Origin(node))
        if isinstance(row, Expected):
            return row
        egress_ip, now = egress_ip_of(row), self.table.now
        generation, macs = self.table.generation, bytes(12)
        flow = Flow(FROM_TUNNEL, row.policy, node, egress_ip, macs, 0, now, generation)
        self.table.flows[key] = flow
        self.table.parts.note_first(seen.read)
        return _handed(seen)

    def _to_container(self, seen: Read) -> None:
        if seen.kind is not Kind.FLOW or seen.tuple is None:
            return
        view, protocol = reverse(seen.tuple), seen.tuple[4]
        flow = self.table.live_flow(view)
        if flow:
            is_begun = seen.is_syn and (
                bool(flow.tcp) if flow.decision == INBOUND else is_closed(flow.tcp)
            )
        else:
            is_begun = _BEGINNINGS.get(protocol, _any)(seen)
        if is_begun:
            row = self.rules.covering(view[0], view[1])
            if row or self._is_cut_off(view):
                policy, now = row.policy if row else 0, self.table.now
                self.table.flows[view] = Flow(
                    INBOUND, policy, b"", b"", bytes(12), 0, now
                )
        elif flow and flow.decision == INBOUND:
            self.table.touch(flow, tcp_bits(seen, is_reverse=True))


def _handed(seen: Seen) -> Expected:
    """Given to the host's stack, as if its own device had got it."""
    frame = TUNNEL_MAC * 2 + seen.arrival.frame[12:]
    return Expected(PASS, frame=frame, mark=MARK_OVERLAY)
