"""The other ways a node may be: its pods' bridge, its stack on the path, no tcx."""

from collections.abc import Iterator

import pytest

from lab.egress import PODS, Scene, address_in, covered_scenes, finish
from lab.scripts import ASK_CLOSED_PORT, ASK_UDP, HOLD_CONNECTIONS

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab-variants")]

VARIANTS = [
    ("ptp", "stack", "ipv4", "auto"),
    ("bridge", "direct", "ipv4", "auto"),
    ("bridge", "stack", "ipv4", "auto"),
    ("ptp", "stack", "dual", "clsact"),
    ("bridge", "stack", "ipv6", "auto"),
]
"""Network plugin, gateway path, IP family, and how programs meet interfaces."""

Scenes = tuple[Scene, ...]


@pytest.fixture(scope="module", params=VARIANTS, ids="-".join)
def variant(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scenes]:
    network, path, family, attach = request.param
    config = tmp_path_factory.mktemp("variant") / "kubeconfig"
    options = ("--network", network, "--gateway-path", path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTGATE_ATTACH", attach)
        with covered_scenes(config, family, *options) as scenes:
            yield scenes


def test_every_pod_leaves_as_the_egress_ip(variant: Scenes) -> None:
    for scene in variant:
        assert [scene.side.egress_ip] * 3 == scene.all_seen()


def test_downloads_are_whole(variant: Scenes) -> None:
    for scene in variant:
        assert [True] * 3 == [scene.download_is_whole(pod, 1 << 26) for pod in PODS]


def test_connections_share_source_ports_between_pods(variant: Scenes) -> None:
    for scene in variant:
        pods = [scene.start(pod, HOLD_CONNECTIONS, "20000", "20050") for pod in PODS]
        seen = [line for process in pods for line in finish(process, "\n")]

        assert (150, 150) == (len(seen), len(set(seen)))
        assert {scene.side.egress_ip} == {address_in(line) for line in seen}


def test_udp_of_three_pods_from_one_port_gets_three_ports(variant: Scenes) -> None:
    for scene in variant:
        seen = [lines[0] for lines in scene.run_in_all(ASK_UDP, "20501")]

        assert {scene.side.egress_ip} == {address_in(line) for line in seen}
        assert 3 == len(set(seen))


@pytest.mark.parametrize("pod", PODS)
def test_ping_is_answered_through_the_gateway(variant: Scenes, pod: str) -> None:
    for scene in variant:
        assert "3 received" in scene.ping(pod)


def test_a_closed_port_refuses_each_pod(variant: Scenes) -> None:
    for scene in variant:
        answers = scene.run_in_all(ASK_CLOSED_PORT)

        assert [["ConnectionRefusedError"]] * 3 == answers
