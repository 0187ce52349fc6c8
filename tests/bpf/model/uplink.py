"""
The model of the node's uplinks: what comes from the wire, and what is about to leave.

Used by :mod:`bpf.model.datapath`; what a pod sends and gets is modelled there.
"""

from bpf.harness import MARK_OVERLAY, MARK_TRANSLATED, TUNNEL_MTU
from bpf.model.answers import time_exceeded, too_big
from bpf.model.gateway import Gateway, Leaving
from bpf.model.headers import ICMP, ICMPV6, Part
from bpf.model.outcome import (
    PASSED,
    Expected,
    Seen,
    answered,
    dropped,
    released,
    sent,
    unsupported,
)
from bpf.model.packet import RST, SYN, Kind, Read, Tuple, reverse
from bpf.model.parts import NOT_OURS
from bpf.model.rewrite import Change, translate, translate_error
from bpf.model.table import FROM_TUNNEL, INBOUND, LOCAL_GATEWAY, Origin, tcp_bits
from bpf.model.tunnel import clamped, is_too_big
from outgate.kernel.reasons import Reason
from outgate.state.entries import Hook


class Uplink:
    """The two hooks of a node's uplinks."""

    def __init__(self, gateway: Gateway) -> None:
        self.rules = gateway.rules
        self.table = gateway.table
        self._gateway = gateway

    def from_netdev(self, seen: Seen) -> Expected:
        """Say what becomes of a frame from the wire."""
        if seen.kind is Kind.ERROR:
            return self._error_from_netdev(seen)
        key, frame = seen.read.tuple, seen.arrival.frame
        if seen.kind is Kind.FRAGMENT and seen.is_later and not seen.quote.tuple:
            return self._part(seen)
        if seen.kind is not Kind.FLOW or key is None:
            return self._leave_to_host(seen)
        half = self.table.backward.get(key)
        if half is None:
            return self._leave_to_host(seen)
        if half.is_host:
            self.table.touch(half, tcp_bits(seen.read, is_reverse=True))
            return self._leave_to_host(seen)
        if not self.table.is_live(key[4], half):
            return self._leave_to_host(seen)
        waiting = self.table.parts.learn(Hook.FROM_NETDEV, seen.read)
        if waiting:
            return released(waiting)
        self.table.answer(seen.read, half)
        if half.origin.endpoint and is_too_big(frame, seen.read):
            answer = too_big(frame, seen.read, key[1], TUNNEL_MTU)
            reason = Reason.DROP_TOO_BIG
            return answered(reason, half.policy, answer, MARK_TRANSLATED)
        if seen.read.hops <= 1:
            answer = time_exceeded(frame, seen.read, key[1])
            reason = Reason.DROP_TTL_EXCEEDED
            return answered(reason, half.policy, answer, MARK_TRANSLATED)
        out = translate(frame, seen.read, Change(False, half.address, half.port, 1))
        self._gateway.learn_translated(seen.read, half, is_source=False)
        if half.origin.endpoint:
            return sent(half.policy, clamped(out, seen.read))
        return sent(half.policy, half.origin.macs + out[12:])

    def _is_to_egress_ip(self, seen: Seen) -> bool:
        assert seen.read.tuple
        endpoint = self.rules.endpoint(seen.read.tuple[1])
        return endpoint is not None and endpoint.is_egress_ip

    def _part(self, seen: Seen) -> Expected:
        """Say what becomes of a later part that is not known to be a pod's."""
        parts, read = self.table.parts, seen.read
        if parts.is_left_to_host(read) or not self._is_to_egress_ip(seen):
            return PASSED
        if parts.hold(Hook.FROM_NETDEV, read, seen.arrival.frame):
            return dropped(Reason.FRAGMENT_HELD)
        return PASSED

    def _leave_to_host(self, seen: Seen) -> Expected:
        """It is the host's own, and so are the other parts."""
        read = seen.read
        is_first = read.header is not None and read.header.part is Part.FIRST
        if not is_first or not self._is_to_egress_ip(seen):
            return PASSED
        waiting = self.table.parts.learn(Hook.FROM_NETDEV, read, NOT_OURS)
        return released(waiting) if waiting else PASSED

    def _error_from_netdev(self, seen: Seen) -> Expected:
        assert seen.quote.tuple
        key = reverse(seen.quote.tuple)
        half = self.table.backward.get(key)
        if not half or half.is_host or not self.table.is_live(key[4], half):
            return PASSED
        if seen.read.hops <= 1:
            return dropped(Reason.DROP_TTL_EXCEEDED, half.policy)
        change = Change(False, half.address, half.port, 1)
        out = translate_error(seen.arrival.frame, seen.read, seen.quote, change)
        macs = b"" if half.origin.endpoint else half.origin.macs
        return sent(half.policy, macs + out[len(macs) :])

    def to_netdev(self, seen: Seen) -> Expected:
        """Say what becomes of a frame that is about to leave."""
        key, mark = seen.read.tuple, seen.arrival.mark
        if mark == MARK_TRANSLATED:
            return PASSED
        if mark == MARK_OVERLAY:
            return self._from_stack(seen)
        if seen.kind is Kind.OTHER:
            return PASSED
        if key is None:
            return dropped(Reason.DROP_INVALID)
        if self.rules.is_host(key[0]):
            return self._from_host(seen.read, key)
        row = self.rules.covering(key[0], key[1])
        if row is None:
            if self.rules.endpoint(key[0]):
                return PASSED
            policy = self.rules.unknown_pod_policy(key[0], key[1], local_only=True)
            return dropped(Reason.DROP_UNKNOWN_POD, policy) if policy else PASSED
        flow = self.table.error_flow(seen.read, seen.quote)
        if seen.kind is Kind.FLOW:
            flow = self.table.continued(seen.read)
        if flow and flow.decision == INBOUND:
            return PASSED
        return dropped(Reason.DROP_UNTRANSLATED, row.policy)

    def _from_stack(self, seen: Seen) -> Expected:
        read, frame = seen.read, seen.arrival.frame
        if seen.kind is Kind.OTHER:
            return dropped(Reason.DROP_INVALID)
        if seen.kind is Kind.ERROR:
            leaving = Leaving(frame, read, Origin(), is_routed_here=False)
            return self._gateway.translate_error(leaving, seen.quote, 0)
        if seen.kind is not Kind.FLOW or read.tuple is None:
            return unsupported(seen.kind)
        flow = self.table.live_flow(read.tuple)
        if flow is None:
            return dropped(Reason.DROP_UNTRANSLATED)
        if flow.decision == FROM_TUNNEL:
            origin = Origin(flow.endpoint)
        elif flow.decision == LOCAL_GATEWAY:
            origin = Origin(macs=flow.macs)
        else:
            return dropped(Reason.DROP_UNTRANSLATED, flow.policy)
        leaving = Leaving(frame, read, origin, flow, is_routed_here=False)
        return self._gateway.translate(leaving)

    def _from_host(self, seen: Read, key: Tuple) -> Expected:
        endpoint = self.rules.endpoint(key[0])
        is_shared = endpoint is not None and endpoint.is_egress_ip
        if not is_shared or seen.kind is not Kind.FLOW or self.rules.is_cluster(key[1]):
            return PASSED
        is_answer = bool(seen.flags & RST) or (seen.flags & SYN and not seen.is_syn)
        if key[4] in (ICMP, ICMPV6):
            is_answer = not seen.is_echo_request
        first, last = self.table.ports
        needs_entry = not is_answer and first <= key[2] <= last
        if self.table.keep_for_host(seen, needs_entry=needs_entry):
            return PASSED
        return dropped(Reason.DROP_HOST_PORT_TAKEN)
