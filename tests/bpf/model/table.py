"""
The model of NAT: flows and halves of translations in plain dictionaries.

Documented rules only: lifetimes by protocol state (``bpf/include/flow.h``), a port is
owned by whoever has the reverse half (decision 3), both halves live and die together,
an unanswered flow follows the policy.  Time is a number of seconds that tests move.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from bpf.model.headers import SCTP, TCP, UDP
from bpf.model.packet import FIN, RST, Kind, Quote, Read, Tuple, reverse
from bpf.model.parts import Parts

REPLIED, FIN_FORWARD, FIN_REVERSE, RESET = 1, 2, 4, 8
FIN_BOTH = FIN_FORWARD | FIN_REVERSE

OPENING, ESTABLISHED, CLOSING, UDP_LIFE, ECHO_LIFE = 60, 7440, 10, 300, 60
"""Seconds; RFC 5382 REQ-5, RFC 4787 REQ-5, RFC 5508 REQ-1."""

INBOUND, TO_GATEWAY, LOCAL_GATEWAY = "inbound", "to gateway", "local gateway"
FROM_TUNNEL = "from tunnel"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where replies must go: a node, or (empty) behind the MACs of a local veth."""

    endpoint: bytes = b""
    macs: bytes = bytes(12)


@dataclass(frozen=True, slots=True)
class Mode:
    """
    A node's settings that change what becomes of frames.

    *is_stack*: what leaves is routed by the host's stack (gateway path "stack").
    *is_redecided*: a change of policy decides every flow anew.
    *is_other_family_dropped*: what a pod sends in the family that no policy selects.
    """

    is_stack: bool = False
    is_redecided: bool = False
    is_other_family_dropped: bool = False


KEEP = Mode()


class NoPortError(Exception):
    """Every port is taken, or the flow's own went to another pod."""


@dataclass(slots=True)
class Flow:
    """What was decided for the tuple that a pod writes."""

    decision: str
    policy: int
    endpoint: bytes
    egress_ip: bytes
    macs: bytes
    tcp: int
    seen: int
    generation: int = 0


@dataclass(slots=True)
class Half:
    """One half of a translation: what the tuple's address and port become."""

    address: bytes
    port: int
    origin: Origin
    policy: int
    tcp: int
    seen: int
    is_host: bool = False
    generation: int = 0

    def leads_to(self, address: bytes, port: int) -> bool:
        """Tell whether this half translates to that address and port."""
        return not self.is_host and (self.address, self.port) == (address, port)


def is_closed(tcp: int) -> bool:
    """Reset, or finished by both sides."""
    return bool(tcp & RESET) or tcp & FIN_BOTH == FIN_BOTH


def lifetime(protocol: int, tcp: int) -> int:
    """Return how many seconds an entry lives without a packet."""
    if protocol in (UDP, SCTP):
        return UDP_LIFE
    if protocol != TCP:
        return ECHO_LIFE
    if is_closed(tcp):
        return CLOSING
    return ESTABLISHED if tcp & REPLIED else OPENING


def tcp_bits(seen: Read, *, is_reverse: bool) -> int:
    """Return what one packet adds to the state of a connection."""
    bits = REPLIED if is_reverse else 0
    if seen.flags & FIN:
        bits |= FIN_REVERSE if is_reverse else FIN_FORWARD
    return bits | (RESET if seen.flags & RST else 0)


@dataclass(slots=True)
class Table:
    """
    All that one node remembers of flows; *ports* is its range, inclusive.

    *generation* is that of the policy rows.
    *sockets* are (protocol, address, port) that programs of the node have bound.
    """

    ports: tuple[int, int]
    mode: Mode = KEEP
    now: int = 0
    generation: int = 0
    sockets: set[tuple[int, bytes, int]] = field(default_factory=set)
    flows: dict[Tuple, Flow] = field(default_factory=dict)
    forward: dict[Tuple, Half] = field(default_factory=dict)
    backward: dict[Tuple, Half] = field(default_factory=dict)
    parts: Parts = field(default_factory=Parts)

    def age(self, seconds: int) -> None:
        """Let time pass."""
        self.now += seconds
        self.parts.age(seconds)

    def clear(self) -> None:
        """Forget every flow."""
        self.parts.clear()
        for rows in (self.flows, self.forward, self.backward):
            rows.clear()

    def is_live(self, protocol: int, entry: Flow | Half) -> bool:
        """Tell whether the flow is not over yet."""
        return self.now - entry.seen <= lifetime(protocol, entry.tcp)

    def is_stale(self, entry: Flow | Half) -> bool:
        """A second or more since the entry was written."""
        return self.now - entry.seen >= 1

    def is_anew(self, seen: Read, entry: Flow | Half) -> bool:
        """Must the policy of today be asked for a flow that a pod began?"""
        if seen.is_syn:
            return True
        return not entry.tcp & REPLIED and self.is_stale(entry)

    def is_outdated(self, entry: Flow | Half) -> bool:
        """Did policies change since, and does that matter?"""
        return self.mode.is_redecided and entry.generation != self.generation

    def live_flow(self, key: Tuple) -> Flow | None:
        """Return the flow of *key* (as its pod writes it) unless it is over."""
        flow = self.flows.get(key)
        return flow if flow and self.is_live(key[4], flow) else None

    def continued(self, seen: Read) -> Flow | None:
        """Return the flow that decides for a packet of a pod, if one does."""
        assert seen.tuple
        flow = self.live_flow(seen.tuple)
        if flow is None:
            return None
        if flow.decision == INBOUND:
            return None if seen.is_syn or seen.is_echo_request else flow
        if self.is_outdated(flow):
            return None
        return None if self.is_anew(seen, flow) else flow

    def error_flow(self, seen: Read, quote: Quote) -> Flow | None:
        """Return the flow that a pod's ICMP error speaks of."""
        if quote.kind is not Kind.ERROR:
            return None
        assert quote.tuple
        assert seen.tuple
        view = reverse(quote.tuple)
        return self.live_flow(view) if view[0] == seen.tuple[0] else None

    def touch(self, entry: Flow | Half, bits: int) -> None:
        """Note a packet; the time at most once a second."""
        entry.tcp |= bits
        if self.is_stale(entry):
            entry.seen = self.now

    def find(self, seen: Read, origin: Origin) -> Half | None:
        """Return the translation of a packet that leaves; None: it must be opened."""
        key = seen.tuple
        assert key
        half = self.forward.get(key)
        if half is None:
            return None
        if not self.is_live(key[4], half):
            del self.forward[key]
            return None
        reply = _reply(key, half)
        if self.is_outdated(half) or self.is_anew(seen, half):
            other = self.backward.get(reply)
            if other and other.leads_to(key[0], key[2]):
                del self.backward[reply]
            del self.forward[key]
            return None
        self._touch_forward(seen, half, origin)
        return half

    def _touch_forward(self, seen: Read, half: Half, origin: Origin) -> None:
        key, bits = seen.tuple, tcp_bits(seen, is_reverse=False)
        assert key
        is_moved = half.origin.endpoint != origin.endpoint
        if not bits & ~half.tcp and not is_moved and not self.is_stale(half):
            return
        half.tcp |= bits
        half.seen, half.origin = self.now, origin
        reply = _reply(key, half)
        other = self.backward.get(reply)
        if other and not other.leads_to(key[0], key[2]):
            del self.forward[key]
            raise NoPortError
        tcp = half.tcp | (other.tcp if other else 0)
        self.backward[reply] = Half(key[0], key[2], origin, half.policy, tcp, self.now)

    def is_free(self, key: Tuple, egress_ip: bytes, port: int) -> bool:
        """May the flow of *key* leave from this port?"""
        if (key[4], egress_ip, port) in self.sockets:
            return False
        other = self.backward.get((key[1], egress_ip, key[3], port, key[4]))
        if other is None or not self.is_live(key[4], other):
            return True
        return other.leads_to(key[0], key[2])

    def port_for(
        self, key: Tuple, egress_ip: bytes, chosen: Callable[[Tuple], int]
    ) -> int | None:
        """
        Return the port of a new flow: its own if it is free, else any that is.

        Which one is the program's choice (*chosen*); None when all are taken.
        """
        first, last = self.ports
        if first <= key[2] <= last and self.is_free(key, egress_ip, key[2]):
            return key[2]
        if key[4] == SCTP:
            # Its checksum covers the port.
            return None
        port = chosen(key)
        if first <= port <= last and self.is_free(key, egress_ip, port):
            return port
        ports = range(first, last + 1)
        return next((p for p in ports if self.is_free(key, egress_ip, p)), None)

    def open(
        self, key: Tuple, port: int, egress_ip: bytes, policy: int, origin: Origin
    ) -> Half:
        """Create both halves of a new flow."""
        reply = key[1], egress_ip, key[3], port, key[4]
        self.backward[reply] = Half(key[0], key[2], origin, policy, 0, self.now)
        half = Half(egress_ip, port, origin, policy, 0, self.now)
        half.generation = self.generation
        self.forward[key] = half
        return half

    def answer(self, seen: Read, half: Half) -> None:
        """Note a reply in all that belongs to its flow; *half* is the reverse one."""
        reply, bits = seen.tuple, tcp_bits(seen, is_reverse=True)
        assert reply
        if not bits & ~half.tcp and not self.is_stale(half):
            return
        half.tcp |= bits
        half.seen = self.now
        key = (half.address, reply[0], half.port, reply[2], reply[4])
        if (self.mode.is_stack or not half.origin.endpoint) and key in self.flows:
            self.touch(self.flows[key], bits)
        other = self.forward.get(key)
        if other:
            other.tcp |= half.tcp
            other.seen = self.now
        else:
            self.forward[key] = Half(
                reply[1], reply[3], half.origin, half.policy, half.tcp, self.now
            )

    def keep_for_host(self, seen: Read, *, needs_entry: bool) -> bool:
        """Note a packet of the node's own socket; False: a pod has its port."""
        key, bits = seen.tuple, tcp_bits(seen, is_reverse=False)
        assert key
        reply = reverse(key)
        half = self.backward.get(reply)
        if half and half.is_host:
            if seen.is_syn and half.tcp:
                half.tcp = 0
            self.touch(half, bits)
            return True
        if half and self.is_live(key[4], half):
            return False
        if needs_entry:
            self.backward[reply] = Half(b"", 0, Origin(), 0, 0, self.now, True)
        return True


def _reply(key: Tuple, half: Half) -> Tuple:
    """Return the tuple of a reply to *key* as it comes from the world."""
    return key[1], half.address, key[3], half.port, key[4]
