"""
Thousands of flows towards one server, each packet compared whole.

A range of ports is 64,512 of them: packets are not built one by one, but a port is
written into a template.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from struct import pack_into, unpack_from

from bpf.harness import CB, CONTEXT_SIZE, IFINDEX, REDIRECT, VNI, Node, Outcome
from bpf.nodemaps import HINT_TABLES, NAT_TABLES, STAMP
from bpf.packets import ECHO_NAME, ETHERNET, TCP_NAME, UDP_NAME, Packet, outbound
from bpf.world import World
from bpf.wrapper import tunnel_source
from outgate.kernel.records import NatDirection
from outgate.kernel.testrun import run_program
from outgate.state.entries import Hook

PORT_AT = {TCP_NAME: 0, UDP_NAME: 0, ECHO_NAME: 4}
CHECKSUM_AT = {TCP_NAME: 16, UDP_NAME: 6, ECHO_NAME: 2}
"""Where source port (or id) and checksum lie behind the IP header."""

SLOW = 250_000
"""Jiffies in a second of the datapath: a real second is nothing to it."""

NUMBER_AT = {4: 9, 6: 6}
"""Where an IP header of that version says which protocol follows."""


@dataclass(frozen=True, slots=True)
class Template:
    """A frame in which the source port is changed, and its checksum mended."""

    frame: bytes
    port_at: int
    checksum_at: int
    zero: int
    """How a checksum of zero is written."""

    @classmethod
    def of(cls, packet: Packet, world: World) -> "Template":
        """Make a template of *packet*."""
        start = ETHERNET + world.ip_size
        ports, checksums = PORT_AT[packet.protocol], CHECKSUM_AT[packet.protocol]
        zero = 0xFFFF if packet.protocol == UDP_NAME else 0
        return cls(packet.build(), start + ports, start + checksums, zero)

    def port_of(self, frame: bytes) -> int:
        """Return the source port of such a frame."""
        (port,) = unpack_from("!H", frame, self.port_at)
        return int(port)

    def at(self, port: int) -> bytes:
        """Return the frame from *port* (RFC 1624, equation 3)."""
        frame = bytearray(self.frame)
        before = self.port_of(self.frame)
        (checksum,) = unpack_from("!H", frame, self.checksum_at)
        total = (checksum ^ 0xFFFF) + (before ^ 0xFFFF) + port
        while total > 0xFFFF:
            total = (total & 0xFFFF) + (total >> 16)
        pack_into("!H", frame, self.port_at, port)
        pack_into("!H", frame, self.checksum_at, total ^ 0xFFFF or self.zero)
        return bytes(frame)


class Crowd:
    """One pod of the other node, and its flows towards SERVER through this gateway."""

    def __init__(self, node: Node, world: World, protocol: str, pod: str) -> None:
        first = outbound(protocol, pod, world.SERVER)
        self._node, self._world, self._first = node, world, first
        self._sent = Template.of(first, world)
        self._expected = Template.of(first.but(source=world.HERE, ttl=63), world)
        self._context = bytearray(CONTEXT_SIZE)
        pack_into("=I", self._context, IFINDEX, node.uplink)
        self._context[CB : CB + 20] = tunnel_source(world.worker, VNI)

    def send(self, ports: Iterable[int]) -> list[int]:
        """Return the port that each of the pod's *ports* leaves with."""
        return self._node.inside(lambda: self.send_here(ports))

    def send_here(self, ports: Iterable[int]) -> list[int]:
        """Do the same from a thread that is in the node's namespaces already."""
        return [self._send(port) for port in ports]

    def _send(self, port: int) -> int:
        program = self._node.program(
            Hook.FROM_OVERLAY, self._world.family, is_tunnelled=True
        )
        sent = run_program(program, self._sent.at(port), bytes(self._context))
        becomes = self._expected.port_of(sent.packet)
        assert (REDIRECT, self._expected.at(becomes)) == (sent.verdict, sent.packet)
        return becomes

    def refused(self, port: int) -> bool:
        """Is the pod's packet from *port* dropped as it came?"""
        frame = self._sent.at(port)
        sent = self._node.run(Hook.FROM_OVERLAY, frame, tunnel=self._world.worker)
        return sent.verdict != REDIRECT and Outcome(sent.verdict, frame, 0) == sent

    def end(self, port: int, becomes: int, seconds: int) -> None:
        """
        Let both halves of one flow be idle for *seconds*, of ``SLOW`` jiffies.

        So long ago is then, too, what was found out about ports.
        """
        self.end_alone(port, becomes, seconds)
        self._node.age_table(HINT_TABLES[self._world.family], seconds)

    def end_alone(self, port: int, becomes: int, seconds: int) -> None:
        """Do the same, and let no time pass for anything else."""
        pod, server = (
            ip_address(a).packed for a in (self._first.source, self._world.SERVER)
        )
        egress_ip = ip_address(self._world.HERE).packed
        far = self._first.destination_port.to_bytes(2, "big")
        number = self._sent.frame[ETHERNET + NUMBER_AT[self._world.family]]
        halves = {
            NatDirection.FORWARD: pod + server + port.to_bytes(2, "big") + far,
            NatDirection.REVERSE: server + egress_ip + far + becomes.to_bytes(2, "big"),
        }
        with self._node.table(NAT_TABLES[self._world.family]) as table:
            for direction, tuple_ in halves.items():
                key = tuple_ + bytes([number, direction, 0, 0])
                value = bytearray(table.get(key))
                (seen,) = unpack_from("=Q", value, len(value) - STAMP)
                seen -= seconds * SLOW
                pack_into("=Q", value, len(value) - STAMP, seen)
                table.put(key, bytes(value))
