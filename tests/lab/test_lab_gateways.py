"""CiliumEgressGatewayPolicy in the lab: who does the server outside see, and when."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from lab.egress import CONTROL_PLANE, GATEWAY, WORKER, agent_process
from lab.harness import PROJECT, SIDE4, SIDE6, Lab, Side, started_lab, wait_until
from lab.policies import (
    HOSTNAME,
    answers,
    asking,
    condition,
    gateway_policy,
    in_force,
    leave_as_nodes,
    running,
    seen,
    status_of,
    through,
)

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab-gateways")]

POD = "net-tshoot-worker"
SIDES = pytest.mark.parametrize("side", [SIDE4, SIDE6], ids=["ipv4", "ipv6"])
SPARE = {4: "172.18.0.50", 6: "fc00:f853:ccd:e793::50"}
PREFIX = {4: 16, 6: 64}


@pytest.fixture(scope="module")
def dual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A dual stack without a policy."""
    config = tmp_path_factory.mktemp("gateways") / "kubeconfig"
    with started_lab(config, "--ip-family", "dual") as lab:
        yield lab


def on_node(lab: Lab, node: str, command: str) -> None:
    """Run *command* in the node's network, as its administrator would."""
    lab.kubectl(f"-n cilium exec {lab.agent_on(node)} -- {command}")


@contextmanager
def spare_address(lab: Lab, side: Side) -> Iterator[str]:
    """One more address on the gateway's NIC, as long as the story wants it."""
    address = SPARE[side.version]
    place = f"{address}/{PREFIX[side.version]} dev eth0"
    on_node(lab, GATEWAY, f"ip -{side.version} addr add {place}")
    try:
        yield address
    finally:
        on_node(lab, GATEWAY, f"ip -{side.version} addr del {place}")


def columns(lab: Lab, name: str) -> list[str]:
    return lab.kubectl(f"get cegp {name} --no-headers").split()


def seen_by_all(lab: Lab, side: Side) -> list[str]:
    return [seen(lab, name, side) for name in side.pods]


def all_leave_as_gateway(lab: Lab) -> bool:
    return all(
        seen_by_all(lab, side) == [side.egress_ip] * 3 for side in (SIDE4, SIDE6)
    )


def test_example_file_makes_pods_leave_as_the_selected_node(dual: Lab) -> None:
    text = dual.kubectl(
        "create --dry-run=client -o json -f",
        str(PROJECT / "deploy/lab/egress-gateway.yaml"),
    )
    with in_force(dual, text):
        wait_until(lambda: all_leave_as_gateway(dual))


@SIDES
def test_excluded_network_leaves_as_the_pods_node(dual: Lab, side: Side) -> None:
    """The other family of the same policy is covered all the while."""
    other = SIDE6 if side is SIDE4 else SIDE4
    bits = 32 if side.version == 4 else 128
    excluded = [f"{side.server_address}/{bits}"]
    text = gateway_policy("excluding", through(GATEWAY), excluded=excluded)
    with in_force(dual, text):
        wait_until(lambda: seen_by_all(dual, other) == [other.egress_ip] * 3)

        assert seen_by_all(dual, side) == side.nodes


@SIDES
def test_egress_ip_that_comes_and_goes_is_followed_at_once(
    dual: Lab, side: Side
) -> None:
    """Without it what is covered is dropped; no other source is ever seen."""
    address = SPARE[side.version]
    text = gateway_policy("spare", through(GATEWAY, egressIP=address))
    with in_force(dual, text):
        wait_until(lambda: not seen(dual, POD, side))
        wait_until(lambda: condition(dual, "spare", "EgressIPReady")[0] == "False")
        with asking(dual, "asker", side, nodeName=WORKER):
            with spare_address(dual, side):
                wait_until(lambda: address in answers(dual, "asker"))
                wait_until(
                    lambda: condition(dual, "spare", "EgressIPReady")[0] == "True"
                )
            wait_until(lambda: answers(dual, "asker")[-2:] == ["failed"] * 2)
            wait_until(lambda: condition(dual, "spare", "EgressIPReady")[0] == "False")
            status, message = condition(dual, "spare", "EgressIPReady")
            with spare_address(dual, side):
                wait_until(lambda: answers(dual, "asker")[-2:] == [address] * 2)

            assert (status, address in message) == ("False", True)
            assert {address, "failed"} == set(answers(dual, "asker"))


def test_interface_may_be_named_by_an_altname(dual: Lab) -> None:
    """Which may come later than the policy that names it."""
    with in_force(
        dual, gateway_policy("named", through(GATEWAY, interface="uplink-0"))
    ):
        wait_until(lambda: not seen(dual, POD))
        on_node(dual, GATEWAY, "ip link property add dev eth0 altname uplink-0")
        try:
            wait_until(lambda: all_leave_as_gateway(dual))
        finally:
            on_node(dual, GATEWAY, "ip link property del dev eth0 altname uplink-0")


@contextmanager
def default_route(lab: Lab, *steps: str) -> Iterator[None]:
    """Take *steps* on the gateway; afterwards its default route is as it was."""
    agent = lab.agent_on(GATEWAY)
    former = lab.kubectl(f"-n cilium exec {agent} -- ip route show default").strip()
    try:
        for step in steps:
            on_node(lab, GATEWAY, step)
        yield
    finally:
        on_node(lab, GATEWAY, f"ip route replace {former}")


@contextmanager
def second_uplink(lab: Lab, address: str) -> Iterator[str]:
    """One more interface of the gateway, which has *address*."""
    on_node(lab, GATEWAY, "ip link add wan type veth peer name wan-peer")
    try:
        for step in (
            f"addr add {address}/32 dev wan",
            "link set wan up",
            "link set wan-peer up",
        ):
            on_node(lab, GATEWAY, f"ip {step}")
        yield "wan"
    finally:
        on_node(lab, GATEWAY, "ip link del wan")


def test_default_route_that_moves_is_followed_at_once(dual: Lab) -> None:
    """Pods leave as the interface that has it; without one they are dropped."""
    own, other = SIDE4.egress_ip, SPARE[4]

    def has_answers(expected: str) -> bool:
        return answers(dual, "router")[-2:] == [expected] * 2

    with (
        in_force(dual, gateway_policy("by-route", through(GATEWAY))),
        asking(dual, "router", SIDE4, nodeName=WORKER),
        second_uplink(dual, other) as wan,
    ):
        wait_until(lambda: has_answers(own))
        first = len(answers(dual, "router")) - 2
        with default_route(dual, f"ip route replace default dev {wan}"):
            wait_until(lambda: has_answers(other))
        wait_until(lambda: has_answers(own))
        with default_route(dual, "ip route del default"):
            wait_until(lambda: has_answers("failed"))
            wait_until(
                lambda: (
                    "default route" in condition(dual, "by-route", "EgressIPReady")[1]
                )
            )
        wait_until(lambda: has_answers(own))

        assert {own, other, "failed"} == set(answers(dual, "router")[first:])


def set_ready(lab: Lab, node: str, status: str) -> None:
    """Let the API say that a node is Ready, or that it is not."""
    ready = {"type": "Ready", "status": status, "reason": "Story", "message": "by hand"}
    change = json.dumps({"status": {"conditions": [ready]}})
    lab.kubectl(f"patch node {node} --subresource=status --type=strategic -p", change)


def test_gateways_share_pods_and_a_lost_one_moves_only_its_share(dual: Lab) -> None:
    gateways = through(GATEWAY), through(CONTROL_PLANE)
    addresses = {"172.18.0.5", "172.18.0.3"}
    with ExitStack() as stack:
        names = [
            stack.enter_context(running(dual, f"many-{i}", "sleep 1000"))
            for i in range(8)
        ]
        stack.enter_context(in_force(dual, gateway_policy("sharing", *gateways)))

        def shares() -> dict[str, str]:
            return {name: seen(dual, name) for name in names}

        wait_until(lambda: set(shares().values()) == addresses)
        before = shares()
        nodes = dict(zip(SIDE6.nodes, SIDE4.nodes, strict=True))
        over_ipv6 = {name: nodes[seen(dual, name, SIDE6)] for name in names}
        dual.kubectl(f"cordon {GATEWAY}")
        cordoned = shares()
        dual.kubectl(f"uncordon {GATEWAY}")
        try:
            set_ready(dual, GATEWAY, "False")
            wait_until(lambda: set(shares().values()) == {"172.18.0.3"})
        finally:
            set_ready(dual, GATEWAY, "True")
        wait_until(lambda: shares() == before)

        assert over_ipv6 == before
        assert cordoned == before


def test_pods_that_a_lost_gateway_did_not_carry_stay_where_they_are(dual: Lab) -> None:
    """Each asks all the while; nobody is seen under a third address."""
    gateways = through(GATEWAY), through(CONTROL_PLANE)
    with ExitStack() as stack:
        stack.enter_context(in_force(dual, gateway_policy("sharing", *gateways)))
        wait_until(lambda: seen(dual, POD) in ("172.18.0.5", "172.18.0.3"))
        names = [
            stack.enter_context(asking(dual, f"asker-{i}", nodeName=WORKER))
            for i in range(6)
        ]
        wait_until(lambda: all(len(answers(dual, name)) > 3 for name in names))
        at = {name: answers(dual, name)[-1] for name in names}
        try:
            set_ready(dual, CONTROL_PLANE, "False")
            wait_until(lambda: all(answers(dual, n)[-1] == "172.18.0.5" for n in names))
        finally:
            set_ready(dual, CONTROL_PLANE, "True")
        stayed = [name for name in names if at[name] == "172.18.0.5"]
        told = {name: set(answers(dual, name)) for name in names}

        assert all(told[name] == {"172.18.0.5"} for name in stayed)
        assert all(told[n] <= {"172.18.0.5", "172.18.0.3", "failed"} for n in names)


EITHER = {
    "nodeSelector": {
        "matchExpressions": [
            {"key": HOSTNAME, "operator": "In", "values": [WORKER, GATEWAY]}
        ]
    }
}


def test_gateway_whose_agent_is_silent_is_passed_over_until_it_speaks(
    dual: Lab,
) -> None:
    """Its node is Ready all the while: the controller misses the agent's renewals."""
    with in_force(dual, gateway_policy("either", EITHER)):
        elsewhere = "net-tshoot-control-plane"
        wait_until(lambda: seen(dual, elsewhere) == "172.18.0.4")
        wait_until(lambda: columns(dual, "either")[3:4] == [WORKER])
        agent = agent_process(dual, WORKER)
        os.kill(agent, signal.SIGSTOP)
        try:
            wait_until(lambda: seen(dual, elsewhere) == "172.18.0.5", seconds=40.0)
            gateways = status_of(dual, "either")["gateways"]
        finally:
            os.kill(agent, signal.SIGCONT)
        wait_until(lambda: seen(dual, elsewhere) == "172.18.0.4")

        assert {each["node"]: each["usable"] for each in gateways} == {
            WORKER: False,
            GATEWAY: True,
        }


def test_killed_controller_has_a_successor_that_goes_on(dual: Lab) -> None:
    """Traffic does not wait for it; status does, until the old lease is over."""
    dual.kubectl("-n outgate-system delete pod --all --grace-period=0 --timeout=20s")
    with in_force(dual, gateway_policy("later", through(GATEWAY))):
        wait_until(lambda: all_leave_as_gateway(dual))
        wait_until(lambda: columns(dual, "later")[1:2] == ["True"], seconds=40.0)


def test_label_of_a_namespace_moves_its_pods_in_and_out(dual: Lab) -> None:
    selector = {"namespaceSelector": {"matchLabels": {"leaves-as": "gateway"}}}
    with in_force(
        dual, gateway_policy("by-label", through(GATEWAY), selector=selector)
    ):
        assert leave_as_nodes(dual, SIDE4)
        dual.kubectl("label namespace default leaves-as=gateway")
        try:
            wait_until(lambda: seen_by_all(dual, SIDE4) == [SIDE4.egress_ip] * 3)
        finally:
            dual.kubectl("label namespace default leaves-as-")
        wait_until(lambda: leave_as_nodes(dual, SIDE4))


COVERED = {"podSelector": {"matchLabels": {"leaves-as": "gateway"}}}
ADDRESS = "lab.outgate.io/ip"


def test_pod_of_the_same_name_elsewhere_keeps_its_gateway(dual: Lab) -> None:
    """As a StatefulSet's pod does: another node, another address, the same name."""
    labels = {"leaves-as": "gateway"}
    with in_force(dual, gateway_policy("named", through(GATEWAY), selector=COVERED)):
        found = []
        for node in (WORKER, CONTROL_PLANE):
            with asking(dual, "web-0", labels=labels, nodeName=node):
                wait_until(lambda: "172.18.0.5" in answers(dual, "web-0"))
                found.append(set(answers(dual, "web-0")) - {"failed"})

    assert found == [{"172.18.0.5"}] * 2


def has_asked(lab: Lab, name: str) -> bool:
    return len(answers(lab, name)) > 10


@pytest.mark.parametrize("is_covered_first", [True, False])
def test_pod_that_takes_over_an_address_does_not_inherit(
    dual: Lab, is_covered_first: bool
) -> None:
    taken = {ADDRESS: "10.0.1.77,fd00:10:0:1::77"}
    with in_force(dual, gateway_policy("first", through(GATEWAY), selector=COVERED)):
        found = []
        for number, is_covered in enumerate((is_covered_first, not is_covered_first)):
            labels = {"leaves-as": "gateway"} if is_covered else {"leaves-as": "node"}
            name = f"holder-{number}"
            with asking(dual, name, labels=labels, annotations=taken, nodeName=WORKER):
                wait_until(partial(has_asked, dual, name))
                found.append(set(answers(dual, name)) - {"failed"})

    seen_as = {True: {"172.18.0.5"}, False: {"172.18.0.4"}}
    assert found == [seen_as[is_covered_first], seen_as[not is_covered_first]]


def test_kubectl_shows_a_policy_that_works_at_a_glance(dual: Lab) -> None:
    with in_force(dual, gateway_policy("shown", through(GATEWAY, interface="eth0"))):
        wait_until(lambda: columns(dual, "shown")[1:2] == ["True"])
        status = status_of(dual, "shown")
        events = dual.kubectl("get events -A -o wide")

        assert columns(dual, "shown")[3] == GATEWAY
        assert set(columns(dual, "shown")[4].split(",")) == {
            SIDE4.egress_ip,
            SIDE6.egress_ip,
        }
        assert status["matchedPods"] == 3
        assert {each["status"] for each in status["conditions"]} == {"True"}
        assert "ciliumegressgatewaypolicy/shown" in events


def test_policy_without_a_gateway_says_what_to_do(dual: Lab) -> None:
    with in_force(dual, gateway_policy("nowhere", through("no-such-node"))):
        wait_until(lambda: not seen(dual, POD))
        wait_until(lambda: columns(dual, "nowhere")[1:2] == ["False"])
        status, message = condition(dual, "nowhere", "GatewaySelected")

        assert status == "False"
        assert "kubectl label node" in message


def test_bad_edit_keeps_the_last_good_version_in_force(dual: Lab) -> None:
    """Host bits are what no schema sees."""
    with in_force(dual, gateway_policy("edited", through(GATEWAY))):
        wait_until(lambda: seen_by_all(dual, SIDE4) == [SIDE4.egress_ip] * 3)
        change = json.dumps({"spec": {"destinationCIDRs": ["172.18.0.1/16"]}})
        dual.kubectl("patch cegp edited --type=merge -p", change)
        wait_until(lambda: condition(dual, "edited", "Accepted")[0] == "False")
        message = condition(dual, "edited", "Accepted")[1]

        assert "spec.destinationCIDRs[0]" in message
        assert "172.18.0.0/16" in message
        assert seen_by_all(dual, SIDE4) == [SIDE4.egress_ip] * 3
        assert columns(dual, "edited")[1] == "False"


def test_explain_tells_what_the_wire_shows(dual: Lab) -> None:
    with in_force(dual, gateway_policy("told", through(GATEWAY, interface="eth0"))):
        wait_until(lambda: all_leave_as_gateway(dual))
        for side in (SIDE4, SIDE6):
            told = json.loads(dual.explain(POD, side.server_address, "-o", "json"))

            assert told["outcome"] == "gateway"
            assert told["gateway"] == GATEWAY
            assert told["policy"] == "CiliumEgressGatewayPolicy told"
            assert told["egressIP"] in (None, side.egress_ip)
        inside = dual.explain(POD, SIDE4.pods["net-tshoot-worker2"][0])
        assert "not-covered" in inside
        assert "10.0.2.0/24" in inside
