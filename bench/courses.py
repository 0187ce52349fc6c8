"""
From where to where packets go on a path.  Pure.

*node*: from the pod's veth into the tunnel, or tunnelled replies to the pod.
*gateway*: tunnelled packets arrive at the gateway and leave to the server, or replies
the other way.  *chain*: from the pod's veth to the server's NIC.  On the plain path
nothing is tunnelled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from bench.driver import PORT_FIRST
from bench.network import GATEWAY, MACS, NODE, POD, SERVER, Namespace, Network
from bench.paths import VXLAN_MAC
from bench.traffic import Stream, datagram
from bpf.packets import Packet
from bpf.tunnel import into_tunnel

SERVER_PORT = 80


@dataclass(frozen=True, slots=True)
class Course:
    """
    From where to where packets go; with *in_xdp* they come as frames.

    *taken* tells how many of them XDP has sent on, where it should have sent on all.
    """

    at: Namespace
    stream: Stream
    end: tuple[Namespace, str]
    in_xdp: bool = False
    taken: Callable[[], int] | None = None


def courses(path: str, net: Network) -> dict[str, Course]:
    """Return what is measured on one path, by case name."""
    there = Stream(_of_pod(SERVER_PORT).build(), "eth0")
    back = Stream(_of_server(path).build(), "eth0", is_reply=True)
    server, uplink = (net.server, "eth0"), (net.node, "up0")
    pod, is_xdp, taken = (net.pod, "eth0"), path == "xdp", net.taken
    of_node = {
        f"node/{path}": Course(net.pod, there, (net.gateway, "in0")),
        f"node/{path}/reply": Course(net.gateway, _at_node(path), pod),
    }
    return {
        # Of tc alike; and where XDP is attached, packets do not get to a sink.
        **({} if is_xdp else of_node),
        f"gateway/{path}": Course(net.node, at_gateway(path), server, is_xdp, taken),
        f"gateway/{path}/reply": Course(net.server, back, uplink, is_xdp, taken),
        f"chain/{path}": Course(net.pod, there, server, is_xdp, taken),
        f"chain/{path}/reply": Course(net.server, back, pod, taken=taken),
    }


def _of_pod(server_port: int) -> Packet:
    macs = MACS["pod.eth0"], MACS["node.pod0"]
    return _from_to(datagram(POD, SERVER, destination_port=server_port), macs)


def _of_server(path: str, ttl: int = 64) -> Packet:
    to = POD if path == "plain" else GATEWAY
    ports = {"source_port": SERVER_PORT, "destination_port": PORT_FIRST}
    macs = MACS["server.eth0"], MACS["gateway.out0"]
    return _from_to(datagram(SERVER, to, ttl=ttl, **ports), macs)


def _from_to(packet: Packet, macs: tuple[str, str]) -> Packet:
    return packet.but(source_mac=macs[0], destination_mac=macs[1])


def at_gateway(path: str, server_port: int = SERVER_PORT) -> Stream:
    """Return what arrives at the gateway from the pod's node."""
    macs = MACS["node.up0"], MACS["gateway.in0"]
    if path == "plain":
        return Stream(_from_to(_of_pod(server_port).but(ttl=63), macs).build(), "up0")
    inner = _of_pod(server_port)
    if path == "nftables":
        # There a VXLAN device receives it, which has a MAC address.
        ends = VXLAN_MAC["node"], VXLAN_MAC["gateway"]
        inner = _from_to(inner.but(ttl=63), ends)
    return Stream(_tunnelled(inner, (NODE, GATEWAY), macs), "up0", is_tunnelled=True)


def _at_node(path: str) -> Stream:
    """Return replies that arrive at the pod's node from the gateway."""
    macs = MACS["gateway.in0"], MACS["node.up0"]
    inner = _of_server("plain", ttl=63)
    if path == "plain":
        return Stream(_from_to(inner, macs).build(), "in0", is_reply=True)
    inner = _from_to(inner, (VXLAN_MAC["gateway"], VXLAN_MAC["node"]))
    frame = _tunnelled(inner, (GATEWAY, NODE), macs)
    return Stream(frame, "in0", is_reply=True, is_tunnelled=True)


def _tunnelled(inner: Packet, nodes: tuple[str, str], macs: tuple[str, str]) -> bytes:
    frame = Ether(into_tunnel(inner.build(), ip_address(nodes[0])))
    frame.src, frame.dst = macs
    frame[IP].dst = nodes[1]
    del frame[IP].chksum
    return bytes(frame)
