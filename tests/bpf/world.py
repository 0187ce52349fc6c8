"""
The cluster that the datapath tests speak of: the gateway node of the guide's example.

A ``World`` is that cluster in one IP family.  Tests take the fixture ``world`` and name
addresses by it, so each runs once per world; the third has IPv6 pods on nodes that
tunnel by IPv4, as in a cluster with both families.

===================  ==================  ==============================================
of IPv4              of IPv6
===================  ==================  ==============================================
10.0.2.86            fd00:10:0:2::56     a pod of this node, covered: gateway is here
10.0.2.99            fd00:10:0:2::63     a pod of this node: gateway is 172.18.0.4
10.0.2.100           fd00:10:0:2::64     a pod of this node that no policy selects
10.0.1.42            fd00:10:0:1::2a     a pod of node 172.18.0.4, served by us
203.0.113.0/24       2001:db8:113::/48   what the policy covers, but for a part of it
172.18.0.5           fc00:..:e793::5     this node, and the egress IP
===================  ==================  ==============================================
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network
from typing import cast

from bpf.packets import IP_SIZE
from outgate.state.entries import (
    CLUSTER,
    HOST,
    REMOTE_NODE,
    WORLD,
    Address,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
    Family,
    Identity,
    IpcacheEntry,
    IpcacheKey,
    Key,
    Network,
    NodeEntry,
    NodeKey,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    PolicyId,
    PolicyKey,
    RowSet,
    RowsKey,
    Value,
    ViaGateway,
)

POLICY = PolicyId(77)

Rows = dict[Key | PolicyKey, Value | PolicyEntry]
"""Rows of maps, one by one."""


@dataclass(frozen=True, slots=True)
class World:
    """
    The cluster's addresses and networks, as text; see the module's docstring.

    *family* is of pods and servers, *outer* of the addresses that nodes tunnel by.
    """

    name: str
    family: Family
    outer: Family

    HERE: str
    ELSEWHERE: str
    ELSEWHERE_TOO: str
    """Another address of that node."""
    THIRD: str
    NO_NODE: str
    OTHER_EGRESS_IP: str
    ROUTER: str
    """The uplink's next hop."""

    LOCAL_POD: str
    TUNNELLED_POD: str
    FREE_POD: str
    UNKNOWN_POD: str
    REMOTE_POD: str
    OTHER_REMOTE_POD: str
    ROUTED_POD: str
    """In the pods' network of the other node, with no row here."""
    THIRD_NODES_POD: str
    POD_ROUTER: str

    SERVER: str
    OTHER_COVERED_SERVER: str
    EXCLUDED_SERVER: str
    OTHER_SERVER: str
    NO_GATEWAY_SERVER: str
    NO_EGRESS_IP_SERVER: str
    HOP: str
    """A router on the way to the servers."""
    STRANGER: str

    NETWORK: str
    EXCLUDED_NETWORK: str
    NO_GATEWAY_NETWORK: str
    NO_EGRESS_IP_NETWORK: str
    CLUSTER_NETWORK: str
    """Covered as well, and the pods' networks lie in it."""
    LOCAL_PODS: str
    REMOTE_PODS: str
    THIRD_NODES_PODS: str
    EVERYTHING: str

    def address(self, name: str) -> str:
        """Return the address called *name*; tests have names where no world is yet."""
        address: str = getattr(self, name)
        return address

    def resolve(self, changes: Mapping[str, object]) -> dict[str, object]:
        """Return *changes* with the address where the name of one is."""
        return {
            field: self.address(value) if isinstance(value, str) else value
            for field, value in changes.items()
        }

    @property
    def ip_size(self) -> int:
        """Bytes of an IP header without options or extensions."""
        return IP_SIZE[self.family]

    def tunnel_address(self, node: str) -> Address:
        """Return the address by which the node with address *node* tunnels."""
        address = ip_address(node)
        if self.outer is self.family:
            return address
        return IPv4Address(f"172.18.0.{address.packed[-1]}")

    @property
    def worker(self) -> Address:
        """The tunnel address of node ELSEWHERE."""
        return self.tunnel_address(self.ELSEWHERE)

    def row(self, source: str, network: str) -> PolicyKey:
        """Return the key of one policy row."""
        return PolicyKey(ip_address(source), ip_network(network))

    def via(self, gateway: str, egress_ip: str | None = None) -> ViaGateway:
        """Return the value of a row through node *gateway*."""
        return ViaGateway(
            ip_address(egress_ip or gateway), self.tunnel_address(gateway), POLICY
        )

    def node_entries(self, *addresses: str, pods: str = "") -> Rows:
        """Return the rows of another node, which has *addresses* and network *pods*."""
        endpoint = self.tunnel_address(addresses[0])
        entries: Rows = {}
        for text in addresses:
            for address in {ip_address(text), self.tunnel_address(text)}:
                at = IpcacheEntry(REMOTE_NODE, endpoint)
                entries[NodeKey(address)] = NodeEntry()
                entries[IpcacheKey(ip_network(address))] = at
        if pods:
            entries[IpcacheKey(ip_network(pods))] = IpcacheEntry(CLUSTER, endpoint)
        return entries


IPV4 = World(
    name="ipv4",
    family=Family.V4,
    outer=Family.V4,
    HERE="172.18.0.5",
    ELSEWHERE="172.18.0.4",
    ELSEWHERE_TOO="172.18.0.44",
    THIRD="172.18.0.3",
    NO_NODE="172.18.0.99",
    OTHER_EGRESS_IP="172.18.0.50",
    ROUTER="172.18.0.1",
    LOCAL_POD="10.0.2.86",
    TUNNELLED_POD="10.0.2.99",
    FREE_POD="10.0.2.100",
    UNKNOWN_POD="10.0.2.200",
    REMOTE_POD="10.0.1.42",
    OTHER_REMOTE_POD="10.0.1.43",
    ROUTED_POD="10.0.1.77",
    THIRD_NODES_POD="10.0.0.174",
    POD_ROUTER="10.0.2.1",
    SERVER="203.0.113.9",
    OTHER_COVERED_SERVER="203.0.113.10",
    EXCLUDED_SERVER="203.0.113.70",
    OTHER_SERVER="192.0.2.1",
    NO_GATEWAY_SERVER="198.51.100.1",
    NO_EGRESS_IP_SERVER="198.51.100.129",
    HOP="192.0.2.254",
    STRANGER="192.0.2.77",
    NETWORK="203.0.113.0/24",
    EXCLUDED_NETWORK="203.0.113.64/28",
    NO_GATEWAY_NETWORK="198.51.100.0/25",
    NO_EGRESS_IP_NETWORK="198.51.100.128/25",
    CLUSTER_NETWORK="10.0.0.0/8",
    LOCAL_PODS="10.0.2.0/24",
    REMOTE_PODS="10.0.1.0/24",
    THIRD_NODES_PODS="10.0.0.0/24",
    EVERYTHING="0.0.0.0/0",
)


def _ipv6(name: str, outer: Family) -> World:
    return World(
        name=name,
        family=Family.V6,
        outer=outer,
        HERE="fc00:f853:ccd:e793::5",
        ELSEWHERE="fc00:f853:ccd:e793::4",
        ELSEWHERE_TOO="fc00:f853:ccd:e793::2c",
        THIRD="fc00:f853:ccd:e793::3",
        NO_NODE="fc00:f853:ccd:e793::63",
        OTHER_EGRESS_IP="fc00:f853:ccd:e793::32",
        ROUTER="fc00:f853:ccd:e793::1",
        LOCAL_POD="fd00:10:0:2::56",
        TUNNELLED_POD="fd00:10:0:2::63",
        FREE_POD="fd00:10:0:2::64",
        UNKNOWN_POD="fd00:10:0:2::c8",
        REMOTE_POD="fd00:10:0:1::2a",
        OTHER_REMOTE_POD="fd00:10:0:1::2b",
        ROUTED_POD="fd00:10:0:1::4d",
        THIRD_NODES_POD="fd00:10::ae",
        POD_ROUTER="fd00:10:0:2::1",
        SERVER="2001:db8:113::9",
        OTHER_COVERED_SERVER="2001:db8:113::a",
        EXCLUDED_SERVER="2001:db8:113:40::46",
        OTHER_SERVER="2001:db8:2::1",
        NO_GATEWAY_SERVER="2001:db8:100::1",
        NO_EGRESS_IP_SERVER="2001:db8:100:8000::81",
        HOP="2001:db8:2::fe",
        STRANGER="2001:db8:2::4d",
        NETWORK="2001:db8:113::/48",
        EXCLUDED_NETWORK="2001:db8:113:40::/60",
        NO_GATEWAY_NETWORK="2001:db8:100::/49",
        NO_EGRESS_IP_NETWORK="2001:db8:100:8000::/49",
        CLUSTER_NETWORK="fd00:10::/32",
        LOCAL_PODS="fd00:10:0:2::/64",
        REMOTE_PODS="fd00:10:0:1::/64",
        THIRD_NODES_PODS="fd00:10::/64",
        EVERYTHING="::/0",
    )


IPV6 = _ipv6("ipv6", Family.V6)
IPV6_OVER_IPV4 = _ipv6("ipv6-over-ipv4", Family.V4)
WORLDS = (IPV4, IPV6, IPV6_OVER_IPV4)


def gateway_entries(world: World = IPV4) -> Rows:
    """Return every row of the gateway node."""
    here = world.tunnel_address(world.HERE)
    entries = world.node_entries(world.ELSEWHERE, pods=world.REMOTE_PODS)
    entries[IpcacheKey(ip_network(world.EVERYTHING))] = IpcacheEntry(WORLD, None)
    entries[IpcacheKey(ip_network(world.LOCAL_PODS))] = IpcacheEntry(CLUSTER, None)
    for address in {ip_address(world.HERE), here}:
        at = IpcacheEntry(Identity(HOST), None)
        entries[IpcacheKey(ip_network(address))] = at
        entries[EndpointKey(address)] = EndpointEntry(EndpointFlag.HOST, True)
    for pod in (world.LOCAL_POD, world.TUNNELLED_POD, world.FREE_POD):
        entries[EndpointKey(ip_address(pod))] = EndpointEntry(
            EndpointFlag.POD, is_selected=pod != world.FREE_POD
        )
    covered = (
        *(world.NETWORK, world.CLUSTER_NETWORK),
        *(world.NO_GATEWAY_NETWORK, world.NO_EGRESS_IP_NETWORK),
    )
    for network in covered:
        entries[CoveredKey(ip_network(network))] = CoveredEntry(POLICY)
    for pod, gateway in (
        (world.LOCAL_POD, world.HERE),
        (world.REMOTE_POD, world.HERE),
        (world.TUNNELLED_POD, world.ELSEWHERE),
    ):
        row = world.row
        entries[row(pod, world.NETWORK)] = world.via(gateway)
        entries[row(pod, world.CLUSTER_NETWORK)] = world.via(gateway)
        entries[row(pod, world.EXCLUDED_NETWORK)] = Excluded(POLICY)
        entries[row(pod, world.NO_GATEWAY_NETWORK)] = NoGateway(POLICY)
        entries[row(pod, world.NO_EGRESS_IP_NETWORK)] = NoEgressIP(here, POLICY)
    return entries


def snapshot_of(entries: Rows) -> dict[Key, Value]:
    """Return the same as agents hold it: the rows of a pod are one entry."""
    snapshot: dict[Key, Value] = {}
    rows: dict[RowsKey, dict[Network, PolicyEntry]] = defaultdict(dict)
    for key, value in entries.items():
        if isinstance(key, PolicyKey):
            rows[RowsKey(key.source)][key.destination] = cast("PolicyEntry", value)
        else:
            snapshot[key] = cast("Value", value)
    return {**snapshot, **{key: RowSet(found) for key, found in rows.items()}}
