"""Pods whose MTU is that of the nodes' network: the tunnel's 50 bytes do not show."""

from collections.abc import Iterator

import pytest

from lab.egress import (
    EGRESS_IP,
    PODS,
    apply_policy,
    delete_policy,
    download_is_whole,
    finish,
    start_in,
)
from lab.harness import Lab, started_lab

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab-mtu")]

TUNNELLED, LOCAL = PODS[:2], PODS[2]

UPLOAD = """
import hashlib, http.client, random
body = random.Random(1).randbytes(1 << 26)
connection = http.client.HTTPConnection("echo", timeout=50)
connection.request("POST", "/sha256", body)
answer = connection.getresponse().read().decode().strip()
print(answer == hashlib.sha256(body).hexdigest())
"""

SEGMENT_SIZE = """
import socket
peer = socket.create_connection(("echo", 80), 5)
print(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
"""

BIG_DATAGRAM = """
import socket, sys
asker = socket.socket(type=socket.SOCK_DGRAM)
IP_MTU_DISCOVER, IP_MTU = 10, 14
asker.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, int(sys.argv[1]))
asker.settimeout(5)
asker.connect(("echo", 7))
asker.send(bytes(1472))
try:
    print(asker.recv(100).decode().rpartition(":")[0])
except OSError as error:
    print(error.errno, asker.getsockopt(socket.IPPROTO_IP, IP_MTU))
"""
"""Sends 1500 bytes of IP; prints who the server saw, or error and path MTU."""

MAY_FRAGMENT, DONT_FRAGMENT = "0", "2"
EMSGSIZE = 90


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    config = tmp_path_factory.mktemp("mtu") / "kubeconfig"
    with started_lab(config, "--mtu", "1500") as lab:
        apply_policy(lab)
        yield lab
        delete_policy(lab)


def ask(lab: Lab, pod: str, discover: str) -> list[str]:
    script = ("python3", "-c", BIG_DATAGRAM, discover)
    return list(finish(start_in(lab, pod, *script)))


def test_pods_have_the_mtu_of_the_nodes_network(big: Lab) -> None:
    sizes = [big.kubectl(f"exec {pod} -- cat /sys/class/net/eth0/mtu") for pod in PODS]

    assert ["1500\n"] * 3 == sizes


def test_downloads_are_whole(big: Lab) -> None:
    assert [True] * 3 == [download_is_whole(big, pod, 1 << 26) for pod in PODS]


def test_uploads_are_whole(big: Lab) -> None:
    uploads = [finish(start_in(big, pod, "python3", "-c", UPLOAD)) for pod in PODS]

    assert [["True"]] * 3 == uploads


def test_segments_leave_room_for_the_tunnel_where_there_is_one(big: Lab) -> None:
    """Less 40 bytes of headers and 12 of timestamps: of 1450, or of 1500."""
    script = ("python3", "-c", SEGMENT_SIZE)

    assert [["1398"], ["1398"], ["1448"]] == [
        finish(start_in(big, pod, *script)) for pod in PODS
    ]


@pytest.mark.parametrize("pod", PODS)
def test_a_datagram_that_may_be_fragmented_arrives(big: Lab, pod: str) -> None:
    assert [EGRESS_IP] == ask(big, pod, MAY_FRAGMENT)


@pytest.mark.parametrize("pod", TUNNELLED)
def test_a_datagram_too_big_for_the_tunnel_is_answered(big: Lab, pod: str) -> None:
    assert [f"{EMSGSIZE} 1450"] == ask(big, pod, DONT_FRAGMENT)


def test_a_pod_on_its_gateway_sends_full_datagrams(big: Lab) -> None:
    assert [EGRESS_IP] == ask(big, LOCAL, DONT_FRAGMENT)
