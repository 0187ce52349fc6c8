"""
An endless stream of frames at hooks: flows, their answers, forgeries, and spoiled ones.

Pure but for what :meth:`Traffic.learn` is told: frames that left, so that answers to
them can be made.  The same seed and the same datapath give the same stream.
"""

from ipaddress import IPv4Address
from random import Random

from bpf.fuzz.mutate import mutate
from bpf.harness import MARK_OVERLAY, MARK_TRANSLATED, REDIRECT, VNI
from bpf.model.datapath import Arrival
from bpf.model.frames import answer, build
from bpf.model.packet import ICMP, TCP, UDP
from bpf.world import (
    ELSEWHERE,
    EXCLUDED_SERVER,
    FREE_POD,
    HERE,
    LOCAL_POD,
    NO_EGRESS_IP_SERVER,
    NO_GATEWAY_SERVER,
    OTHER_SERVER,
    REMOTE_POD,
    SERVER,
    TUNNELLED_POD,
    UNKNOWN_POD,
)
from outgate.state.entries import Hook


def _raw(*addresses: str) -> tuple[bytes, ...]:
    return tuple(IPv4Address(address).packed for address in addresses)


NODE, GATEWAY, STRANGER = _raw(ELSEWHERE, HERE, "172.18.0.99")
PODS = _raw(
    *(LOCAL_POD, LOCAL_POD, TUNNELLED_POD, TUNNELLED_POD, FREE_POD, UNKNOWN_POD)
)
REMOTE_PODS = _raw(REMOTE_POD, REMOTE_POD, REMOTE_POD, "10.0.1.43")
SERVERS = _raw(
    *(SERVER, SERVER, SERVER, SERVER, "203.0.113.10", "203.0.113.11", "10.9.9.9"),
    *(EXCLUDED_SERVER, OTHER_SERVER, NO_GATEWAY_SERVER, NO_EGRESS_IP_SERVER),
)
ANYBODY = (*PODS, *REMOTE_PODS, *SERVERS, NODE, GATEWAY, STRANGER)
PROTOCOLS = (TCP, TCP, UDP, ICMP)
FLAGS = (2, 2, 16, 16, 16, 18, 17, 4, 24, 0)
TCP_FLAGS_OF_ANSWERS = (18, 16, 16, 17, 4)
MARKS = (0, 0, 0, MARK_OVERLAY, MARK_TRANSLATED)
REMEMBERED = 256


class Traffic:
    """See the module's docstring; *spoiled* is the share of frames that are mutated."""

    def __init__(self, chance: Random, spoiled: float) -> None:
        self._chance = chance
        self._spoiled = spoiled
        self._sent: list[bytes] = []
        self._left: list[bytes] = []

    def learn(self, arrival: Arrival, verdict: int, frame: bytes) -> None:
        """Note what became of *arrival*, so that it can be answered later."""
        if verdict != REDIRECT or arrival.hook is Hook.FROM_NETDEV or len(frame) > 80:
            return
        if frame[26:34] == arrival.frame[26:34]:
            self._keep(self._sent, arrival.frame)
        else:
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

    def _frame(self, source: bytes, destination: bytes) -> bytes:
        chance = self._chance
        protocol = PROTOCOLS[int(chance.random() * 4)]
        mine = 40000 + int(chance.random() * 24)
        ports = (mine, 80 + int(chance.random() * 3))
        if protocol == ICMP:
            ports = (mine, 0) if chance.random() < 0.8 else (0, mine)
        flags = FLAGS[int(chance.random() * len(FLAGS))]
        return build(protocol, (source, destination), ports, flags=flags)

    def _fresh(self) -> Arrival:
        chance = self._chance
        kind = chance.random()
        if kind < 0.28:
            frame = self._frame(self._pick(PODS), self._pick(SERVERS))
            return Arrival(Hook.FROM_CONTAINER, frame)
        if kind < 0.5:
            frame = self._frame(self._pick(REMOTE_PODS), self._pick(SERVERS))
            return Arrival(Hook.FROM_OVERLAY, frame, tunnel=NODE)
        if kind < 0.65 and self._left:
            frame = self._answer(self._left[int(chance.random() * len(self._left))])
            return Arrival(Hook.FROM_NETDEV, frame)
        if kind < 0.73 and self._sent:
            sent = self._sent[int(chance.random() * len(self._sent))]
            frame = self._answer(sent)
            return Arrival(Hook.FROM_OVERLAY, frame, tunnel=self._tunnel())
        if kind < 0.8:
            frame = self._frame(self._pick(SERVERS), self._pick(PODS))
            return Arrival(Hook.TO_CONTAINER, frame)
        if kind < 0.86:
            frame = self._frame(GATEWAY, self._pick(SERVERS))
            return Arrival(Hook.TO_NETDEV, frame)
        frame = self._frame(self._pick(ANYBODY), self._pick(ANYBODY))
        if kind < 0.93:
            return Arrival(Hook.TO_NETDEV, frame, MARKS[int(chance.random() * 5)])
        if kind < 0.97:
            vni = VNI if chance.random() < 0.8 else VNI + 1
            return Arrival(Hook.FROM_OVERLAY, frame, 0, self._tunnel(), vni)
        return Arrival(Hook.FROM_NETDEV, frame)

    def _tunnel(self) -> bytes:
        return STRANGER if self._chance.random() < 0.1 else NODE

    def _answer(self, frame: bytes) -> bytes:
        flags = int(self._chance.random() * len(TCP_FLAGS_OF_ANSWERS))
        return answer(frame, TCP_FLAGS_OF_ANSWERS[flags])
