"""
What the tables of the measured node hold: policy rows in numbers, and flows.

The node is the gateway of ``bpf.world``.  Its rows are for pods of another node, in a
network of their own, so that they lie beside the few of the world itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from bench.driver import PORT_FIRST
from bpf.harness import Node
from bpf.nodemaps import NAT_TABLES, STAMP
from bpf.packets import TCP_NAME, Packet, outbound
from bpf.sharing import share_rows
from bpf.world import World
from outgate.kernel.maps import EGRESS, FLOWS, encode_key, encode_value
from outgate.kernel.records import NatDirection
from outgate.state.entries import (
    CLUSTER,
    CoveredEntry,
    CoveredKey,
    Family,
    IpcacheEntry,
    IpcacheKey,
    PolicyKey,
    family_of,
)

CROWDS = {10: (10, 1), 1000: (250, 4), 100_000: (25_000, 4)}
"""Pods and networks of each that make so many rows."""

TCP = 6
HTTP = 80


@dataclass(frozen=True, slots=True)
class Pods:
    """Where the pods of the many rows are, and the networks beside the world's own."""

    first: str
    network: str
    more_networks: tuple[str, ...]


PODS = {
    Family.V4: Pods(
        "10.128.0.0",
        "10.128.0.0/16",
        ("192.0.2.0/25", "192.0.2.128/26", "192.0.2.192/27"),
    ),
    Family.V6: Pods(
        "fd00:10:0:80::",
        "fd00:10:0:80::/64",
        ("2001:db8:1::/48", "2001:db8:2::/48", "2001:db8:3::/48"),
    ),
}


def put_rows(node: Node, world: World, rows: int) -> int:
    """Write *rows* policy rows and what belongs to them; return how many pods have."""
    of = PODS[world.family]
    pods, networks = CROWDS[rows]
    at = IpcacheEntry(CLUSTER, world.worker)
    node.put({IpcacheKey(ip_network(of.network)): at})
    value = world.via(world.HERE)
    covered = [ip_network(n) for n in (world.NETWORK, *of.more_networks)][:networks]
    node.put({CoveredKey(network): CoveredEntry(value.policy) for network in covered})
    first = ip_address(of.first)
    keys = (
        PolicyKey(first + pod, network) for pod in range(pods) for network in covered
    )
    node.take(*(first + pod for pod in range(pods)))
    packed = {encode_key(key)[1]: encode_value(key, value) for key in keys}
    with node.table(EGRESS[world.family]) as table:
        assert not table.put_many(packed)
    node.inside(lambda: share_rows(node.pins))
    return pods


def crowd_packet(world: World) -> Packet:
    """Return flow 0's packet of the first pod of the many."""
    return talk(PODS[world.family].first, world.SERVER)


def talk(pod: str, server: str) -> Packet:
    """Return a packet in the middle of a TCP connection."""
    return outbound(TCP_NAME, pod, server, PORT_FIRST).but(flags="A")


def forget_flows(node: Node, family: Family) -> None:
    """Empty the tables of flows, what the collector waits for, and events."""
    for name in (FLOWS[family], NAT_TABLES[family]):
        with node.table(name) as table:
            assert not table.remove_many([key for key, _ in table.rows()])
    node.events()
    node.garbage()


def end_translations(node: Node, packet: Packet, egress_ip: str, flows: range) -> None:
    """
    Let *flows* of one pod be over, whatever port they got, and the collector come by.

    It is what releases ports, and programs remember which ones are taken.
    """
    family = family_of(ip_address(packet.source))
    with node.table(NAT_TABLES[family]) as table:
        for key in _forward_keys(packet, flows):
            value = table.get(key)
            reverse = _reverse_key(packet, egress_ip, value[_PORT_AT[family] :][:2])
            for half in (key, reverse):
                table.put(half, table.get(half)[:-STAMP] + bytes(STAMP))
    node.collect()


_PORT_AT = {Family.V4: 4, Family.V6: 16}
"""In ``struct nat_entry``."""


def _forward_keys(packet: Packet, flows: range) -> Iterator[bytes]:
    pod, server = (ip_address(a).packed for a in (packet.source, packet.destination))
    for flow in flows:
        ports = (PORT_FIRST + flow).to_bytes(2, "big") + HTTP.to_bytes(2, "big")
        yield pod + server + ports + bytes([TCP, NatDirection.FORWARD, 0, 0])


def _reverse_key(packet: Packet, egress_ip: str, port: bytes) -> bytes:
    server, own = (ip_address(a).packed for a in (packet.destination, egress_ip))
    ports = HTTP.to_bytes(2, "big") + port
    return server + own + ports + bytes([TCP, NatDirection.REVERSE, 0, 0])
