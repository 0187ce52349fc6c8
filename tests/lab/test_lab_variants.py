"""The other ways a node may be: a bridge for its pods, the host's stack on the path."""

from collections.abc import Iterator

import pytest

from lab.egress import (
    ASK_CLOSED_PORT,
    ASK_UDP,
    EGRESS_IP,
    HOLD_CONNECTIONS,
    PODS,
    all_seen,
    apply_policy,
    delete_policy,
    download_is_whole,
    finish,
    start_in,
)
from lab.harness import Lab, started_lab

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab-variants")]


@pytest.fixture(
    scope="module",
    params=[("ptp", "stack"), ("bridge", "direct"), ("bridge", "stack")],
    ids=["ptp-stack", "bridge-direct", "bridge-stack"],
)
def variant(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    network, path = request.param
    config = tmp_path_factory.mktemp("variant") / "kubeconfig"
    options = ("--network", network, "--gateway-path", path)
    with started_lab(config, *options) as lab:
        apply_policy(lab)
        yield lab
        delete_policy(lab)


def test_every_pod_leaves_as_the_egress_ip(variant: Lab) -> None:
    assert [EGRESS_IP] * 3 == all_seen(variant)


def test_downloads_are_whole(variant: Lab) -> None:
    assert [True] * 3 == [download_is_whole(variant, name, 1 << 26) for name in PODS]


def test_connections_share_source_ports_between_pods(variant: Lab) -> None:
    script = ("python3", "-c", HOLD_CONNECTIONS, "20000", "20050")
    pods = [start_in(variant, name, *script) for name in PODS]
    seen = [line for process in pods for line in finish(process, "\n")]
    addresses = {line.rpartition(":")[0] for line in seen}

    assert (150, 150, {EGRESS_IP}) == (len(seen), len(set(seen)), addresses)


def test_udp_of_three_pods_from_one_port_gets_three_ports(variant: Lab) -> None:
    script = ("python3", "-c", ASK_UDP, "20501", "echo")
    seen = [finish(start_in(variant, name, *script))[0] for name in PODS]

    assert {EGRESS_IP} == {line.rpartition(":")[0] for line in seen}
    assert 3 == len(set(seen))


@pytest.mark.parametrize("name", PODS)
def test_ping_is_answered_through_the_gateway(variant: Lab, name: str) -> None:
    assert "3 received" in variant.kubectl(f"exec {name} -- ping -c 3 -i 0.2 -W 2 echo")


def test_a_closed_port_refuses_each_pod(variant: Lab) -> None:
    script = ("python3", "-c", ASK_CLOSED_PORT)
    answers = [finish(start_in(variant, name, *script)) for name in PODS]

    assert [["ConnectionRefusedError"]] * 3 == answers
