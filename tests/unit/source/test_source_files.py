"""A cluster from documents: what counts, what is passed over, what is refused."""

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from outgate.errors import SourceError
from outgate.policy.model import Cluster
from outgate.source.files import NAME_LABEL, build_cluster, read_documents

NODE = """\
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {zone: a}, creationTimestamp: 2026-01-02T03:04:05Z}
spec: {podCIDR: 10.0.1.0/24}
status:
  addresses:
  - {type: InternalIP, address: 192.0.2.1}
  - {type: ExternalIP, address: 198.51.100.1}
"""

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: shop, labels: {app: a}}
spec: {nodeName: n1}
status: {podIP: 10.0.1.7, phase: Running}
"""

POLICY = """\
apiVersion: cilium.io/v2alpha1
kind: CiliumEgressNATPolicy
metadata: {name: %s, creationTimestamp: null}
spec:
  egress: [{podSelector: {}}]
  destinationCIDRs: [%s]
  egressSourceIP: 192.0.2.1
"""


def _load(tmp_path: Path, *documents: str) -> Cluster:
    path = tmp_path / "objects.yaml"
    path.write_text("---\n".join(documents))
    return build_cluster(read_documents(path))


def test_load_reads_nodes_pods_and_policies(tmp_path: Path) -> None:
    policy = POLICY % ("a", "203.0.113.0/24")
    cluster = _load(tmp_path, NODE, POD, policy, "kind: Service\napiVersion: v1\n")

    (node,) = cluster.nodes
    assert node.pod_networks == (IPv4Network("10.0.1.0/24"),)
    assert node.addresses == (IPv4Address("192.0.2.1"), IPv4Address("198.51.100.1"))
    assert [pod.reference for pod in cluster.endpoints] == ["Pod shop/p"]
    assert [policy.name for policy in cluster.policies] == ["a"]


def test_load_reads_all_addresses_that_others_reach(tmp_path: Path) -> None:
    pod = POD.replace(
        "podIP: 10.0.1.7",
        "podIPs: [{ip: 10.0.1.7}, {ip: 'FD00:10::7'}, {ip: 'fe80::7'},"
        " {ip: '::ffff:10.0.1.8'}, {ip: 'fd00::9%eth0'}, {ip: '::1'}]",
    )
    node = NODE.replace(
        "{podCIDR: 10.0.1.0/24}", "{podCIDRs: [10.0.1.0/24, 'fd00:10::/64', x]}"
    )
    cluster = _load(tmp_path, node, pod)

    assert [str(network) for network in cluster.nodes[0].pod_networks] == [
        "10.0.1.0/24",
        "fd00:10::/64",
    ]
    assert [str(address) for address in cluster.endpoints[0].addresses] == [
        "10.0.1.7",
        "fd00:10::7",
    ]


def test_load_makes_the_namespaces_that_are_left_out(tmp_path: Path) -> None:
    (namespace,) = _load(tmp_path, POD).namespaces

    assert (namespace.name, namespace.labels) == ("shop", {NAME_LABEL: "shop"})


def test_load_reads_lists_and_folders(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "pods.json").write_text(
        '{"apiVersion": "v1", "kind": "PodList", "items":'
        ' [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}]}'
    )
    (tmp_path / "a.yaml").write_text(NODE)
    (tmp_path / "notes.txt").write_text("not for us")
    cluster = build_cluster(read_documents(tmp_path))

    assert [pod.reference for pod in cluster.endpoints] == ["Pod default/x"]
    assert [node.name for node in cluster.nodes] == ["n1"]


def test_load_reads_lists_as_an_api_server_writes_them(tmp_path: Path) -> None:
    """`kubectl get --raw /api/v1/nodes`: items do not say what they are."""
    items = "{apiVersion: v1, kind: NodeList, items: [{metadata: {name: n1}}]}"

    assert [node.name for node in _load(tmp_path, items).nodes] == ["n1"]


def test_load_reads_json_and_yaml_that_starts_like_it(tmp_path: Path) -> None:
    json = '{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}\n'
    yaml = "{apiVersion: v1, kind: Node, metadata: {name: n2}}\n"

    assert [node.name for node in _load(tmp_path, json).nodes] == ["n1"]
    both = _load(tmp_path, json, yaml)
    assert [node.name for node in both.nodes] == ["n1", "n2"]


def test_load_last_document_of_a_name_wins(tmp_path: Path) -> None:
    first, second = POLICY % ("a", "10.0.0.0/8"), POLICY % ("a", "203.0.113.0/24")
    (policy,) = _load(tmp_path, first, second).policies

    assert policy.destinations == (IPv4Network("203.0.113.0/24"),)


GATEWAY_POLICY = """\
apiVersion: cilium.io/%s
kind: CiliumEgressGatewayPolicy
metadata: {name: g, generation: 3}
spec:
  selectors: [{podSelector: {}}]
  destinationCIDRs: [203.0.113.0/24]
  egressGateway: {nodeSelector: {}}
status: {gateways: [{node: n1, usable: false}]}
"""


def test_load_reads_policies_of_both_kinds_with_their_status(tmp_path: Path) -> None:
    policy = POLICY % ("a", "203.0.113.0/24")
    cluster = _load(tmp_path, policy, GATEWAY_POLICY % "v2")

    assert sorted((p.kind, p.name, p.generation) for p in cluster.policies) == [
        ("CiliumEgressGatewayPolicy", "g", 3),
        ("CiliumEgressNATPolicy", "a", 0),
    ]
    assert [h.node for p in cluster.policies for h in p.health] == ["n1"]


def test_load_lists_bad_policies(tmp_path: Path) -> None:
    policy = POLICY % ("a", "203.0.113.1/24")
    cluster = _load(tmp_path, policy, GATEWAY_POLICY % "v2alpha1")

    assert cluster.policies == ()
    assert sorted((bad.kind, bad.problems[0].path) for bad in cluster.bad_policies) == [
        ("CiliumEgressGatewayPolicy", "apiVersion"),
        ("CiliumEgressNATPolicy", "spec.destinationCIDRs[0]"),
    ]


SERVICE_CIDR = """\
apiVersion: networking.k8s.io/%s
kind: ServiceCIDR
metadata: {name: kubernetes}
spec: {cidrs: [10.96.0.0/12, 'fd00:96::/112']}
"""

API_SERVER = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  {name: kubernetes, namespace: %s, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
endpoints: [{addresses: [192.0.2.10]}, {addresses: [192.0.2.11, 192.0.2.10]}]
"""


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_load_takes_service_networks_for_a_part_of_the_cluster(
    tmp_path: Path, version: str
) -> None:
    cluster = _load(tmp_path, SERVICE_CIDR % version)

    assert [str(network) for network in cluster.cluster_networks] == [
        "10.96.0.0/12",
        "fd00:96::/112",
    ]


def test_load_takes_the_api_server_for_a_part_of_the_cluster(tmp_path: Path) -> None:
    cluster = _load(tmp_path, API_SERVER % "default")

    assert [str(network) for network in cluster.cluster_networks] == [
        "192.0.2.10/32",
        "192.0.2.11/32",
    ]


def test_load_takes_no_other_service_for_the_api_server(tmp_path: Path) -> None:
    assert _load(tmp_path, API_SERVER % "shop").cluster_networks == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: [", "no YAML"),
        ("a: b", "objects.yaml, document 1: no Kubernetes object: it has no kind"),
        ("just text", "it has no kind"),
        (NODE.replace("{zone: a}", "{zone: 5}"), r"\$.metadata.labels"),
        (POD.replace("name: p,", ""), "metadata.name is missing"),
        ("a: " + "[" * 5000 + "]" * 5000, r"objects\.yaml: nested too deeply"),
        ("&a {kind: List, items: [*a]}", "document 1: a List that holds itself"),
    ],
)
def test_load_refuses_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        _load(tmp_path, text)


def test_load_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none.yaml: No such file"):
        list(read_documents(tmp_path / "none.yaml"))


def test_a_number_that_is_none_is_answered_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"objects\.yaml: no YAML"):
        _load(tmp_path, "kind: Pod\nmetadata: {name: 0x_}\n")
