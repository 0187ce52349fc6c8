"""Kubernetes objects become model values, and hold what they share once."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec
import pytest

from outgate.errors import SourceError
from outgate.policy.model import EgressPolicy
from outgate.policy.reports import NodeReport, PolicyReport
from outgate.source.kinds import NAT_POLICIES
from outgate.source.objects import (
    EgressNodeObject,
    NodeObject,
    PodObject,
    PolicyObject,
)
from outgate.source.sharing import MAX_ENTRIES, share_labels
from outgate.state.entries import InterfaceIndex, NodeName
from outgate.state.facts import Link, NodeFacts


def _node(metadata: Mapping[str, object], status: object) -> NodeObject:
    node = {"metadata": {"name": "n", **metadata}, "status": status}
    return msgspec.json.decode(msgspec.json.encode(node), type=NodeObject)


@pytest.mark.parametrize(
    ("conditions", "is_ready"),
    [
        (None, True),
        ([], True),
        ([{"type": "DiskPressure", "status": "False"}], True),
        ([{"type": "Ready", "status": "True"}], True),
        ([{"type": "Ready", "status": "False"}], False),
        ([{"type": "Ready", "status": "Unknown"}], False),
    ],
)
def test_node_is_ready_unless_its_condition_says_otherwise(
    conditions: object, is_ready: bool
) -> None:
    assert _node({}, {"conditions": conditions}).to_model().is_ready is is_ready


def test_node_with_a_deletion_timestamp_is_being_deleted() -> None:
    deleted = _node({"deletionTimestamp": "2026-01-02T03:04:05Z"}, None)

    assert deleted.to_model().is_deleted
    assert not _node({}, None).to_model().is_deleted


def test_policy_of_a_list_gets_its_kind_from_who_listed_it() -> None:
    """Items of an API server's list say neither apiVersion nor kind."""
    item = {
        "metadata": {"name": "a", "generation": 2},
        "spec": {
            "egress": [{"podSelector": {}}],
            "destinationCIDRs": ["203.0.113.0/24"],
            "egressSourceIP": "192.0.2.1",
        },
    }
    decoded = msgspec.json.decode(msgspec.json.encode(item), type=PolicyObject)
    policy = decoded.to_model("cilium.io/v2alpha1", "CiliumEgressNATPolicy")

    assert isinstance(policy, EgressPolicy)
    assert (policy.kind, policy.generation) == ("CiliumEgressNATPolicy", 2)


def test_pods_with_equal_labels_share_them() -> None:
    def labels(name: str, app: str) -> Mapping[str, str]:
        pod = {"metadata": {"name": name, "labels": {"app": app}}}
        decoded = msgspec.json.decode(msgspec.json.encode(pod), type=PodObject)
        return decoded.to_model().labels

    assert labels("a", "web") is labels("b", "web")
    assert labels("c", "db") == {"app": "db"}


def test_shared_labels_stay_right_when_the_table_is_full() -> None:
    shared = [share_labels({"n": str(n)}) for n in range(MAX_ENTRIES + 10)]

    assert all(labels == {"n": str(n)} for n, labels in enumerate(shared))
    assert share_labels({"n": str(MAX_ENTRIES + 9)}) is shared[-1]


REPORT = NodeReport(
    node=NodeName("n1"),
    is_ready=True,
    message="all is well",
    version="0.1.0",
    renew_time="2026-01-02T03:04:05.000006Z",
    facts=NodeFacts(
        links=(
            Link(
                "eth0",
                InterfaceIndex(1),
                addresses=(IPv4Address("192.0.2.7"), IPv4Address("192.0.2.1")),
                altnames=("enp1s0",),
            ),
            Link("lo", InterfaceIndex(2)),
        ),
        default_interface="eth0",
    ),
    policies={"u-1": PolicyReport("K", "a", 3, False, "the map is full")},
)


def test_report_reads_back_as_it_was_written() -> None:
    written = {"metadata": {"name": "n1"}, "status": REPORT.to_json()}
    read = msgspec.json.decode(msgspec.json.encode(written), type=EgressNodeObject)

    assert REPORT == read.to_model()


def test_report_without_a_status_is_of_a_node_that_is_not_ready() -> None:
    written = b'{"metadata": {"name": "n1"}}'

    expected = NodeReport(NodeName("n1"), is_ready=False)
    assert expected == msgspec.json.decode(written, type=EgressNodeObject).to_model()


def cable(name: str, *addresses: str) -> Link:
    """Return one end of a pair whose other end is elsewhere."""
    known = tuple(map(ip_address, addresses))
    index = InterfaceIndex(9)
    return Link(name, index, kind="veth", addresses=known, peer_elsewhere=True)


def reported(*links: Link, default: str | None = None) -> list[str]:
    report = NodeReport(NodeName("n"), True, facts=NodeFacts(links, default))
    interfaces = report.to_json()["interfaces"]
    assert isinstance(interfaces, list)
    return [interface["name"] for interface in interfaces]


def test_report_leaves_out_the_cables_of_pods() -> None:
    assert reported(cable("veth1")) == []
    assert reported(cable("veth1", "10.0.0.1"), cable("veth2", "10.0.0.1")) == []


def test_report_has_the_cable_that_the_node_itself_hangs_on() -> None:
    assert reported(cable("eth0", "172.18.0.4"), cable("veth1")) == ["eth0"]
    assert reported(cable("eth0"), default="eth0") == ["eth0"]


def test_report_has_names_of_interfaces_that_are_no_text() -> None:
    """Their bytes are what the kernel takes; JSON does not take them."""
    link = Link("v\udcff", InterfaceIndex(1), altnames=("w\udcff",))
    report = NodeReport(NodeName("n"), True, facts=NodeFacts((link,), link.name))
    written = msgspec.json.decode(msgspec.json.encode(report.to_json()))

    assert written["interfaces"][0]["name"] == "v\\xff"
    assert written["interfaces"][0]["altnames"] == ["w\\xff"]
    assert written["defaultRoute"] == {"ipv4": "v\\xff"}


def test_answer_that_is_nested_without_end_cannot_be_read() -> None:
    spec = b"[" * 100_000
    line = b'{"type":"ADDED","object":{"metadata":{"name":"x"},"spec":' + spec

    with pytest.raises(SourceError):
        NAT_POLICIES.decode_event(line)


def test_report_leaves_out_addresses_that_others_do_not_reach() -> None:
    local = Link("eth0", InterfaceIndex(1), addresses=(IPv6Address("fe80::1"),))
    report = NodeReport(NodeName("n"), True, facts=NodeFacts((local,)))
    written = {"metadata": {"name": "n"}, "status": report.to_json()}
    read = msgspec.json.decode(msgspec.json.encode(written), type=EgressNodeObject)

    assert read.to_model().facts.links[0].addresses == ()


def started(uid: str, *containers: str) -> int:
    """Return the incarnation of a pod whose containers have these identifiers."""
    statuses = [{"containerID": f"containerd://{name}"} for name in containers]
    pod = {
        "metadata": {"name": "a", "uid": uid},
        "status": {"containerStatuses": statuses},
    }
    decoded = msgspec.json.decode(msgspec.json.encode(pod), type=PodObject)
    return decoded.to_model().incarnation


def test_incarnation_changes_with_the_pod_and_with_its_containers() -> None:
    assert started("u", "c1") == started("u", "c1")
    assert 4 == len(
        {started("u"), started("u", "c1"), started("u", "c2"), started("v")}
    )
