"""
One node's life, told in steps: pods send, servers answer, time passes, rows change.

Each step is played in the kernel and in the model (:mod:`bpf.model.check`), and after
each all rows are compared.  :mod:`bpf.stories.invariants` watches what must hold beside
that.  :mod:`bpf.stories.machine` makes up the steps.
"""

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address

from bpf.harness import MARK_OVERLAY, PASS, REDIRECT, Node
from bpf.model.check import Checker
from bpf.model.frames import Refusal, Shape, answer, build, icmp_of, refuse
from bpf.model.headers import SCTP, TCP, UDP, V4
from bpf.model.outcome import Arrival
from bpf.model.packet import Tuple, read
from bpf.stories.invariants import Ledger
from bpf.stories.rows import Rows
from bpf.world import World, gateway_entries
from outgate.state.entries import Hook, Key, PolicyEntry, PolicyKey, Value

PROTOCOLS = {"tcp": TCP, "udp": UDP, "sctp": SCTP, "echo": 0}
FLAGS = {"syn": 2, "ack": 16, "fin": 17, "rst": 4, "accept": 18}
SERVER_PORT = 80
FORWARD, BACKWARD = 1, 2
KINDS = {socket.SOCK_STREAM: TCP, socket.SOCK_DGRAM: UDP}


@dataclass(frozen=True, slots=True)
class Sent:
    """A packet that a pod sent; *wire* is what the world saw of it, empty: nothing."""

    arrival: Arrival
    wire: bytes = b""

    def __repr__(self) -> str:
        return "Sent(into the tunnel)" if not self.wire else "Sent(into the world)"


class Story:
    """See the module's docstring; *entries* are the rows that it begins with."""

    def __init__(self, node: Node, checker: Checker, world: World) -> None:
        self.node = node
        self.world = world
        self.checker = checker
        self.ledger = Ledger(checker.datapath.table)
        self.rows = Rows(checker)
        self._sockets = ExitStack()
        self._is_over = False
        self._begin()

    def _begin(self) -> None:
        world, rules = self.world, self.checker.datapath.rules
        entries = gateway_entries(world)
        entries |= world.node_entries(world.THIRD, pods=world.THIRD_NODES_PODS)
        for pod in (world.OTHER_REMOTE_POD, world.THIRD_NODES_POD):
            entries[world.row(pod, world.NETWORK)] = world.via(world.HERE)
        self.node.remove(*(rules.entries.keys() - entries.keys()))
        changed = entries.items() - rules.entries.items()
        self.node.put(dict(changed))
        rules.replace(entries)
        self.checker.datapath.table.sockets.clear()

    def end(self) -> None:
        """Compare all rows that there are, and leave nothing behind."""
        self._sockets.close()
        try:
            if not self._is_over:
                self.node.inside(self.checker.compare_tables)
        finally:
            self.node.inside(self.checker.reset)

    def address(self, name: str) -> bytes:
        """Return the address of somebody of the world, in network order."""
        return ip_address(self.world.address(name)).packed

    def _play(self, arrival: Arrival) -> tuple[int, bytes]:
        """Play one frame, compare all rows, and look at the invariants."""
        self._is_over = True
        self.ledger.note(arrival, self.checker.datapath.rules)
        verdict, frame = self.node.inside(lambda: self.checker.step(arrival))
        self.compare(arrival)
        self.ledger.check(arrival, verdict, frame)
        self._is_over = False
        return verdict, frame

    def compare(self, arrival: Arrival) -> None:
        """Compare all rows that the story ever spoke of."""
        self.rows.note(arrival)
        self.node.inside(self.rows.compare)
        self.ledger.check_halves()

    def _frame(
        self, pair: tuple[str, str], protocol: str, port: int, flags: str
    ) -> bytes:
        source, destination = (self.address(name) for name in pair)
        number = PROTOCOLS[protocol] or icmp_of(source)
        ports = (port, 0 if protocol == "echo" else SERVER_PORT)
        return build(number, (source, destination), ports, Shape(FLAGS[flags]))

    def node_of(self, pod: str) -> bytes:
        """Return the tunnel address of the node that *pod* lives on."""
        where = self.world.THIRD if pod == "THIRD_NODES_POD" else self.world.ELSEWHERE
        return self.world.tunnel_address(where).packed

    def send(
        self, pod: str, server: str, protocol: str, port: int, flags: str
    ) -> Sent | None:
        """Let a pod, of this node or of another, send one packet."""
        frame = self._frame((pod, server), protocol, port, flags)
        if pod in ("REMOTE_POD", "OTHER_REMOTE_POD", "THIRD_NODES_POD"):
            return self.leave(Arrival(Hook.FROM_OVERLAY, frame, 0, self.node_of(pod)))
        return self.leave(Arrival(Hook.FROM_CONTAINER, frame))

    def leave(self, arrival: Arrival) -> Sent | None:
        """Play a packet of a pod, by the host's stack where it goes that way."""
        verdict, frame = self._play(arrival)
        table = self.checker.datapath.table
        if verdict == PASS and table.mode.is_stack and self.ledger.is_for_stack(frame):
            routed = Arrival(Hook.TO_NETDEV, frame, MARK_OVERLAY)
            verdict, left = self._play(routed)
            return Sent(arrival, left) if verdict == PASS else None
        if verdict != REDIRECT:
            return None
        is_changed = frame[14:] != arrival.frame[14:]
        return Sent(arrival, frame if is_changed else b"")

    def go_on(self, sent: Sent, flags: str) -> None:
        """Let a pod send another packet of a flow."""
        before = sent.arrival
        frame = answer(answer(before.frame), Shape(FLAGS[flags]))
        self.leave(Arrival(before.hook, frame, 0, before.tunnel))

    def server_answers(self, sent: Sent, flags: str) -> bytes | None:
        """Let the server answer a packet; return what a pod of this node got."""
        shape = Shape(FLAGS[flags])
        if sent.wire:
            return self._arrive(Arrival(Hook.FROM_NETDEV, answer(sent.wire, shape)))
        frame = answer(sent.arrival.frame, shape)
        node = self.node_of("REMOTE_POD")
        return self._arrive(Arrival(Hook.FROM_OVERLAY, frame, 0, node))

    def router_refuses(self, sent: Sent, *, is_long: bool) -> bytes | None:
        """Let a router on the way refuse a packet; return what the pod got."""
        refusal = self._refusal(is_long, self.address("HOP"))
        if sent.wire:
            return self._arrive(Arrival(Hook.FROM_NETDEV, refuse(sent.wire, refusal)))
        frame = refuse(sent.arrival.frame, refusal)
        node = self.node_of("REMOTE_POD")
        return self._arrive(Arrival(Hook.FROM_OVERLAY, frame, 0, node))

    def pod_refuses(self, sent: Sent) -> None:
        """Let a pod refuse the answer to what it sent."""
        before = sent.arrival
        frame = refuse(answer(before.frame), self._refusal(False, b""))
        self.leave(Arrival(before.hook, frame, 0, before.tunnel))

    def _refusal(self, is_long: bool, source: bytes) -> Refusal:
        is_v4 = len(self.address("HERE")) == V4.address
        size = (20 if is_v4 else 40) + (40 if is_long else 8)
        return Refusal(3 if is_v4 else 1, 3 if is_v4 else 4, size=size, source=source)

    def _arrive(self, arrival: Arrival) -> bytes | None:
        verdict, frame = self._play(arrival)
        return frame if verdict == REDIRECT else None

    def knock(self, server: str, pod: str, protocol: str, flags: str) -> None:
        """Let somebody outside send to a port of a pod of this node."""
        frame = answer(self._own_end(server, pod, protocol), Shape(FLAGS[flags]))
        self._play(Arrival(Hook.TO_CONTAINER, frame))

    def pod_answers(self, server: str, pod: str, protocol: str, flags: str) -> None:
        """Let a pod send from where :meth:`knock` knocks."""
        own = answer(answer(self._own_end(server, pod, protocol)), Shape(FLAGS[flags]))
        verdict, passed = self._play(Arrival(Hook.FROM_CONTAINER, own))
        if verdict == PASS and not self.ledger.is_for_stack(own):
            self._play(Arrival(Hook.TO_NETDEV, passed))

    def _own_end(self, server: str, pod: str, protocol: str) -> bytes:
        """Return a packet of a pod to whom outside it may have come from."""
        if protocol == "echo":
            return answer(self._frame((server, pod), protocol, 40000, "ack"))
        return self._frame((pod, server), protocol, 40000, "ack")

    def host_sends(self, server: str, protocol: str, port: int, flags: str) -> None:
        """Let a program of the node itself send from the egress IP."""
        frame = self._frame(("HERE", server), protocol, port, flags)
        self._play(Arrival(Hook.TO_NETDEV, frame))

    def bind(self, kind: socket.SocketKind, port: int) -> None:
        """Let a program of the node have a port of the egress IP."""
        address = self.world.HERE
        key = KINDS[kind], self.address("HERE"), port
        sockets = self.checker.datapath.table.sockets
        if key in sockets:
            return
        family = socket.AF_INET if "." in address else socket.AF_INET6

        def open_one() -> socket.socket:
            one = self._sockets.enter_context(socket.socket(family, kind))
            one.bind((address, port))
            if kind == socket.SOCK_STREAM:
                one.listen()
            return one

        self.node.inside(open_one)
        sockets.add(key)

    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.node.inside(lambda: self.rows.age(seconds))

    def evict(self, sent: Sent, which: str) -> None:
        """Lose an entry of a flow, as a full table does."""
        key = read(sent.arrival.frame).tuple
        assert key
        table = self.checker.datapath.table
        half = table.forward.get(key)
        if which == "flow" and key in table.flows:
            del table.flows[key]
            self._evict(key, 0)
        elif which == "forward" and half:
            del table.forward[key]
            self._evict(key, FORWARD)
        elif which == "reverse" and half:
            reply = key[1], half.address, key[3], half.port, key[4]
            if reply in table.backward:
                del table.backward[reply]
                self._evict(reply, BACKWARD)

    def _evict(self, key: Tuple, direction: int) -> None:
        self.ledger.evicted(key, direction)
        self.node.inside(lambda: self.checker.runner.evict(key, direction))

    def change(self, key: Key | PolicyKey, value: Value | PolicyEntry | None) -> None:
        """Write or remove one row, and tell programs that policies changed."""
        if value is not None:
            self.node.put({key: value})
        elif key in self.checker.datapath.rules.entries:
            self.node.remove(key)
        self.checker.datapath.rules.change(key, value)
        self.node.inside(self.checker.renew_policies)
