"""
An endless stream of frames at hooks: flows, their answers, forgeries, and spoiled ones.

Pure but for what :meth:`Traffic.learn` is told: frames that left, so that answers to
them can be made.  The same seed and the same datapath give the same stream.
"""

from ipaddress import ip_address
from random import Random

from bpf.fuzz.mutate import mutate
from bpf.harness import (
    MARK_OVERLAY,
    MARK_TRANSLATED,
    PASS,
    REDIRECT,
    TUNNEL_PORT,
    VNI,
)
from bpf.model.frames import Refusal, Shape, answer, build, icmp_of, refuse
from bpf.model.headers import (
    DESTINATION,
    ETHERNET_SIZE,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP,
    ROUTING,
    SCTP,
    TCP,
    UDP,
    V4,
    V6,
)
from bpf.model.outcome import Arrival
from bpf.model.packet import Kind, read
from bpf.world import Rows, World, gateway_entries
from outgate.state.entries import (
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Family,
    Hook,
)


def all_entries(world: World) -> Rows:
    """Return every row of the gateway node, for a cluster of three nodes."""
    entries = gateway_entries(world)
    entries |= world.node_entries(world.THIRD, pods=world.THIRD_NODES_PODS)
    entries[world.row(world.THIRD_NODES_POD, world.NETWORK)] = world.via(world.HERE)
    entries[world.row(world.LOCAL_POD, world.EVERYTHING)] = world.via(world.HERE)
    if world.family is Family.V6:
        alone = EndpointEntry(EndpointFlag.POD, is_other_family=True)
        entries[EndpointKey(ip_address(world.FREE_POD))] = alone
    return entries


class Cast:
    """Who talks in a world; addresses are bytes in network order."""

    def __init__(self, world: World) -> None:
        def raw(*names: str) -> tuple[bytes, ...]:
            return tuple(ip_address(world.address(name)).packed for name in names)

        self.world = world
        self.node, self.third, self.stranger = (
            world.tunnel_address(world.address(name)).packed
            for name in ("ELSEWHERE", "THIRD", "NO_NODE")
        )
        (self.gateway,) = raw("HERE")
        (self.third_pod,) = raw("THIRD_NODES_POD")
        self.pods = raw(
            *("LOCAL_POD", "LOCAL_POD", "TUNNELLED_POD", "TUNNELLED_POD"),
            *("FREE_POD", "UNKNOWN_POD"),
        )
        self.remote_pods = raw(
            *("REMOTE_POD", "REMOTE_POD", "REMOTE_POD", "OTHER_REMOTE_POD"),
            "THIRD_NODES_POD",
        )
        self.servers = raw(
            *("SERVER", "SERVER", "SERVER", "SERVER", "OTHER_COVERED_SERVER"),
            *("EXCLUDED_SERVER", "OTHER_SERVER", "NO_GATEWAY_SERVER"),
            *("NO_EGRESS_IP_SERVER", "ELSEWHERE"),
        )
        others = raw("ELSEWHERE", "HERE", "THIRD", "NO_NODE", "STRANGER", "HOP")
        self.anybody = self.pods + self.remote_pods + self.servers + others


PROTOCOLS = (TCP, TCP, TCP, TCP, UDP, UDP, ICMP, ICMP, SCTP)
"""ICMP stands for the family's own."""

PORTS = (*(80, 81, 82) * 6, TUNNEL_PORT)
FLAGS = (2, 2, 16, 16, 16, 18, 17, 4, 24, 0)
FLAGS_OF_ANSWERS = (18, 16, 16, 17, 4)
MSS = (
    *(b"", b"", b"\2\4\x05\xb4", b"\1\2\4\x05\xb4\1\1\1", b"\2\4\x05\x82", b"\0" * 4),
    *(b"\2\4\2\0", b"\3\3\7\1\2\4\xff\xff", b"\1\1\1\2\4\x05\xb4\0", b"\2\3\x05\xb4"),
)
"""TCP options: none, an MSS of 1460 at even and odd places, 1410, 512, broken ones."""

PAYLOADS = (b"data", b"data", b"", b"odd", b"x" * 40)
LONG = tuple(bytes(size) for size in (1390, 1402, 1410, 1411, 1422, 1423, 1472, 1500))
"""Around what fits the tunnel."""

ERRORS = {
    V4.address: (
        *((3, 0), (3, 1), (3, 3), (3, 4), (3, 13)),
        *((4, 0), (11, 0), (11, 1), (12, 0)),
    ),
    V6.address: ((1, 0), (1, 4), (1, 6), (2, 0), (3, 0), (3, 1), (4, 1)),
}
"""Types and codes, by the size of an address."""

QUOTE_SIZES = (8, 8, 16, 17, 18, 20, 40, 128, 7, 0)
"""Bytes behind the quoted IP header."""

NO_OPTIONS = b"\0\0\1\4\0\0\0\0"
EXTENSIONS = (
    (HOP_BY_HOP, NO_OPTIONS),
    (DESTINATION, NO_OPTIONS),
    (DESTINATION, b"\0\1\1\x0c" + bytes(12)),
    (DESTINATION, b"\0\x1f\1\xfe" + bytes(252)),
    (ROUTING, b"\0\0\4\0\0\0\0\0"),
    (ROUTING, b"\0\2\4\1" + bytes(20)),
    (FRAGMENT, b"\0\0\0\0\0\0\0\x09"),
    (FRAGMENT, b"\0\0\0\1\0\0\0\x09"),
    (FRAGMENT, b"\0\0\0\x08\0\0\0\x09"),
    (FRAGMENT, b"\0\0\0\x11\0\0\0\x09"),
    (51, b"\0\4" + bytes(22)),
)
"""Options, a long one, routing headers, parts of a datagram, authentication."""

MARKS = (0, 0, 0, MARK_OVERLAY, MARK_TRANSLATED)
REMEMBERED = 256


class Traffic:
    """See the module's docstring; *spoiled* is the share of frames that are mutated."""

    def __init__(self, chance: Random, world: World, spoiled: float) -> None:
        self._chance = chance
        self._cast = Cast(world)
        self._spoiled = spoiled
        self._local: list[bytes] = []
        self._remote: list[bytes] = []
        self._left: list[bytes] = []
        self._inbound: list[bytes] = []

    def learn(self, arrival: Arrival, verdict: int, frame: bytes) -> None:
        """Note what became of *arrival*, so that it can be answered later."""
        hook, sent = arrival.hook, arrival.frame
        if read(sent).kind is not Kind.FLOW or read(frame).kind is not Kind.FLOW:
            return
        if hook is Hook.TO_CONTAINER:
            self._keep(self._inbound, sent)
        elif hook is Hook.FROM_CONTAINER and verdict == REDIRECT:
            self._keep(self._local, sent)
        elif hook is Hook.FROM_OVERLAY and verdict in (REDIRECT, PASS):
            self._keep(self._remote, sent)
        elif hook is Hook.FROM_NETDEV:
            return
        if frame[14:] != sent[14:]:
            self._keep(self._left, frame)

    def _keep(self, kept: list[bytes], frame: bytes) -> None:
        if len(kept) < REMEMBERED:
            kept.append(frame)
        else:
            kept[int(self._chance.random() * REMEMBERED)] = frame

    def next(self) -> Arrival:
        """Return the next frame and where it arrives."""
        arrival = self._fresh()
        if self._chance.random() < self._spoiled:
            frame = mutate(self._chance, arrival.frame)
            return Arrival(
                arrival.hook, frame, arrival.mark, arrival.tunnel, arrival.vni
            )
        return arrival

    def _pick(self, items: tuple[bytes, ...]) -> bytes:
        return items[int(self._chance.random() * len(items))]

    def _shape(self, flags: int) -> Shape:
        chance = self._chance
        if chance.random() < 0.7:
            return Shape(flags)
        options = self._pick(MSS) if chance.random() < 0.8 else chance.randbytes(8)
        payload = self._pick(PAYLOADS if chance.random() < 0.7 else LONG)
        ttl = 64 if chance.random() < 0.7 else int(chance.random() * 3)
        is_df = chance.random() < 0.5
        return Shape(flags, ttl, payload, options, is_df, self._extensions())

    def _extensions(self) -> tuple[tuple[int, bytes], ...]:
        chance = self._chance
        if chance.random() < 0.5:
            return ()
        count = 1 + int(chance.random() ** 3 * 8)
        return tuple(
            EXTENSIONS[int(chance.random() * len(EXTENSIONS))] for _ in range(count)
        )

    def _between(self, sources: tuple[bytes, ...], others: tuple[bytes, ...]) -> bytes:
        return self._frame(self._pick(sources), self._pick(others))

    def _frame(self, source: bytes, destination: bytes) -> bytes:
        chance = self._chance
        protocol = PROTOCOLS[int(chance.random() * len(PROTOCOLS))]
        mine = 40000 + int(chance.random() * 24)
        ports = (mine, PORTS[int(chance.random() * len(PORTS))])
        if protocol == ICMP:
            protocol = icmp_of(source)
            ports = (mine, 0) if chance.random() < 0.8 else (0, mine)
        flags = FLAGS[int(chance.random() * len(FLAGS))]
        return build(protocol, (source, destination), ports, self._shape(flags))

    def _fresh(self) -> Arrival:
        kind = self._chance.random()
        if kind < 0.24:
            frame = self._frame(
                self._pick(self._cast.pods), self._pick(self._cast.servers)
            )
            return Arrival(Hook.FROM_CONTAINER, frame)
        if kind < 0.42:
            pod = self._pick(self._cast.remote_pods)
            cast = self._cast
            node = cast.third if pod == cast.third_pod else cast.node
            frame = self._frame(pod, self._pick(cast.servers))
            return Arrival(Hook.FROM_OVERLAY, frame, tunnel=node)
        if kind < 0.56 and self._left:
            return Arrival(Hook.FROM_NETDEV, self._answer(self._left))
        if kind < 0.62 and self._local:
            frame = self._answer(self._local)
            return Arrival(Hook.FROM_OVERLAY, frame, tunnel=self._tunnel())
        if kind < 0.72:
            return self._error()
        if kind < 0.78:
            frame = self._frame(
                self._pick(self._cast.servers), self._pick(self._cast.pods)
            )
            return Arrival(Hook.TO_CONTAINER, frame)
        if kind < 0.83:
            frame = self._frame(self._cast.gateway, self._pick(self._cast.servers))
            return Arrival(Hook.TO_NETDEV, frame)
        return self._anything(kind)

    def _anything(self, kind: float) -> Arrival:
        """Return a frame that nobody asked for."""
        if kind < 0.89 and self._local + self._remote:
            # What the host's stack routed, or what slipped past from-container.
            frame = self._any(self._local + self._remote)
            return Arrival(Hook.TO_NETDEV, frame, self._mark())
        frame = self._frame(
            self._pick(self._cast.anybody), self._pick(self._cast.anybody)
        )
        if kind < 0.93:
            return Arrival(Hook.TO_NETDEV, frame, self._mark())
        if kind < 0.97:
            vni = VNI if self._chance.random() < 0.8 else VNI + 1
            return Arrival(Hook.FROM_OVERLAY, frame, 0, self._tunnel(), vni)
        return Arrival(Hook.FROM_NETDEV, frame)

    def _error(self) -> Arrival:
        """Return an ICMP error about something that was sent."""
        kind = self._chance.random()
        if kind < 0.4 and self._left:
            return Arrival(Hook.FROM_NETDEV, self._refuse(self._any(self._left)))
        if kind < 0.55 and self._local:
            frame = self._refuse(self._any(self._local))
            return Arrival(Hook.FROM_OVERLAY, frame, tunnel=self._tunnel())
        if kind < 0.7 and self._local:
            frame = self._refuse(answer(self._any(self._local)))
            return Arrival(Hook.FROM_CONTAINER, frame)
        if kind < 0.8 and self._inbound:
            frame = self._refuse(self._any(self._inbound))
            hook = Hook.FROM_CONTAINER if kind < 0.75 else Hook.TO_NETDEV
            return Arrival(hook, frame)
        if kind < 0.9 and self._remote:
            frame = self._refuse(answer(self._any(self._remote)))
            return Arrival(Hook.FROM_OVERLAY, frame, tunnel=self._tunnel())
        if self._local + self._remote:
            frame = self._refuse(answer(self._any(self._local + self._remote)))
            return Arrival(Hook.TO_NETDEV, frame, self._mark())
        frame = self._refuse(self._between(self._cast.anybody, self._cast.anybody))
        return Arrival(Hook.FROM_CONTAINER, frame)

    def _any(self, frames: list[bytes]) -> bytes:
        return frames[int(self._chance.random() * len(frames))]

    def _refuse(self, frame: bytes) -> bytes:
        chance = self._chance
        seen = read(frame)
        assert seen.header
        errors = ERRORS[len(seen.header.source)]
        kind, code = errors[int(chance.random() * len(errors))]
        size = seen.l4 - ETHERNET_SIZE
        size += QUOTE_SIZES[int(chance.random() * len(QUOTE_SIZES))]
        source = self._pick(self._cast.servers) if chance.random() < 0.3 else b""
        ttl = 64 if chance.random() < 0.9 else 1
        return refuse(frame, Refusal(kind, code, b"\0\0\5\x14", size, source, ttl))

    def _mark(self) -> int:
        return MARKS[int(self._chance.random() * len(MARKS))]

    def _tunnel(self) -> bytes:
        cast, kind = self._cast, self._chance.random()
        return cast.stranger if kind < 0.1 else cast.third if kind < 0.25 else cast.node

    def _answer(self, frames: list[bytes]) -> bytes:
        flags = FLAGS_OF_ANSWERS[int(self._chance.random() * len(FLAGS_OF_ANSWERS))]
        return answer(self._any(frames), self._shape(flags))
