"""Where pods and agents go, and how a lab is shown."""

import re
from dataclasses import replace
from typing import Any

from outgate.lab.agents import agent_pod, missing_agents, nodes_without_agent
from outgate.lab.controllers import controller_pod, missing_controllers
from outgate.lab.nodes import node_object, node_status
from outgate.lab.overview import NodeLine, Overview, PodLine, describe
from outgate.lab.scheduler import choose_node, is_unbound
from outgate.lab.settings import GatewayPath, IpFamily, LabSettings, StateFolder
from outgate.lab.strays import find_strays
from outgate.lab.topology import DEFAULT, Node, topology_of

FOLDER = StateFolder.of("outgate")
NODES: list[dict[str, Any]] = [
    {**node_object(node), "status": node_status(node, 0.0, {})}
    for node in DEFAULT.nodes
]


def pod(node: str = "", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "a", "namespace": "default", "uid": "u1"},
        "spec": {"nodeName": node, "containers": [], **spec},
    }


def test_choose_node_takes_the_emptiest() -> None:
    pods = [pod("k8s-guide-control-plane"), pod("k8s-guide-worker2")]

    assert choose_node(pod(), NODES, pods) == "k8s-guide-worker"


def test_choose_node_follows_the_node_selector() -> None:
    wanted = {"kubernetes.io/hostname": "k8s-guide-worker2"}

    assert choose_node(pod(nodeSelector=wanted), NODES, []) == "k8s-guide-worker2"
    assert choose_node(pod(nodeSelector={"disk": "fast"}), NODES, []) is None


def test_choose_node_leaves_cordoned_nodes_out() -> None:
    cordoned = [{**node, "spec": {"unschedulable": True}} for node in NODES]

    assert choose_node(pod(), cordoned, []) is None


def test_choose_node_leaves_nodes_without_a_kubelet_out() -> None:
    made_by_a_user = {"metadata": {"name": "a"}, "spec": {}}

    assert choose_node(pod(), [made_by_a_user], []) is None


def test_pods_of_unknown_nodes_are_strays_and_unbound_ones_are_not() -> None:
    pods = [pod(), pod("k8s-guide-worker"), pod("nowhere")]

    assert [stray.node for stray in find_strays(DEFAULT, pods)] == ["nowhere"]


def test_deleted_pod_is_not_bound_any_more() -> None:
    going = pod()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    assert is_unbound(pod())
    assert not is_unbound(going)


def test_nodes_without_agent_counts_no_agent_that_is_going() -> None:
    pods = [agent_pod(node, LabSettings(), FOLDER, "x") for node in DEFAULT.nodes]
    pods[1]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    assert nodes_without_agent(DEFAULT, pods) == [DEFAULT.nodes[1]]


def test_missing_agents_are_one_for_each_node_without() -> None:
    pods = [agent_pod(DEFAULT.nodes[0], LabSettings(), FOLDER, "x")]
    made = missing_agents(DEFAULT, LabSettings(), FOLDER, pods)

    assert [item["spec"]["nodeName"] for item in made] == [
        "k8s-guide-worker",
        "k8s-guide-worker2",
    ]


def test_controller_is_made_again_when_it_goes() -> None:
    running = controller_pod(DEFAULT, FOLDER, "x")
    going = {**running, "metadata": {**running["metadata"], "deletionTimestamp": "now"}}

    assert missing_controllers(DEFAULT, FOLDER, [running]) == []
    (made,) = missing_controllers(DEFAULT, FOLDER, [going])
    assert made["spec"]["nodeName"] == "k8s-guide-control-plane"
    assert made["metadata"]["name"] != "outgate-controller-x"


def test_agent_pod_carries_the_gateway_path_and_the_pin_folder() -> None:
    settings = LabSettings(gateway_path=GatewayPath.STACK)
    container = agent_pod(DEFAULT.nodes[0], settings, FOLDER, "x")["spec"][
        "containers"
    ][0]

    environment = {item["name"]: item["value"] for item in container["env"]}
    assert environment["OUTGATE_GATEWAY_PATH"] == "stack"
    assert environment["OUTGATE_CONFIG"] == str(FOLDER.agent_settings)
    assert environment["OUTGATE_PIN_DIR"] == "/sys/fs/bpf/tc/globals"
    assert container["command"][:2] == ["outgate", "agent"]


def test_node_status_keeps_the_time_of_its_last_change() -> None:
    first = node_status(DEFAULT.nodes[0], 10.0, {})
    again = node_status(DEFAULT.nodes[0], 99.0, first)

    ready = again["conditions"][0]
    assert ready["lastTransitionTime"] == "1970-01-01T00:00:10Z"
    assert ready["lastHeartbeatTime"] == "1970-01-01T00:01:39Z"


def test_dual_stack_node_names_both_families_the_primary_first() -> None:
    node = topology_of(IpFamily.DUAL).nodes[1]
    spec, status = node_object(node)["spec"], node_status(node, 0.0, {})
    internal = [a for a in status["addresses"] if a["type"] == "InternalIP"]

    assert spec["podCIDR"] == "10.0.1.0/24"
    assert spec["podCIDRs"] == ["10.0.1.0/24", "fd00:10:0:1::/64"]
    assert [a["address"] for a in internal] == ["172.18.0.4", "fc00:f853:ccd:e793::4"]


def node_line(node: Node, *, is_ready: bool = True) -> NodeLine:
    pods = str(node.pod_networks[0])
    return NodeLine(node.name, str(node.address), pods, is_ready)


def agent_line(node: Node, state: str = "Running") -> PodLine:
    return PodLine(
        "cilium",
        f"cilium-{node.name[-7:]}",
        node.name,
        str(node.address),
        state,
        is_ready=state == "Running",
        is_agent=True,
    )


def overview(agent_state: str) -> Overview:
    """A whole lab, but for the state of its last agent."""
    *others, last = DEFAULT.nodes
    return Overview(
        "outgate",
        42,
        "https://127.0.0.1:1",
        LabSettings(),
        tuple(map(node_line, DEFAULT.nodes)),
        (*map(agent_line, others), agent_line(last, agent_state)),
    )


def test_overview_is_whole_only_with_running_agents() -> None:
    assert overview("Running").is_whole
    assert not overview("CrashLoopBackOff").is_whole


def test_overview_is_not_whole_before_every_node_is_registered() -> None:
    whole = overview("Running")
    early = replace(whole, nodes=whole.nodes[:2], all_pods=whole.all_pods[:2])

    assert early.nodes_not_ready == ("k8s-guide-worker2",)
    assert early.nodes_without_agent == ("k8s-guide-worker2",)
    assert not early.is_whole


def test_overview_stays_whole_beside_a_node_that_a_user_made() -> None:
    whole = overview("Running")
    extra = NodeLine("extra", "none", "none", is_ready=False)

    assert replace(whole, nodes=(*whole.nodes, extra)).is_whole


def test_complaint_names_the_agent_and_the_next_command() -> None:
    text = overview("CrashLoopBackOff").complaint(FOLDER.log)

    assert text == (
        "agent cilium-worker2 on k8s-guide-worker2: CrashLoopBackOff; "
        "see kubectl -n cilium logs cilium-worker2"
    )


def test_complaint_names_the_nodes_that_have_no_agent() -> None:
    bare = replace(overview("Running"), all_pods=())

    assert bare.complaint(FOLDER.log).startswith("no agent on k8s-guide-control-plane,")


def test_describe_shows_nodes_and_pods_as_tables() -> None:
    text = describe(overview("Running"), "outgate")

    assert "NODE                      ADDRESS      PODS          STATE" in text
    assert re.search(
        r"cilium-worker2 +cilium +k8s-guide-worker2 +172.18.0.5 +Running", text
    )


def test_describe_of_nothing_says_how_to_start() -> None:
    assert describe(Overview("outgate", None), "").endswith(": outgate lab up")
    assert describe(Overview("two", None), "").endswith("outgate lab up --name two")
