"""Policies about one family of a dual stack, and about everything there is."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from lab.egress import GATEWAY, PODS, WORKER, Scene, finish, scenes_of, start_in
from lab.harness import SIDE4, SIDE6, Lab, Side, started_lab, wait_until
from lab.scripts import LISTEN

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab-other-family")]

POD = "net-tshoot-worker"


@contextmanager
def dual_lab(kubeconfig: Path, setting: str) -> Iterator[Lab]:
    """A dual stack without a policy, with a value of ``other-family``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTGATE_OTHER_FAMILY", setting)
        with started_lab(kubeconfig, "--ip-family", "dual") as lab:
            yield lab


@pytest.fixture(scope="module")
def dual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with dual_lab(tmp_path_factory.mktemp("dual") / "kubeconfig", "pass") as lab:
        yield lab


def policy(networks: list[str], egress_ip: str) -> str:
    """A policy about all pods of namespace default."""
    labels = {"io.kubernetes.pod.namespace": "default"}
    return json.dumps(
        {
            "apiVersion": "cilium.io/v2alpha1",
            "kind": "CiliumEgressNATPolicy",
            "metadata": {"name": "story"},
            "spec": {
                "destinationCIDRs": networks,
                "egress": [{"podSelector": {"matchLabels": labels}}],
                "egressSourceIP": egress_ip,
            },
        }
    )


@contextmanager
def in_force(lab: Lab, side: Side, *networks: str) -> Iterator[None]:
    """The policy *story* over *networks*, seen to work over *side*; then without."""
    lab.kubectl("apply -f -", text=policy(list(networks), side.egress_ip))
    try:
        wait_until(lambda: side.all_seen(lab) == [side.egress_ip] * 3)
        yield
    finally:
        lab.kubectl("delete ciliumegressnatpolicy story")
        wait_until(lambda: side.all_seen(lab) == side.nodes)


def outcome(lab: Lab, side: Side) -> str:
    """Who the server sees over *side*, or that nothing came."""
    ask = f"exec {POD} -- wget -T 1 -t 1 -q -O - {side.server}"
    return lab.try_kubectl(ask).stdout.strip() or "nothing"


def is_unseen(lab: Lab, side: Side) -> bool:
    return outcome(lab, side) == "nothing"


def counters(lab: Lab) -> str:
    agent = lab.agent_on(WORKER)
    command = "outgate map get outgate_metrics"
    return lab.kubectl(f"-n cilium exec {agent} -- {command}").lower()


@pytest.mark.parametrize(
    ("covered", "other"), [(SIDE4, SIDE6), (SIDE6, SIDE4)], ids=["ipv4", "ipv6"]
)
def test_the_family_that_no_policy_names_is_the_plugins(
    dual: Lab, covered: Side, other: Side
) -> None:
    with in_force(dual, covered, covered.network):
        assert other.all_seen(dual) == other.nodes
        assert "other_family" in counters(dual).split()


def test_the_family_that_no_policy_names_is_dropped_where_so_set(
    tmp_path: Path,
) -> None:
    with dual_lab(tmp_path / "kubeconfig", "drop") as lab:
        for covered, other in ((SIDE4, SIDE6), (SIDE6, SIDE4)):
            with in_force(lab, covered, covered.network):
                wait_until(partial(is_unseen, lab, other))
                seen = [outcome(lab, other) for _ in range(3)]

                assert seen == ["nothing"] * 3
                assert "drop_other_family" in counters(lab).split()


def test_networks_of_a_family_without_an_egress_ip_are_dropped(dual: Lab) -> None:
    """Covered, and nothing to leave as: whatever the setting says."""
    with in_force(dual, SIDE4, SIDE4.network, SIDE6.network):
        seen = [outcome(dual, SIDE6) for _ in range(3)]

        assert seen == ["nothing"] * 3
        assert "drop_no_egress_ip" in counters(dual).split()


EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}


@pytest.fixture(params=[SIDE4, SIDE6], ids=["ipv4", "ipv6"])
def everything(request: pytest.FixtureRequest, dual: Lab) -> Iterator[Scene]:
    """A policy on every network of a family."""
    side: Side = request.param
    with in_force(dual, side, EVERYTHING[side.version]):
        yield next(scene for scene in scenes_of(dual, "dual") if scene.side is side)


def test_a_policy_on_everything_leaves_the_link_alone(everything: Scene) -> None:
    """Neighbours are found again: multicast and link-local are no world."""
    lab, version = everything.lab, everything.side.version
    flush = f"ip -{version} neigh flush all"
    for node in (WORKER, GATEWAY):
        lab.kubectl(f"-n cilium exec {lab.agent_on(node)} -- {flush}")
    lab.kubectl(f"exec {POD} -- {flush}")

    assert everything.side.egress_ip == outcome(lab, everything.side)


def test_a_policy_on_everything_leaves_pods_alone(everything: Scene) -> None:
    server = start_in(everything.lab, PODS[2], "python3", "-c", LISTEN)
    assert server.stdout
    assert server.stdout.readline() == "up\n"
    address = everything.side.pods[PODS[2]][0]
    script = f"import socket; socket.create_connection(('{address}', 8000), 5)"
    everything.lab.kubectl(f"exec {POD} -- python3 -c", script)

    assert [everything.side.pods[POD][0]] == finish(server)


def test_a_policy_on_everything_leaves_nodes_alone(everything: Scene) -> None:
    node = everything.side.pods[PODS[2]][1]
    ping = f"exec {POD} -- ping -c 2 -i 0.2 -W 2 {node}"

    assert "2 received" in everything.lab.kubectl(ping)
