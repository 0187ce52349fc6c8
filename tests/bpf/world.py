"""
The cluster that the datapath tests speak of: the gateway node of the guide's example.

====================  ==========================================================
10.0.2.86             a pod of this node (172.18.0.5), covered: gateway is here
10.0.2.99             a pod of this node, covered: gateway is 172.18.0.4
10.0.2.100            a pod of this node that no policy selects
10.0.1.42             a pod of node 172.18.0.4, served by this gateway
203.0.113.0/24        what the policy covers (203.0.113.64/28 is excluded)
====================  ==========================================================
"""

from ipaddress import IPv4Address, IPv4Network

from outgate.state.entries import (
    CLUSTER,
    HOST,
    REMOTE_NODE,
    WORLD,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
    Identity,
    IpcacheEntry,
    IpcacheKey,
    Key,
    NodeEntry,
    NodeKey,
    NoEgressIP,
    NoGateway,
    PolicyId,
    PolicyKey,
    Value,
    ViaGateway,
)

POLICY = PolicyId(77)

HERE, ELSEWHERE = "172.18.0.5", "172.18.0.4"
LOCAL_POD, TUNNELLED_POD, FREE_POD = "10.0.2.86", "10.0.2.99", "10.0.2.100"
REMOTE_POD = "10.0.1.42"
UNKNOWN_POD = "10.0.2.200"
SERVER, EXCLUDED_SERVER, OTHER_SERVER = "203.0.113.9", "203.0.113.70", "192.0.2.1"
NO_GATEWAY_SERVER, NO_EGRESS_IP_SERVER = "198.51.100.1", "198.51.100.129"


def row(source: str, network: str) -> PolicyKey:
    """Return the key of one policy row."""
    return PolicyKey(IPv4Address(source), IPv4Network(network))


def via(gateway: str, egress_ip: str | None = None) -> ViaGateway:
    """Return the value of a row through *gateway*."""
    return ViaGateway(IPv4Address(egress_ip or gateway), IPv4Address(gateway), POLICY)


def gateway_entries() -> dict[Key, Value]:
    """Return every row of the gateway node."""
    entries: dict[Key, Value] = {}
    for network, identity, at in (
        ("0.0.0.0/0", WORLD, None),
        (f"{HERE}/32", HOST, None),
        (f"{ELSEWHERE}/32", REMOTE_NODE, ELSEWHERE),
        ("10.0.2.0/24", CLUSTER, None),
        ("10.0.1.0/24", CLUSTER, ELSEWHERE),
    ):
        entries[IpcacheKey(IPv4Network(network))] = IpcacheEntry(
            Identity(identity), IPv4Address(at) if at else None
        )
    entries[NodeKey(IPv4Address(ELSEWHERE))] = NodeEntry()
    for pod in (LOCAL_POD, TUNNELLED_POD, FREE_POD):
        entries[EndpointKey(IPv4Address(pod))] = EndpointEntry(EndpointFlag.POD)
    entries[EndpointKey(IPv4Address(HERE))] = EndpointEntry(EndpointFlag.HOST, True)
    for network in ("203.0.113.0/24", "198.51.100.0/24", "10.0.0.0/8"):
        entries[CoveredKey(IPv4Network(network))] = CoveredEntry(POLICY)
    for pod, gateway in (
        (LOCAL_POD, HERE),
        (REMOTE_POD, HERE),
        (TUNNELLED_POD, ELSEWHERE),
    ):
        entries[row(pod, "203.0.113.0/24")] = via(gateway)
        entries[row(pod, "10.0.0.0/8")] = via(gateway)
        entries[row(pod, "203.0.113.64/28")] = Excluded(POLICY)
        entries[row(pod, "198.51.100.0/25")] = NoGateway(POLICY)
        entries[row(pod, "198.51.100.128/25")] = NoEgressIP(IPv4Address(HERE), POLICY)
    return entries
