"""The text of a snapshot: one line per entry, each kind in its own words."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from outgate.state.entries import (
    FORWARD_GUARD,
    HOST,
    REMOTE_NODE,
    Attachment,
    AttachmentKey,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
    Hook,
    IpcacheEntry,
    IpcacheKey,
    NodeEntry,
    NodeKey,
    NoEgressIP,
    NoGateway,
    PolicyId,
    PolicyKey,
    RowSet,
    RowsKey,
    TunnelDevice,
    TunnelKey,
    ViaGateway,
)
from outgate.state.snapshot import Snapshot, policy_rows, render

POD = IPv4Address("10.0.1.7")
NODE = IPv4Address("192.0.2.1")
ID = PolicyId(7)


SNAPSHOT: Snapshot = {
    FORWARD_GUARD: Attachment.CURRENT,
    AttachmentKey("eth0", Hook.TO_NETDEV): Attachment.STALE,
    EndpointKey(NODE): EndpointEntry(EndpointFlag.HOST, is_egress_ip=True),
    EndpointKey(POD): EndpointEntry(EndpointFlag.POD),
    RowsKey(POD): RowSet(
        {
            IPv4Network("203.0.113.0/24"): ViaGateway(NODE, NODE, ID),
            IPv4Network("203.0.113.9/32"): Excluded(ID),
            IPv4Network("203.0.113.8/32"): ViaGateway(None, NODE, ID, "eth1"),
            IPv4Network("10.0.0.0/8"): NoGateway(ID),
            IPv4Network("198.51.100.0/24"): NoEgressIP(NODE, ID),
        }
    ),
    CoveredKey(IPv4Network("10.0.0.0/8")): CoveredEntry(ID),
    IpcacheKey(IPv4Network("192.0.2.2/32")): IpcacheEntry(REMOTE_NODE, NODE),
    IpcacheKey(IPv4Network("192.0.2.1/32")): IpcacheEntry(HOST, None),
    NodeKey(NODE): NodeEntry(),
    TunnelKey(): TunnelDevice("vx0", 4789),
}

TEXT = """\
tunnel      device  vx0 port 4789
node        192.0.2.1
ipcache     192.0.2.1/32  identity 1
ipcache     192.0.2.2/32  identity 6 at 192.0.2.1
covered     10.0.0.0/8
policy      10.0.1.7 -> 10.0.0.0/8  no gateway
policy      10.0.1.7 -> 198.51.100.0/24  via 192.0.2.1, no egress IP
policy      10.0.1.7 -> 203.0.113.0/24  via 192.0.2.1 as 192.0.2.1
policy      10.0.1.7 -> 203.0.113.8/32  via 192.0.2.1
policy      10.0.1.7 -> 203.0.113.9/32  excluded
endpoint    10.0.1.7  pod
endpoint    192.0.2.1  host, egress IP
attachment  to_netdev on eth0  stale
attachment  forward_guard  current"""


def test_render_names_every_kind_in_a_stable_order() -> None:
    assert TEXT == render(SNAPSHOT)


def test_render_writes_ipv4_before_ipv6_of_each_kind() -> None:
    """Keys of two families cannot be compared by value, and hold the same kinds."""
    low, high = IPv6Address("::1:1"), IPv6Address("ff00::")
    snapshot: Snapshot = {
        EndpointKey(low): EndpointEntry(EndpointFlag.POD, is_other_family=True),
        EndpointKey(POD): EndpointEntry(EndpointFlag.POD),
        RowsKey(low): RowSet({IPv6Network("::/0"): ViaGateway(high, NODE, ID)}),
        RowsKey(POD): RowSet({IPv4Network("10.0.0.0/8"): NoGateway(ID)}),
        NodeKey(high): NodeEntry(),
        NodeKey(low): NodeEntry(),
        NodeKey(NODE): NodeEntry(),
    }

    assert render(snapshot).splitlines() == [
        "node        192.0.2.1",
        "node        ::1:1",
        "node        ff00::",
        "policy      10.0.1.7 -> 10.0.0.0/8  no gateway",
        "policy      ::1:1 -> ::/0  via 192.0.2.1 as ff00::",
        "endpoint    10.0.1.7  pod",
        "endpoint    ::1:1  pod, other family",
    ]


def test_policy_rows_are_sorted_by_source_and_destination() -> None:
    wide, narrow = IPv4Network("10.0.0.0/8"), IPv4Network("10.0.0.0/9")
    rows = RowSet({narrow: NoGateway(ID), wide: Excluded(ID)})
    snapshot: Snapshot = {RowsKey(POD + 1): rows, RowsKey(POD): rows}

    assert list(policy_rows(snapshot)) == [
        (PolicyKey(POD, wide), Excluded(ID)),
        (PolicyKey(POD, narrow), NoGateway(ID)),
        (PolicyKey(POD + 1, wide), Excluded(ID)),
        (PolicyKey(POD + 1, narrow), NoGateway(ID)),
    ]
