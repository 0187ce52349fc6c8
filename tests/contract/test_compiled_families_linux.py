"""
From documents to packets: what users write, compiled, and run by the real programs.

The node is the gateway of ``bpf.world``, in a cluster whose pods have addresses of
both families; *nodes* says of which ones the nodes do.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from bpf.harness import DROP, PASS, Node, needs_root
from bpf.packets import TCP_NAME, outbound
from bpf.world import IPV4, IPV6, World
from outgate.cli.policy import imagine_facts
from outgate.kernel.reasons import Reason
from outgate.kernel.records import FlowDecision, MetricDirection
from outgate.policy.compile import compile_node
from outgate.policy.model import EgressPolicy, policy_id
from outgate.source.files import Document, build_cluster
from outgate.state.entries import (
    AttachmentKey,
    Hook,
    NodeName,
    TunnelDevice,
    TunnelKey,
)

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD
TUNNEL = TunnelDevice("outgate_vx", 4789)
BOTH = (IPV4, IPV6)


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    with Node() as node:
        yield node


@pytest.fixture
def node(shared: Node) -> Node:
    shared.reset()
    return shared


def policy(name: str, egress_ip: str, *networks: str) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2alpha1",
        "kind": "CiliumEgressNATPolicy",
        "metadata": {"name": name, "uid": name},
        "spec": {
            "egress": [{"podSelector": {}}],
            "destinationCIDRs": list(networks),
            "egressSourceIP": egress_ip,
        },
    }


def cluster(nodes: tuple[World, ...]) -> list[dict[str, Any]]:
    """Return two nodes with addresses of the families of *nodes*, and a pod here."""
    places = (
        ("here", [w.HERE for w in nodes], [w.LOCAL_PODS for w in BOTH]),
        ("elsewhere", [w.ELSEWHERE for w in nodes], [w.REMOTE_PODS for w in BOTH]),
    )
    documents: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name},
            "spec": {"podCIDRs": pods},
            "status": {
                "addresses": [{"type": "InternalIP", "address": a} for a in addresses]
            },
        }
        for name, addresses, pods in places
    ]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"nodeName": "here"},
        "status": {"podIPs": [{"ip": w.LOCAL_POD} for w in BOTH]},
    }
    return [*documents, pod]


def install(
    node: Node, *policies: dict[str, Any], nodes: tuple[World, ...] = BOTH
) -> None:
    """Make *node* hold what its agent would."""
    documents = [Document("test", d) for d in (*cluster(nodes), *policies)]
    found = build_cluster(documents)
    assert all(isinstance(policy, EgressPolicy) for policy in found.policies)
    (here,) = (n for n in found.nodes if n.name == "here")
    compiled = compile_node(found, NodeName("here"), imagine_facts(here), TUNNEL)
    elsewhere = (TunnelKey, AttachmentKey)
    rows = compiled.snapshot.items()
    node.put({key: value for key, value in rows if not isinstance(key, elsewhere)})


def verdict(node: Node, world: World, **changes: str) -> int:
    """Return what becomes of a packet of the pod to the world."""
    packet = outbound(TCP_NAME, world.LOCAL_POD, world.SERVER).but(**changes)
    return node.run(Hook.FROM_CONTAINER, packet.build()).verdict


@pytest.mark.parametrize("world", BOTH, ids=lambda world: world.name)
def test_a_pod_leaves_under_the_egress_ip_of_each_family(
    node: Node, world: World
) -> None:
    four = policy("four", IPV4.HERE, IPV4.NETWORK)
    install(node, four, policy("six", IPV6.HERE, IPV6.NETWORK))
    verdict(node, world)

    translated = {str(nat.address) for nat in node.nats().values()}
    assert translated == {world.HERE, world.LOCAL_POD}
    assert {reason for reason, _, _ in node.counts()} == {Reason.FORWARDED}


@pytest.mark.parametrize(
    ("nodes", "endpoint"),
    [(BOTH, IPV4.ELSEWHERE), ((IPV6,), IPV6.ELSEWHERE)],
    ids=["over ipv4", "over ipv6"],
)
def test_ipv6_is_tunnelled_by_the_nodes_family(
    node: Node, nodes: tuple[World, ...], endpoint: str
) -> None:
    install(node, policy("six", IPV6.ELSEWHERE, "::/0"), nodes=nodes)
    verdict(node, IPV6)

    (flow,) = node.flows().values()
    assert flow.decision is FlowDecision.TO_GATEWAY
    assert (flow.tunnel_endpoint, flow.egress_ip) == (
        ip_address(endpoint),
        ip_address(IPV6.ELSEWHERE),
    )


@pytest.mark.parametrize(
    ("egress", "world", "nodes", "reason"),
    [
        (IPV4, IPV6, BOTH, Reason.DROP_NO_EGRESS_IP),
        (IPV6, IPV4, BOTH, Reason.DROP_NO_EGRESS_IP),
        (IPV6, IPV4, (IPV6,), Reason.DROP_NO_GATEWAY),
    ],
    ids=["ipv6 under ipv4", "ipv4 under ipv6", "ipv4 without any ipv4 node"],
)
def test_networks_without_an_egress_ip_of_their_family_drop(
    node: Node, egress: World, world: World, nodes: tuple[World, ...], reason: Reason
) -> None:
    install(node, policy("p", egress.HERE, world.NETWORK), nodes=nodes)

    assert verdict(node, world) == DROP
    assert node.counts() == {(reason, OUT, policy_id("p", "", "", "")): 1}


@pytest.mark.parametrize(("named", "other"), [BOTH, BOTH[::-1]])
def test_the_family_that_no_policy_names_is_left_alone_and_counted(
    node: Node, named: World, other: World
) -> None:
    install(node, policy("p", named.HERE, named.NETWORK))

    assert verdict(node, other) == PASS
    assert node.counts() == {(Reason.OTHER_FAMILY, OUT, 0): 1}


@pytest.mark.parametrize("world", BOTH, ids=lambda world: world.name)
def test_a_pod_that_no_document_tells_of_reaches_no_covered_network(
    node: Node, world: World
) -> None:
    install(node, policy("p", world.HERE, world.EVERYTHING))

    assert verdict(node, world, source=world.UNKNOWN_POD) == DROP
    assert {reason for reason, _, _ in node.counts()} == {Reason.DROP_UNKNOWN_POD}


@pytest.mark.parametrize("destination", ["fe80::1", "ff05::2", IPV6.REMOTE_POD])
def test_a_policy_for_everything_leaves_the_cluster_and_the_link_alone(
    node: Node, destination: str
) -> None:
    install(node, policy("p", IPV6.HERE, "::/0"))

    assert verdict(node, IPV6, destination=destination) == PASS
    assert node.counts() == {}
