"""Pods whose MTU is that of the nodes' network: the tunnel's bytes do not show."""

from collections.abc import Iterator

import pytest

from lab.egress import PODS, Scene, covered_scenes
from lab.scripts import BIG_DATAGRAM, SEGMENT_SIZE, UPLOAD

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab-mtu")]

TUNNELLED, LOCAL = PODS[:2], PODS[2]
ROOM = {4: 1450, 6: 1430}
"""What fits the tunnel, by the version of its outer header."""

HEADERS = {4: 40 + 12, 6: 60 + 12}
"""Of IP and TCP, and 12 bytes of timestamps."""

MAY_FRAGMENT, DONT_FRAGMENT = "0", "2"
EMSGSIZE = 90


@pytest.fixture(scope="module", params=["ipv4", "dual", "ipv6"])
def big(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """A lab's last family: of a dual stack IPv6."""
    config = tmp_path_factory.mktemp("mtu") / "kubeconfig"
    with covered_scenes(config, request.param, "--mtu", "1500") as scenes:
        yield scenes[-1]


def test_pods_have_the_mtu_of_the_nodes_network(big: Scene) -> None:
    show = "cat /sys/class/net/eth0/mtu"
    sizes = [big.lab.kubectl(f"exec {pod} -- {show}") for pod in PODS]

    assert ["1500\n"] * 3 == sizes


def test_downloads_are_whole(big: Scene) -> None:
    assert [True] * 3 == [big.download_is_whole(pod, 1 << 26) for pod in PODS]


def test_uploads_are_whole(big: Scene) -> None:
    assert [["True"]] * 3 == big.run_in_all(UPLOAD)


def test_segments_leave_room_for_the_tunnel_where_there_is_one(big: Scene) -> None:
    headers = HEADERS[big.side.version]
    tunnelled, local = ROOM[big.outer.version] - headers, 1500 - headers

    assert [[f"{tunnelled}"], [f"{tunnelled}"], [f"{local}"]] == big.run_in_all(
        SEGMENT_SIZE
    )


@pytest.mark.parametrize("pod", PODS)
def test_a_datagram_that_may_be_fragmented_arrives(big: Scene, pod: str) -> None:
    """The first of IPv6 may be lost: its sender makes fragments once it was told."""
    assert [big.side.egress_ip] == big.run(pod, BIG_DATAGRAM, MAY_FRAGMENT)


@pytest.mark.parametrize("pod", TUNNELLED)
def test_a_datagram_too_big_for_the_tunnel_is_answered(big: Scene, pod: str) -> None:
    room = ROOM[big.outer.version]

    assert [f"{EMSGSIZE} {room}"] == big.run(pod, BIG_DATAGRAM, DONT_FRAGMENT)


def test_a_pod_on_its_gateway_sends_full_datagrams(big: Scene) -> None:
    assert [big.side.egress_ip] == big.run(LOCAL, BIG_DATAGRAM, DONT_FRAGMENT)
