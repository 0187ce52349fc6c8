"""Real packets through the gateway: who is seen, what is on the wire, what survives."""

import os
import re
import signal
from collections.abc import Iterator

import pytest

from lab.egress import (
    ASK_CLOSED_PORT,
    ASK_UDP,
    DIGEST_OF_DOWNLOAD,
    EGRESS_IP,
    GATEWAY,
    HOLD_CONNECTIONS,
    PODS,
    WORKER,
    agent_process,
    all_seen,
    apply_policy,
    container_folder,
    delete_policy,
    download_is_whole,
    finish,
    start_in,
)
from lab.harness import Lab, wait_until
from lab.test_lab_pods import pod

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab")]

GIB = 1 << 30


@pytest.fixture(scope="module")
def covered(lab: Lab) -> Iterator[Lab]:
    """The lab, with the policy in force on every node."""
    apply_policy(lab)
    try:
        yield lab
    finally:
        delete_policy(lab)


def test_download_of_a_gib_through_the_gateway_is_whole(covered: Lab) -> None:
    assert download_is_whole(covered, "net-tshoot-worker", GIB)


def test_download_is_whole_without_checksum_offload(covered: Lab) -> None:
    """Partial checksums must be right when the gateway's NIC does not complete them."""
    agent = covered.agent_on(GATEWAY)
    ethtool = f"-n cilium exec {agent} -- ethtool -K eth0 tx"
    covered.kubectl(f"{ethtool} off")
    try:
        whole = [download_is_whole(covered, name, GIB // 16) for name in PODS]
    finally:
        covered.kubectl(f"{ethtool} on")

    assert whole == [True] * 3


def test_two_hundred_connections_share_source_ports_with_another_pod(
    covered: Lab,
) -> None:
    """200 connections from each of two pods, from the same ports, all held at once."""
    script = ("python3", "-c", HOLD_CONNECTIONS, "20000", "20200")
    pods = [start_in(covered, name, *script) for name in PODS[:2]]
    for process in pods:
        assert process.stderr
        assert process.stderr.readline() == "all connected\n"
    seen = [line for process in pods for line in finish(process, "\n")]
    addresses = {line.rpartition(":")[0] for line in seen}

    assert (400, 400, {EGRESS_IP}) == (len(seen), len(set(seen)), addresses)


def test_udp_leaves_as_the_egress_ip_from_its_own_port(covered: Lab) -> None:
    script = ("python3", "-c", ASK_UDP, "20500", "echo")
    seen = [finish(start_in(covered, name, *script))[0] for name in PODS[:1]]

    assert [f"{EGRESS_IP}:20500"] == seen


def test_udp_of_three_pods_from_one_port_gets_three_ports(covered: Lab) -> None:
    script = ("python3", "-c", ASK_UDP, "20501", "echo")
    seen = [finish(start_in(covered, name, *script))[0] for name in PODS]

    assert {EGRESS_IP} == {line.rpartition(":")[0] for line in seen}
    assert 3 == len(set(seen))


@pytest.mark.parametrize("name", PODS)
def test_ping_is_answered_through_the_gateway(covered: Lab, name: str) -> None:
    printed = covered.kubectl(f"exec {name} -- ping -c 3 -i 0.2 -W 2 echo")

    assert "3 received" in printed


@pytest.mark.parametrize("name", PODS)
def test_a_closed_port_refuses_a_pod_through_the_gateway(
    covered: Lab, name: str
) -> None:
    script = ("python3", "-c", ASK_CLOSED_PORT)

    assert ["ConnectionRefusedError"] == finish(start_in(covered, name, *script))


def test_wire_shows_the_tunnel_between_nodes_then_the_egress_ip(covered: Lab) -> None:
    """One connection from the worker's pod, seen on the gateway's NIC."""
    agent = covered.agent_on(GATEWAY)
    watch = [
        "timeout",
        "8",
        "tcpdump",
        "-i",
        "eth0",
        "-nn",
        "-l",
        "--immediate-mode",
        "-c",
        "20",
    ]
    filters = ("tcp port 80 or udp port 4789",)
    tcpdump = start_in(covered, f"-n cilium {agent}", *watch, *filters)
    assert tcpdump.stderr
    while "listening on" not in tcpdump.stderr.readline():
        pass
    assert EGRESS_IP == covered.seen_by_echo("net-tshoot-worker")
    wire, _ = tcpdump.communicate(timeout=30)

    node, pod_ip, server = r"172\.18\.0\.4", r"10\.0\.1\.42", r"172\.18\.0\.100"
    for claim in (
        rf"{node}\.\d+ > 172\.18\.0\.5\.4789: VXLAN.*\n.*{pod_ip}\.\d+ > {server}\.80:",
        rf"IP 172\.18\.0\.5\.\d+ > {server}\.80: Flags \[S\]",
        rf"IP {server}\.80 > 172\.18\.0\.5\.\d+: Flags \[S\.\]",
        rf"172\.18\.0\.5\.\d+ > {node}\.4789: VXLAN.*\n.*{server}\.80 > {pod_ip}\.\d+:",
    ):
        assert re.search(claim, wire), f"{claim} is not in:\n{wire}"
    assert not re.search(rf"^\S+ IP {pod_ip}", wire, re.MULTILINE)


def test_pods_still_reach_each_other_as_themselves(covered: Lab) -> None:
    """Cluster destinations never enter the gateway, whatever networks are covered."""
    listen = (
        "import socket; server = socket.create_server(('', 8000))",
        "print('up', flush=True); print(server.accept()[1][0])",
    )
    server = start_in(covered, PODS[2], "python3", "-c", "; ".join(listen))
    assert server.stdout
    assert server.stdout.readline() == "up\n"
    script = "import socket; socket.create_connection(('10.0.2.86', 8000), 5)"
    covered.kubectl("exec net-tshoot-worker -- python3 -c", script)

    assert ["10.0.1.42"] == finish(server)


def test_new_pods_never_leave_under_their_nodes_address(covered: Lab) -> None:
    """Each asks at once, when its node's agent may not know it yet."""
    ask = "for i in 1 2 3; do wget -T 1 -t 1 -qO- echo; done; sleep 1000"
    names = [f"newborn-{i}" for i in range(8)]
    for name in names:
        covered.kubectl("apply -f -", text=pod(name, ask))
    try:
        seen = dict.fromkeys(names, "")
        for name in names:
            covered.kubectl(f"wait pod/{name} --for=condition=Ready --timeout=30s")

        def all_asked() -> bool:
            seen.update({name: covered.kubectl(f"logs {name}") for name in names})
            return all(EGRESS_IP in text for text in seen.values())

        wait_until(all_asked)
    finally:
        covered.kubectl("delete pod --timeout=30s", *names)

    assert {EGRESS_IP} == {line for text in seen.values() for line in text.split()}


def test_pod_born_without_an_agent_waits_instead_of_leaving_as_its_node(
    covered: Lab,
) -> None:
    """The agent is stopped, not killed: the lab would have a new one in no time."""
    ask = "while true; do wget -T 1 -t 1 -qO- echo || echo nothing; sleep 0.2; done"
    agent = agent_process(covered, WORKER)
    os.kill(agent, signal.SIGSTOP)
    try:
        covered.kubectl("apply -f -", text=pod("orphan", ask, nodeName=WORKER))
        covered.kubectl("wait pod/orphan --for=condition=Ready --timeout=20s")
        wait_until(lambda: covered.kubectl("logs orphan").count("nothing") > 2)
    finally:
        os.kill(agent, signal.SIGCONT)
    wait_until(lambda: EGRESS_IP in covered.kubectl("logs orphan"))
    seen = covered.kubectl("logs orphan").split()
    drops = covered.kubectl(
        f"-n cilium exec {covered.agent_on(WORKER)} -- outgate map get outgate_metrics"
    )
    covered.kubectl("delete pod orphan --timeout=20s")

    assert {EGRESS_IP, "nothing"} == set(seen)
    assert "drop_unseen_pod" in drops.lower()


def test_killed_agents_change_nothing_for_traffic(covered: Lab) -> None:
    """Connections that are open, and those that begin while no agent runs."""
    ask = "while sleep 0.05; do wget -T 2 -t 1 -qO- echo || echo failed; done"
    covered.kubectl("apply -f -", text=pod("asker", ask))
    covered.kubectl("wait pod/asker --for=condition=Ready --timeout=20s")
    shell = DIGEST_OF_DOWNLOAD.format("http://echo", 2 * GIB)
    download = start_in(covered, "net-tshoot-worker", "sh", "-c", shell)
    wait_until(lambda: covered.kubectl("logs asker").count(EGRESS_IP) > 5)
    flows = "outgate map get outgate_flow_v4 -o json"
    for node in (WORKER, GATEWAY, "k8s-guide-control-plane"):
        os.kill(agent_process(covered, node), signal.SIGKILL)
    before = covered.kubectl("logs asker").count("\n")
    wait_until(lambda: covered.kubectl("logs asker").count("\n") > before + 40)
    got = finish(download)
    url = f"http://echo/sha256?bytes={2 * GIB}"
    wanted = covered.kubectl(f"exec net-tshoot-worker -- wget -q -O - {url}").split()
    seen = covered.kubectl("logs asker").split()
    agent = covered.agent_on(WORKER)
    adopted = covered.kubectl(f"-n cilium exec {agent} -- {flows}")
    covered.kubectl("delete pod asker --timeout=20s")

    assert wanted == got
    assert {EGRESS_IP} == set(seen)
    assert "10.0.1.42" in adopted


def test_stopped_api_changes_nothing_for_traffic(covered: Lab) -> None:
    ask = "while sleep 0.05; do wget -T 2 -t 1 -qO- echo || echo failed; done"
    covered.kubectl("apply -f -", text=pod("asker", ask))
    covered.kubectl("wait pod/asker --for=condition=Ready --timeout=20s")
    wait_until(lambda: covered.kubectl("logs asker").count(EGRESS_IP) > 5)
    control_plane = covered.service("control-plane")
    log = container_folder(covered, "asker", "main") / "log"
    os.kill(control_plane, signal.SIGSTOP)
    try:
        size = log.stat().st_size
        wait_until(lambda: log.stat().st_size > size + 1000)
    finally:
        os.kill(control_plane, signal.SIGCONT)
    wait_until(lambda: covered.try_kubectl("get nodes").returncode == 0)
    seen = covered.kubectl("logs asker").split()
    covered.kubectl("delete pod asker --timeout=20s")

    assert {EGRESS_IP} == set(seen)
    assert [EGRESS_IP] * 3 == all_seen(covered)


def test_bad_policy_is_refused_and_changes_nothing(covered: Lab) -> None:
    bad = """
apiVersion: cilium.io/v2alpha1
kind: CiliumEgressNATPolicy
metadata:
  name: bad
spec:
  destinationCIDRs: ["172.18.0.0/61"]
  egress:
  - podSelector: {}
  egressSourceIP: 172.18.0.4
"""
    refused = covered.try_kubectl("apply -f -", text=bad)

    assert refused.returncode != 0
    assert "spec.destinationCIDRs[0]" in refused.stderr
    assert [EGRESS_IP] * 3 == all_seen(covered)
