"""Real packets through the gateway: who is seen, what is on the wire, what survives."""

import ipaddress
import json
import os
import re
import signal
from collections.abc import Iterator

import pytest

from lab.egress import (
    CONTROL_PLANE,
    GATEWAY,
    PODS,
    WORKER,
    Scene,
    address_in,
    agent_process,
    container_folder,
    covered_scenes,
    digest_of_download,
    finish,
    scenes_of,
    start_in,
)
from lab.harness import wait_until
from lab.scripts import ASK_CLOSED_PORT, ASK_UDP, HOLD_CONNECTIONS, HOPS, LISTEN
from lab.test_lab_pods import pod

pytestmark = pytest.mark.lab

GIB = 1 << 30
POD = "net-tshoot-worker"
WATCH_WIRE = (
    *("timeout", "8", "tcpdump", "-i", "eth0", "-nn", "-l", "--immediate-mode"),
    *("-c", "20", "tcp port 80 or udp port 4789"),
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("ipv4", marks=pytest.mark.xdist_group("lab")),
        pytest.param("dual", marks=pytest.mark.xdist_group("lab-dual")),
        pytest.param("ipv6", marks=pytest.mark.xdist_group("lab-ipv6")),
    ],
)
def covered(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """A lab's last family (of a dual stack IPv6), with the policies in force."""
    if request.param == "ipv4":
        (scene,) = scenes_of(request.getfixturevalue("lab"), "ipv4")
        scene.apply_policy()
        try:
            yield scene
        finally:
            scene.delete_policy()
        return
    config = tmp_path_factory.mktemp("covered") / "kubeconfig"
    with covered_scenes(config, request.param) as scenes:
        yield scenes[-1]


def test_a_long_download_through_the_gateway_is_whole(covered: Scene) -> None:
    size = {4: GIB, 6: GIB // 16}

    assert covered.download_is_whole(POD, size[covered.side.version])


def test_download_is_whole_without_checksum_offload(covered: Scene) -> None:
    """Partial checksums must be right when the gateway's NIC does not complete them."""
    agent = covered.lab.agent_on(GATEWAY)
    ethtool = f"-n cilium exec {agent} -- ethtool -K eth0 tx"
    covered.lab.kubectl(f"{ethtool} off")
    try:
        whole = [covered.download_is_whole(name, GIB // 16) for name in PODS]
    finally:
        covered.lab.kubectl(f"{ethtool} on")

    assert whole == [True] * 3


def test_two_hundred_connections_share_source_ports_with_another_pod(
    covered: Scene,
) -> None:
    """200 connections from each of two pods, from the same ports, all held at once."""
    pods = [
        covered.start(name, HOLD_CONNECTIONS, "20000", "20200") for name in PODS[:2]
    ]
    for process in pods:
        assert process.stderr
        assert process.stderr.readline() == "all connected\n"
    seen = [line for process in pods for line in finish(process, "\n")]

    assert (400, 400) == (len(seen), len(set(seen)))
    assert {covered.side.egress_ip} == {address_in(line) for line in seen}


def test_udp_leaves_as_the_egress_ip_from_its_own_port(covered: Scene) -> None:
    (seen,) = covered.run(PODS[0], ASK_UDP, "20500")

    assert address_in(seen) == covered.side.egress_ip
    assert seen.endswith(":20500")


def test_udp_of_three_pods_from_one_port_gets_three_ports(covered: Scene) -> None:
    seen = [lines[0] for lines in covered.run_in_all(ASK_UDP, "20501")]

    assert {covered.side.egress_ip} == {address_in(line) for line in seen}
    assert 3 == len(set(seen))


@pytest.mark.parametrize("name", PODS)
def test_ping_is_answered_through_the_gateway(covered: Scene, name: str) -> None:
    assert "3 received" in covered.ping(name)


@pytest.mark.parametrize("name", PODS)
def test_a_closed_port_refuses_a_pod_through_the_gateway(
    covered: Scene, name: str
) -> None:
    assert ["ConnectionRefusedError"] == covered.run(name, ASK_CLOSED_PORT)


@pytest.mark.parametrize("name", PODS)
def test_traceroute_shows_the_gateway_then_the_server(
    covered: Scene, name: str
) -> None:
    side = covered.side

    assert [side.egress_ip, side.server_address] == covered.run(name, HOPS)


def test_wire_shows_the_tunnel_between_nodes_then_the_egress_ip(covered: Scene) -> None:
    """One connection from the worker's pod, seen on the gateway's NIC."""
    tcpdump = start_in(
        covered.lab,
        f"-n cilium {covered.lab.agent_on(GATEWAY)}",
        *WATCH_WIRE,
    )
    assert tcpdump.stderr
    while "listening on" not in tcpdump.stderr.readline():
        pass
    assert covered.side.egress_ip == covered.lab.seen_by_echo(POD, covered.side.server)
    wire, _ = tcpdump.communicate(timeout=30)

    side, outer = covered.side, covered.outer
    gateway, node = (re.escape(outer.pods[name][1]) for name in (PODS[2], POD))
    own, server, egress = map(
        re.escape, (side.pods[POD][0], side.server_address, side.egress_ip)
    )
    for claim in (
        rf"{node}\.\d+ > {gateway}\.4789: VXLAN.*\n.*{own}\.\d+ > {server}\.80:",
        rf"IP6? {egress}\.\d+ > {server}\.80: Flags \[S\]",
        rf"IP6? {server}\.80 > {egress}\.\d+: Flags \[S\.\]",
        rf"{gateway}\.\d+ > {node}\.4789: VXLAN.*\n.*{server}\.80 > {own}\.\d+:",
    ):
        assert re.search(claim, wire), f"{claim} is not in:\n{wire}"
    assert not re.search(rf"^\S+ IP6? {own}", wire, re.MULTILINE)


def test_policy_rows_are_in_the_gateways_kernel(covered: Scene) -> None:
    """Keys: length of the prefix in host order, source, destination."""
    side = covered.side
    dump = covered.lab.kubectl(
        f"-n cilium exec {covered.lab.agent_on(GATEWAY)} -- bpftool -j map dump pinned",
        f"/sys/fs/bpf/tc/globals/cilium_egress_v{side.version}",
    )
    keys = [bytes(int(byte, 16) for byte in row["key"]) for row in json.loads(dump)]

    network = ipaddress.ip_network(side.network)
    sources = [ipaddress.ip_address(own) for own, _ in side.pods.values()]
    prefix = (network.max_prefixlen + network.prefixlen).to_bytes(4, "little")
    assert sorted(keys) == sorted(
        prefix + source.packed + network.network_address.packed for source in sources
    )


def test_gateway_on_a_veth_leaves_its_packets_to_tc(covered: Scene) -> None:
    agent = covered.lab.agent_on(GATEWAY)
    status = covered.lab.kubectl(f"-n cilium exec {agent} -- outgate status")

    assert "eth0 by tc: it is no network card but a veth" in status


def test_pods_that_no_policy_selects_leave_as_their_node(covered: Scene) -> None:
    ask = f"wget -T 5 -qO- {covered.side.server}; sleep 1000"
    other = "-n kube-public"
    covered.lab.kubectl(f"{other} apply -f -", text=pod("free", ask, nodeName=WORKER))
    wait_until(lambda: bool(covered.lab.try_kubectl(f"{other} logs free").stdout))
    seen = covered.lab.kubectl(f"{other} logs free").split()
    covered.lab.kubectl(f"{other} delete pod free --timeout=20s")

    assert [covered.side.pods[POD][1]] == seen


def test_pods_still_reach_each_other_as_themselves(covered: Scene) -> None:
    """Cluster destinations never enter the gateway, whatever networks are covered."""
    server = start_in(covered.lab, PODS[2], "python3", "-c", LISTEN)
    assert server.stdout
    assert server.stdout.readline() == "up\n"
    address = covered.side.pods[PODS[2]][0]
    script = f"import socket; socket.create_connection(('{address}', 8000), 5)"
    covered.lab.kubectl(f"exec {POD} -- python3 -c", script)

    assert [covered.side.pods[POD][0]] == finish(server)


def test_neighbours_are_found_again(covered: Scene) -> None:
    """ARP and neighbour discovery, of a pod and of both nodes, are left alone."""
    flush = f"ip -{covered.side.version} neigh flush all"
    for node in (WORKER, GATEWAY):
        agent = covered.lab.agent_on(node)
        covered.lab.kubectl(f"-n cilium exec {agent} -- {flush}")
    covered.lab.kubectl(f"exec {POD} -- {flush}")

    assert covered.side.egress_ip == covered.lab.seen_by_echo(POD, covered.side.server)


def asker(covered: Scene, name: str, seconds: float, **spec: object) -> None:
    """Start pod *name*, which asks the server for ever, each time for *seconds*."""
    ask = f"wget -T {seconds} -t 1 -qO- {covered.side.server} || echo failed"
    loop = f"while sleep 0.05; do {ask}; done"
    covered.lab.kubectl("apply -f -", text=pod(name, loop, **spec))
    covered.lab.kubectl(f"wait pod/{name} --for=condition=Ready --timeout=20s")


def test_new_pods_never_leave_under_their_nodes_address(covered: Scene) -> None:
    """Each asks at once, when its node's agent may not know it yet."""
    lab, egress_ip = covered.lab, covered.side.egress_ip
    once = f"wget -T 1 -t 1 -qO- {covered.side.server}"
    names = [f"newborn-{i}" for i in range(8)]
    for name in names:
        ask = f"for i in 1 2 3; do {once}; done; sleep 1000"
        lab.kubectl("apply -f -", text=pod(name, ask))
    try:
        seen = dict.fromkeys(names, "")
        for name in names:
            lab.kubectl(f"wait pod/{name} --for=condition=Ready --timeout=30s")

        def all_asked() -> bool:
            seen.update({name: lab.kubectl(f"logs {name}") for name in names})
            return all(egress_ip in text for text in seen.values())

        wait_until(all_asked)
    finally:
        lab.kubectl("delete pod --timeout=30s", *names)

    assert {egress_ip} == {line for text in seen.values() for line in text.split()}


def test_pod_born_without_an_agent_waits_instead_of_leaving_as_its_node(
    covered: Scene,
) -> None:
    """The agent is stopped, not killed: the lab would have a new one in no time."""
    lab, egress_ip = covered.lab, covered.side.egress_ip
    agent = agent_process(lab, WORKER)
    os.kill(agent, signal.SIGSTOP)
    try:
        asker(covered, "orphan", 1, nodeName=WORKER)
        wait_until(lambda: lab.kubectl("logs orphan").count("failed") > 2)
    finally:
        os.kill(agent, signal.SIGCONT)
    wait_until(lambda: egress_ip in lab.kubectl("logs orphan"))
    seen = lab.kubectl("logs orphan").split()
    drops = lab.kubectl(
        f"-n cilium exec {lab.agent_on(WORKER)} -- outgate map get outgate_metrics"
    )
    lab.kubectl("delete pod orphan --timeout=20s")

    assert {egress_ip, "failed"} == set(seen)
    assert "drop_unseen_pod" in drops.lower()


def test_killed_agents_change_nothing_for_traffic(covered: Scene) -> None:
    """Connections that are open, and those that begin while no agent runs."""
    lab, side = covered.lab, covered.side
    asker(covered, "asker", 2)
    shell = digest_of_download(side.server, 2 * GIB)
    download = start_in(lab, POD, "sh", "-c", shell)
    wait_until(lambda: lab.kubectl("logs asker").count(side.egress_ip) > 5)
    for node in (WORKER, GATEWAY, CONTROL_PLANE):
        os.kill(agent_process(lab, node), signal.SIGKILL)
    before = lab.kubectl("logs asker").count("\n")
    wait_until(lambda: lab.kubectl("logs asker").count("\n") > before + 40)
    got = finish(download)
    url = f"http://{side.server}/sha256?bytes={2 * GIB}"
    wanted = lab.kubectl(f"exec {POD} -- wget -q -O - {url}").split()
    seen = lab.kubectl("logs asker").split()
    flows = f"outgate map get outgate_flow_v{side.version} -o json"
    adopted = lab.kubectl(f"-n cilium exec {lab.agent_on(WORKER)} -- {flows}")
    lab.kubectl("delete pod asker --timeout=20s")

    assert wanted == got
    assert {side.egress_ip} == set(seen)
    assert side.pods[POD][0] in adopted


def test_stopped_api_changes_nothing_for_traffic(covered: Scene) -> None:
    lab, egress_ip = covered.lab, covered.side.egress_ip
    asker(covered, "asker", 2)
    wait_until(lambda: lab.kubectl("logs asker").count(egress_ip) > 5)
    control_plane = lab.service("control-plane")
    log = container_folder(lab, "asker", "main") / "log"
    os.kill(control_plane, signal.SIGSTOP)
    try:
        size = log.stat().st_size
        wait_until(lambda: log.stat().st_size > size + 1000)
    finally:
        os.kill(control_plane, signal.SIGCONT)
    wait_until(lambda: lab.try_kubectl("get nodes").returncode == 0)
    seen = lab.kubectl("logs asker").split()
    lab.kubectl("delete pod asker --timeout=20s")

    assert {egress_ip} == set(seen)
    assert [egress_ip] * 3 == covered.all_seen()


def test_bad_policy_is_refused_and_changes_nothing(covered: Scene) -> None:
    network = covered.side.network.rpartition("/")[0]
    bad = f"""
apiVersion: cilium.io/v2alpha1
kind: CiliumEgressNATPolicy
metadata:
  name: bad
spec:
  destinationCIDRs: ["{network}/161"]
  egress:
  - podSelector: {{}}
  egressSourceIP: {covered.side.pods[POD][1]}
"""
    refused = covered.lab.try_kubectl("apply -f -", text=bad)

    assert refused.returncode != 0
    assert "spec.destinationCIDRs[0]" in refused.stderr
    assert [covered.side.egress_ip] * 3 == covered.all_seen()
