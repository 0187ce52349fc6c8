"""
The model of the five hooks: what must become of one frame, and of the table.

A port that the walk chooses is the program's choice: the model only says which ones
are right, and learns the one that was taken from the frame that came out.
Not modelled: ICMP errors, fragments and answers of the gateway itself.  For these
:mod:`bpf.model.check` asks for safety only: nothing leaks, and nothing is remembered.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bpf.harness import MARK_OVERLAY, MARK_TRANSLATED, VNI
from bpf.model.packet import (
    ICMP,
    RST,
    SYN,
    TCP,
    Kind,
    Read,
    Tuple,
    read,
    reverse,
    translate,
)
from bpf.model.rules import Rules
from bpf.model.table import (
    INBOUND,
    LOCAL_GATEWAY,
    TO_GATEWAY,
    Flow,
    Half,
    NoPortError,
    Origin,
    Table,
    is_closed,
    tcp_bits,
)
from outgate.kernel.reasons import Reason
from outgate.state.entries import Hook, NoEgressIP, NoGateway, PolicyEntry, ViaGateway


@dataclass(frozen=True, slots=True)
class Arrival:
    """One frame at one hook; *tunnel* is the node that its outer header names."""

    hook: Hook
    frame: bytes
    mark: int = 0
    tunnel: bytes = b""
    vni: int = VNI


@dataclass(frozen=True, slots=True)
class Expected:
    """*reason* is None for a frame that is passed without a count."""

    reason: Reason | None
    policy: int = 0
    frame: bytes | None = None
    is_redirected: bool = False
    is_marked: bool = False


PASSED = Expected(None)
UNSUPPORTED = {
    Kind.HEADLESS: Reason.DROP_INVALID,
    Kind.BROKEN: Reason.DROP_INVALID,
    Kind.FRAGMENT: Reason.DROP_FRAGMENT,
    Kind.ICMP: Reason.DROP_UNSUPPORTED_ICMP,
    Kind.PROTOCOL: Reason.DROP_UNSUPPORTED_PROTOCOL,
}


class Datapath:
    """One node; see the module's docstring."""

    def __init__(
        self, rules: Rules, table: Table, chosen: Callable[[Tuple], int]
    ) -> None:
        self.rules = rules
        self.table = table
        self._chosen = chosen

    def expect(self, arrival: Arrival, came_out: bytes) -> Expected:
        """Say what must become of *arrival*; ports are looked up in *came_out*."""
        seen = read(arrival.frame)
        if arrival.hook is Hook.FROM_CONTAINER:
            return self._from_container(arrival, seen, came_out)
        if arrival.hook is Hook.FROM_OVERLAY:
            return self._from_overlay(arrival, seen, came_out)
        if arrival.hook is Hook.FROM_NETDEV:
            return self._from_netdev(arrival, seen)
        if arrival.hook is Hook.TO_NETDEV:
            return self._to_netdev(arrival, seen, came_out)
        self._to_container(seen)
        return PASSED

    def _from_container(
        self, arrival: Arrival, seen: Read, came_out: bytes
    ) -> Expected:
        if seen.kind is Kind.OTHER:
            return PASSED
        key = seen.tuple
        if key is None:
            return Expected(Reason.DROP_INVALID)
        origin = Origin(macs=arrival.frame[6:12] + arrival.frame[:6])
        flow = self._continued(seen) if seen.kind is Kind.FLOW else None
        if flow:
            self.table.touch(flow, tcp_bits(seen, is_reverse=False))
            if not any(flow.macs):
                # It began outside: only now the pod's veth is known.
                flow.macs = origin.macs
        else:
            decided = self._decide(seen, key, origin)
            if isinstance(decided, Expected):
                return decided
            flow = decided
        if flow.decision == INBOUND:
            return PASSED
        if flow.decision == TO_GATEWAY:
            return Expected(Reason.FORWARDED, flow.policy, arrival.frame, True)
        return self._leave(arrival, seen, came_out, flow, origin)

    def _continued(self, seen: Read) -> Flow | None:
        """Return the flow that decides for this packet, if one does."""
        assert seen.tuple
        flow = self.table.live_flow(seen.tuple)
        if flow is None:
            return None
        if flow.decision == INBOUND:
            return None if seen.is_syn or seen.is_echo_request else flow
        return None if self.table.is_anew(seen, flow) else flow

    def _decide(self, seen: Read, key: Tuple, origin: Origin) -> Flow | Expected:
        if not self.rules.is_pod(key[0]):
            policy = self.rules.unknown_pod_policy(key[0], key[1], local_only=False)
            return Expected(Reason.DROP_UNKNOWN_POD, policy) if policy else PASSED
        row = self.rules.covering(key[0], key[1])
        if row is None:
            return PASSED
        if seen.kind is not Kind.FLOW:
            return Expected(UNSUPPORTED[seen.kind], row.policy)
        if isinstance(row, NoGateway):
            return Expected(Reason.DROP_NO_GATEWAY, row.policy)
        if not isinstance(row, ViaGateway):
            return Expected(Reason.DROP_NO_EGRESS_IP, row.policy)
        gateway = row.tunnel_endpoint.packed
        flow = Flow(
            LOCAL_GATEWAY if self.rules.is_host(gateway) else TO_GATEWAY,
            row.policy,
            gateway,
            row.egress_ip.packed,
            origin.macs,
            tcp_bits(seen, is_reverse=False),
            self.table.now,
        )
        self.table.flows[key] = flow
        return flow

    def _leave(
        self,
        arrival: Arrival,
        seen: Read,
        came_out: bytes,
        flow: Flow | None,
        origin: Origin,
    ) -> Expected:
        """Translate here; *flow* is what was decided, None where the row decides."""
        key = seen.tuple
        assert key
        is_routed_here = arrival.hook is not Hook.TO_NETDEV
        policy = flow.policy if flow else 0
        known = self.table.forward.get(key)
        if known and self.table.is_live(key[4], known):
            if not flow:
                policy = known.policy
            is_moved = known.origin.endpoint != origin.endpoint
            if is_moved and self._is_forged(key[0], origin):
                return Expected(Reason.DROP_FORGED_POD)
        try:
            half = self.table.find(seen, origin)
        except NoPortError:
            return Expected(Reason.DROP_SNAT_NO_PORT, policy)
        if half is None:
            opened = self._open(key, came_out, seen, flow, origin)
            if isinstance(opened, Expected):
                return opened
            half = opened
            policy = half.policy
        if not flow:
            policy = half.policy
        if is_routed_here and seen.ttl <= 1:
            return Expected(Reason.DROP_TTL_EXCEEDED, policy)
        frame = translate(
            arrival.frame,
            seen,
            at_source=True,
            address=half.address,
            port=half.port,
            hops=1 if is_routed_here else 0,
        )
        return Expected(Reason.FORWARDED, policy, frame, is_routed_here, True)

    def _open(
        self,
        key: Tuple,
        came_out: bytes,
        seen: Read,
        flow: Flow | None,
        origin: Origin,
    ) -> Half | Expected:
        if flow:
            egress_ip, policy = flow.egress_ip, flow.policy
        else:
            if self._is_forged(key[0], origin):
                return Expected(Reason.DROP_FORGED_POD)
            row = self.rules.covering(key[0], key[1])
            if not isinstance(row, ViaGateway) or not self.rules.is_host(
                row.tunnel_endpoint.packed
            ):
                return _no_gateway_here(row)
            egress_ip, policy = row.egress_ip.packed, row.policy
        choices = self.table.choices(key, egress_ip)
        if not choices:
            return Expected(Reason.DROP_SNAT_NO_PORT, policy)
        at = seen.l4 + (4 if key[4] == ICMP else 0)
        port = int.from_bytes(came_out[at : at + 2], "big")
        if seen.ttl <= 1 and len(choices) > 1:
            # It has a port now, and dies before anybody sees it.
            port = self._chosen(key)
        if port not in choices:
            port = min(choices)
        return self.table.open(key, port, egress_ip, policy, origin)

    def _is_forged(self, pod: bytes, origin: Origin) -> bool:
        """Tell whether the tunnel's source is no node that holds *pod*."""
        return bool(origin.endpoint) and not self.rules.holds(origin.endpoint, pod)

    def _from_overlay(self, arrival: Arrival, seen: Read, came_out: bytes) -> Expected:
        if arrival.vni != VNI or not self.rules.is_node(arrival.tunnel):
            return Expected(Reason.DROP_UNKNOWN_TUNNEL_SOURCE)
        if seen.kind is Kind.OTHER or seen.tuple is None:
            return Expected(Reason.DROP_INVALID)
        if seen.kind is not Kind.FLOW:
            return Expected(UNSUPPORTED[seen.kind])
        if not self.rules.is_pod(seen.tuple[1]):
            origin = Origin(arrival.tunnel)
            return self._leave(arrival, seen, came_out, None, origin)
        flow = self.table.live_flow(reverse(seen.tuple))
        if flow is None or flow.decision != TO_GATEWAY:
            return Expected(Reason.DROP_NO_FLOW)
        if not self.rules.is_same_node(flow.endpoint, arrival.tunnel):
            return Expected(Reason.DROP_NO_FLOW)
        self.table.touch(flow, tcp_bits(seen, is_reverse=True))
        frame = flow.macs + arrival.frame[12:]
        return Expected(Reason.FORWARDED, flow.policy, frame, True)

    def _from_netdev(self, arrival: Arrival, seen: Read) -> Expected:
        if seen.kind is not Kind.FLOW or seen.tuple is None:
            return PASSED
        half = self.table.backward.get(seen.tuple)
        if half is None:
            return PASSED
        if half.is_host:
            self.table.touch(half, tcp_bits(seen, is_reverse=True))
            return PASSED
        if not self.table.is_live(seen.tuple[4], half):
            return PASSED
        self.table.answer(seen, half)
        if seen.ttl <= 1:
            return Expected(Reason.DROP_TTL_EXCEEDED, half.policy)
        frame = translate(
            arrival.frame,
            seen,
            at_source=False,
            address=half.address,
            port=half.port,
            hops=1,
        )
        if not half.origin.endpoint:
            frame = half.origin.macs + frame[12:]
        return Expected(Reason.FORWARDED, half.policy, frame, True)

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
            is_begun = {TCP: seen.is_syn, ICMP: seen.is_echo_request}.get(
                protocol, True
            )
        if is_begun:
            row = self.rules.covering(view[0], view[1])
            if row:
                now, nothing = self.table.now, bytes(4)
                self.table.flows[view] = Flow(
                    INBOUND, row.policy, nothing, nothing, bytes(12), 0, now
                )
        elif flow and flow.decision == INBOUND:
            self.table.touch(flow, tcp_bits(seen, is_reverse=True))

    def _to_netdev(self, arrival: Arrival, seen: Read, came_out: bytes) -> Expected:
        if arrival.mark == MARK_TRANSLATED:
            return PASSED
        if arrival.mark == MARK_OVERLAY:
            return self._from_stack(arrival, seen, came_out)
        key = seen.tuple
        if seen.kind is Kind.OTHER:
            return PASSED
        if key is None:
            return Expected(Reason.DROP_INVALID)
        if self.rules.is_host(key[0]):
            return self._from_host(seen, key)
        row = self.rules.covering(key[0], key[1])
        if row is None:
            if self.rules.endpoint(key[0]):
                return PASSED
            policy = self.rules.unknown_pod_policy(key[0], key[1], local_only=True)
            return Expected(Reason.DROP_UNKNOWN_POD, policy) if policy else PASSED
        if seen.kind is Kind.FLOW:
            flow = self._continued(seen)
            if flow and flow.decision == INBOUND:
                return PASSED
        return Expected(Reason.DROP_UNTRANSLATED, row.policy)

    def _from_stack(self, arrival: Arrival, seen: Read, came_out: bytes) -> Expected:
        if seen.kind is Kind.OTHER:
            return Expected(Reason.DROP_INVALID)
        if seen.kind is not Kind.FLOW or seen.tuple is None:
            return Expected(UNSUPPORTED[seen.kind])
        flow = self.table.live_flow(seen.tuple)
        if flow is None:
            return Expected(Reason.DROP_UNTRANSLATED)
        if flow.decision != LOCAL_GATEWAY:
            return Expected(Reason.DROP_UNTRANSLATED, flow.policy)
        return self._leave(arrival, seen, came_out, flow, Origin(macs=flow.macs))

    def _from_host(self, seen: Read, key: Tuple) -> Expected:
        endpoint = self.rules.endpoint(key[0])
        is_shared = endpoint is not None and endpoint.is_egress_ip
        if not is_shared or seen.kind is not Kind.FLOW or self.rules.is_cluster(key[1]):
            return PASSED
        is_answer = bool(seen.flags & RST) or (seen.flags & SYN and not seen.is_syn)
        if key[4] == ICMP:
            is_answer = not seen.is_echo_request
        first, last = self.table.ports
        needs_entry = not is_answer and first <= key[2] <= last
        if self.table.keep_for_host(seen, needs_entry=needs_entry):
            return PASSED
        return Expected(Reason.DROP_HOST_PORT_TAKEN)


def _no_gateway_here(row: PolicyEntry | None) -> Expected:
    policy = row.policy if row else 0
    if isinstance(row, NoGateway):
        return Expected(Reason.DROP_NO_GATEWAY, policy)
    if isinstance(row, NoEgressIP):
        return Expected(Reason.DROP_NO_EGRESS_IP, policy)
    return Expected(Reason.DROP_NO_POLICY, policy)
