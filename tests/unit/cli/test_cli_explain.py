"""``outgate explain``: the text for people, the JSON, refusals, and both sources."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from outgate.cli.explain import app
from outgate.errors import ConfigError
from outgate.kubeapi.server import ApiServer
from outgate.lab.kubeconfig import new_config, write_config
from outgate.lab.settings import ApiAddress
from outgate.source.client import Client
from outgate.source.connection import Connection

THREE_NODES = Path(__file__).parents[2] / "scenarios" / "objects" / "three-nodes.yaml"
CRDS = Path(__file__).parents[3] / "deploy" / "crds"
ECHO = "172.18.0.100"
CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

POLICIES = """
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata: {name: wide, creationTimestamp: 2026-01-01T00:00:00Z}
spec:
  selectors: [{podSelector: {matchLabels: {name: net-tshoot}}}]
  destinationCIDRs: [172.0.0.0/8]
  egressGateway: {nodeSelector: {}}
---
apiVersion: cilium.io/v2alpha1
kind: CiliumEgressNATPolicy
metadata: {name: narrow, creationTimestamp: 2026-02-01T00:00:00Z}
spec:
  destinationCIDRs: [172.18.0.0/16]
  egress: [{podSelector: {matchLabels: {io.kubernetes.pod.namespace: default}}}]
  egressSourceIP: 172.18.0.5
---
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata: {name: others, creationTimestamp: 2026-02-01T00:00:00Z}
spec:
  selectors: [{podSelector: {matchLabels: {app: web}}}]
  destinationCIDRs: [172.18.0.0/16]
  egressGateway: {nodeSelector: {}}
"""

COVERED = """\
Pod default/net-tshoot-2 (10.0.1.42, on k8s-guide-worker) -> 172.18.0.100: gateway
CiliumEgressNATPolicy narrow covers it: it leaves through node k8s-guide-worker2 as \
172.18.0.5

row        10.0.1.42 -> 172.18.0.0/16
egress IP  172.18.0.5 of k8s-guide-worker2
gateways   * spec.egressSourceIP: k8s-guide-worker2: ready
networks   * CiliumEgressNATPolicy narrow: spec.destinationCIDRs[0] 172.18.0.0/16
           - CiliumEgressGatewayPolicy wide: spec.destinationCIDRs[0] 172.0.0.0/8: \
/16 is longer than /8
not this   - CiliumEgressGatewayPolicy others: spec.selectors[0].podSelector asks for \
app=web; the pod has no label app
"""


def ask(*arguments: str, policies: str = POLICIES) -> Result:
    """Run the command on the three nodes with *policies* on standard input."""
    options = ("-f", str(THREE_NODES), "-f", "-")
    return CliRunner().invoke(app, [*arguments, *options], input=policies)


def told(*arguments: str, policies: str = POLICIES) -> Any:
    return json.loads(ask(*arguments, "-o", "json", policies=policies).stdout)


@pytest.mark.parametrize("pod", ["net-tshoot-2", "default/net-tshoot-2", "10.0.1.42"])
def test_covered_connection_is_told_with_winner_beaten_and_near_misses(
    pod: str,
) -> None:
    result = ask(pod, ECHO)

    assert (result.exit_code, result.stdout) == (0, COVERED)


def test_json_holds_what_the_text_tells() -> None:
    answer = told("net-tshoot-2", ECHO)

    assert answer["outcome"] == "gateway"
    assert answer["policy"] == "CiliumEgressNATPolicy narrow"
    assert (answer["gateway"], answer["egressIP"]) == (
        "k8s-guide-worker2",
        "172.18.0.5",
    )
    assert answer["row"] == {
        "source": "10.0.1.42",
        "destination": "172.18.0.0/16",
        "tunnelEndpoint": "172.18.0.5",
    }
    assert [each["wins"] for each in answer["networks"]] == [True, False]
    assert [each["policy"] for each in answer["misses"]] == [
        "CiliumEgressGatewayPolicy others"
    ]


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ("172.18.0.3", "an address of node k8s-guide-control-plane"),
        ("10.0.2.86", "in 10.0.2.0/24, pods of node k8s-guide-worker2"),
        ("169.254.1.1", "never routed"),
        ("203.0.113.1", "no network of it holds 203.0.113.1"),
        ("2001:db8::1", "the pod has no IPv6 address"),
    ],
)
def test_uncovered_connection_says_why(destination: str, reason: str) -> None:
    answer = told("net-tshoot-2", destination)

    assert answer["outcome"] == "not-covered"
    assert reason in answer["reason"]


def test_networks_that_only_the_agents_settings_name_can_be_given() -> None:
    answer = told("net-tshoot-2", ECHO, "--cluster-network", "172.18.0.0/24")

    assert answer["outcome"] == "not-covered"
    assert "in 172.18.0.0/24, a network of services" in answer["reason"]


def test_pod_that_nobody_selects_is_told_what_they_ask_for() -> None:
    others = POLICIES.split("---")[2]
    answer = told("net-tshoot-2", ECHO, policies=others)

    assert (answer["outcome"], answer["reason"]) == (
        "not-covered",
        "no policy selects the pod",
    )
    assert (
        answer["misses"][0]["message"] == "asks for app=web; the pod has no label app"
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"hostNetwork": True}, "uses its node's network"),
        ({"nodeName": None}, "is on no node yet"),
    ],
)
def test_pods_that_are_never_covered_say_why(
    fields: dict[str, object], reason: str
) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "special", "namespace": "default"},
        "spec": {"nodeName": "k8s-guide-worker", **fields},
        "status": {"podIPs": [{"ip": "10.0.1.9"}]},
    }
    answer = told("special", ECHO, policies=f"{POLICIES}---\n{yaml.safe_dump(pod)}")

    assert reason in answer["reason"]


EXCLUDED = """
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata: {name: but}
spec:
  selectors: [{podSelector: {}}]
  destinationCIDRs: [172.18.0.0/16]
  excludedCIDRs: [172.18.0.100/32]
  egressGateway: {nodeSelector: {}}
"""


def test_excluded_destination_is_told_so() -> None:
    answer = told("net-tshoot-2", ECHO, policies=EXCLUDED)

    assert answer["outcome"] == "excluded"
    assert "excludes 172.18.0.100/32" in answer["reason"]


SPARE = """
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata: {name: spare}
spec:
  selectors: [{podSelector: {}}]
  destinationCIDRs: [172.18.0.0/16]
  egressGateway:
    nodeSelector: {matchExpressions: [{key: gateway, operator: Exists}]}
    egressIP: 172.18.0.50
"""
GATEWAY_NODE = """
---
apiVersion: v1
kind: Node
metadata: {name: k8s-guide-worker2, labels: {gateway: ""}}
spec: {podCIDRs: [10.0.2.0/24]}
status: {addresses: [{type: InternalIP, address: 172.18.0.5}]}
"""
FACTS = """
interfaces:
- {name: eth0, addresses: [172.18.0.5/16]}
defaultRoute: {ipv4: eth0}
"""


def test_no_node_for_a_gateway_is_told() -> None:
    answer = told("net-tshoot-2", ECHO, policies=SPARE)

    assert answer["outcome"] == "no-gateway"
    assert "gateway" in answer["candidates"][0]["why"]


def test_gateway_is_asked_whether_it_has_the_egress_ip(tmp_path: Path) -> None:
    facts = tmp_path / "facts.yaml"
    facts.write_text(FACTS)
    observed = ("--facts", str(facts), "--node", "k8s-guide-worker2")
    answer = told("net-tshoot-2", ECHO, *observed, policies=SPARE + GATEWAY_NODE)

    assert answer["outcome"] == "no-egress-ip"
    assert "none of its interfaces carries" in answer["reason"]


def test_gateway_of_its_own_pod_lacks_nothing_that_nobody_looked_for() -> None:
    """The Node object does not tell its second addresses."""
    policies = SPARE + GATEWAY_NODE
    here, there = (told(f"net-tshoot-{n}", ECHO, policies=policies) for n in (3, 2))

    assert (here["pod"]["node"], there["pod"]["node"]) == (
        "k8s-guide-worker2",
        "k8s-guide-worker",
    )
    assert [answer["egressIP"] for answer in (here, there)] == ["172.18.0.50"] * 2


def test_ipv4_address_written_as_ipv6_is_the_ipv4_address_that_packets_have() -> None:
    assert told("net-tshoot-2", f"::ffff:{ECHO}") == told("net-tshoot-2", ECHO)


SIX = """
---
apiVersion: v1
kind: Node
metadata: {name: k8s-guide-worker2, labels: {gateway: ""}}
status: {addresses: [{type: InternalIP, address: "2001:db8::5"}]}
"""


def test_gateway_that_ipv4_cannot_be_tunnelled_to_is_told() -> None:
    answer = told("net-tshoot-2", ECHO, policies=SPARE + SIX)

    assert (answer["outcome"], answer["gateway"]) == ("no-gateway", "k8s-guide-worker2")
    assert "k8s-guide-worker2 has no IPv4 address to tunnel" in answer["reason"]


def test_egress_source_ip_of_the_other_family_is_told() -> None:
    both = SIX.replace("[{", "[{type: InternalIP, address: 172.18.0.5}, {")
    policies = POLICIES.replace("172.18.0.5", '"2001:db8::5"') + both
    answer = told("net-tshoot-2", ECHO, policies=policies)

    assert answer["outcome"] == "no-egress-ip"
    assert "2001:db8::5 is no IPv4 address" in answer["reason"]


def test_bad_policies_are_told_to_be_left_out() -> None:
    bad = EXCLUDED.replace("172.18.0.0/16", "172.18.0.1/16")
    result = ask("net-tshoot-2", ECHO, policies=f"{POLICIES}---{bad}")

    assert "narrow covers it" in result.stdout
    assert "not judged - CiliumEgressGatewayPolicy but: spec.destin" in result.stdout


def test_bad_policy_that_may_cover_the_pod_leaves_the_answer_open() -> None:
    """Agents keep its last good version in force, which nobody here has."""
    bad = EXCLUDED.replace("172.18.0.0/16", "172.18.0.1/16")
    answer = told("net-tshoot-2", ECHO, policies=bad)

    assert answer["outcome"] == "unknown"
    assert answer["reason"].startswith("CiliumEgressGatewayPolicy but: bad now")


def test_names_of_destinations_are_refused_with_the_mend() -> None:
    error = ask("net-tshoot-2", "example.com").exception

    assert isinstance(error, ConfigError)
    assert str(error).startswith("DESTINATION: 'example.com' is no address")


def test_unknown_pod_is_told_with_near_names() -> None:
    error = ask("net-tshot-2", ECHO).exception

    assert isinstance(error, ConfigError)
    assert "did you mean: net-tshoot-2" in str(error)


@pytest.fixture
async def kubeconfig(tmp_path: Path) -> AsyncIterator[Path]:
    """An API with the objects, and the file by which the command finds it."""
    sock = socket.create_server(("127.0.0.1", 0))
    server = ApiServer()
    await server.start([sock])
    port = sock.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    async with Client(Connection(url)) as client:
        await fill(client)
    config = new_config(ApiAddress(port, "", ""), url, "test")
    path = tmp_path / "kubeconfig"
    write_config(path, config)
    yield path
    await server.stop()


PATHS = {
    "CustomResourceDefinition": CRD_PATH,
    "Node": "/api/v1/nodes",
    "Pod": "/api/v1/namespaces/default/pods",
    "CiliumEgressGatewayPolicy": "/apis/cilium.io/v2/ciliumegressgatewaypolicies",
    "CiliumEgressNATPolicy": "/apis/cilium.io/v2alpha1/ciliumegressnatpolicies",
}


async def fill(client: Client) -> None:
    """Put everything into the API, definitions first, pods with their status."""
    texts = [path.read_text() for path in sorted(CRDS.glob("*.yaml"))]
    for document in [
        *(found for text in texts for found in yaml.safe_load_all(text)),
        *yaml.safe_load(THREE_NODES.read_text())["items"],
        *yaml.load_all(POLICIES, yaml.BaseLoader),
    ]:
        path = PATHS.get(document["kind"])
        if path is None:
            continue
        await client.request("POST", path, body=document)
        if document["kind"] == "Pod":
            await client.request(
                "PATCH",
                f"{path}/{document['metadata']['name']}/status",
                body={"status": document["status"]},
                content_type="application/merge-patch+json",
            )


async def test_api_is_asked_when_no_files_are_given(kubeconfig: Path) -> None:
    arguments = ["net-tshoot-2", ECHO, "--kubeconfig", str(kubeconfig)]
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)

    assert result.exit_code == 0, result.exception
    assert "narrow covers it" in result.stdout
    assert "net-tshoot-2" in result.stdout


async def test_pod_is_found_by_its_address_in_the_api(kubeconfig: Path) -> None:
    arguments = ["10.0.2.86", ECHO, "--kubeconfig", str(kubeconfig)]
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)

    assert result.stdout.startswith("Pod default/net-tshoot-3 ")


async def test_near_names_are_those_of_the_api(kubeconfig: Path) -> None:
    arguments = ["net-tshoot-9", ECHO, "--kubeconfig", str(kubeconfig)]
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)

    assert "net-tshoot-1" in str(result.exception)
