"""A lab in dual stack, and one without IPv4: addresses, names, who is seen outside."""

import json
import re
from collections.abc import Iterator

import pytest

from lab.egress import SIDES, Scene, address_in, scenes_of
from lab.harness import SIDE6, Lab, Side, started_lab, wait_until
from lab.scripts import ASK_UDP
from lab.test_lab_pods import pod

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab-families")]

POD_MTU = {"dual": "1450", "ipv6": "1430"}
WORKER = "net-tshoot-worker"
IPV4_ADDRESS = re.compile(r"\b\d+\.\d+\.\d+\.\d+\b")


@pytest.fixture(scope="module", params=["dual", "ipv6"])
def family(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def other(family: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of another family than IPv4 alone."""
    config = tmp_path_factory.mktemp("family") / "kubeconfig"
    with started_lab(config, "--ip-family", family) as lab:
        yield lab


@pytest.fixture
def scenes(other: Lab, family: str) -> tuple[Scene, ...]:
    return scenes_of(other, family)


@pytest.fixture
def sides(family: str) -> tuple[Side, ...]:
    return SIDES[family]


def test_pods_have_an_address_per_family(other: Lab, sides: tuple[Side, ...]) -> None:
    listed = json.loads(other.kubectl("get pod -l name=net-tshoot -o json"))
    for item in listed["items"]:
        status = item["status"]
        pairs = [side.pods[item["metadata"]["name"]] for side in sides]

        assert [entry["ip"] for entry in status["podIPs"]] == [own for own, _ in pairs]
        assert [entry["ip"] for entry in status["hostIPs"]] == [at for _, at in pairs]
        assert (status["podIP"], status["hostIP"]) == pairs[0]


def test_wide_list_shows_primary_addresses(other: Lab, sides: tuple[Side, ...]) -> None:
    lines = other.kubectl("get pod -l name=net-tshoot -owide --no-headers").splitlines()

    primary = [own for own, _ in sides[0].pods.values()]
    assert [line.split()[5] for line in lines] == primary


def test_nodes_name_their_addresses_and_networks(
    other: Lab, sides: tuple[Side, ...]
) -> None:
    node = json.loads(other.kubectl("get node k8s-guide-worker -o json"))
    internal = [
        entry["address"]
        for entry in node["status"]["addresses"]
        if entry["type"] == "InternalIP"
    ]

    assert internal == [side.pods[WORKER][1] for side in sides]
    assert len(node["spec"]["podCIDRs"]) == len(sides)


def test_pods_leave_under_their_nodes_address_of_the_family(
    other: Lab, sides: tuple[Side, ...]
) -> None:
    for side in sides:
        assert side.all_seen(other) == side.nodes


def test_udp_leaves_under_the_nodes_address_of_the_family(
    scenes: tuple[Scene, ...],
) -> None:
    for scene in scenes:
        seen = scene.run(WORKER, ASK_UDP, "20500")[0]

        assert address_in(seen) == scene.side.pods[WORKER][1]


def test_ping_is_answered_over_each_family(scenes: tuple[Scene, ...]) -> None:
    for scene in scenes:
        assert "3 received" in scene.ping(WORKER)


LISTENER = """
import socket
server = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
print("listens", flush=True)
while True:
    print(server.accept()[1][0], flush=True)
"""


def test_pods_reach_each_other_under_their_own_addresses(
    other: Lab, sides: tuple[Side, ...]
) -> None:
    other.kubectl("apply -f -", text=pod("listener", f"python3 -c '{LISTENER}'"))
    other.kubectl("wait pod/listener --for=condition=Ready --timeout=20s")
    wait_until(lambda: "listens" in other.kubectl("logs listener"))
    status = json.loads(other.kubectl("get pod listener -o json"))["status"]
    for entry in status["podIPs"]:
        connect = f"import socket; socket.create_connection(('{entry['ip']}', 80), 5)"
        other.kubectl(f"exec {WORKER} -- python3 -c", connect)
    wait_until(lambda: other.kubectl("logs listener").count("\n") > len(sides))
    seen = other.kubectl("logs listener").split()[1:]
    other.kubectl("delete pod listener --timeout=20s")

    wanted = [side.pods[WORKER][0] for side in sides]
    assert [address.removeprefix("::ffff:") for address in seen] == wanted


def test_addresses_of_a_new_pod_are_usable_at_once(
    other: Lab, sides: tuple[Side, ...]
) -> None:
    """Duplicate address detection would hold an IPv6 address back for a second."""
    ask = f"wget -T 1 -t 1 -qO- {sides[-1].server} || echo failed; sleep 1000"
    other.kubectl("apply -f -", text=pod("newborn", ask, nodeName="k8s-guide-worker"))
    wait_until(lambda: bool(other.try_kubectl("logs newborn").stdout))
    seen = other.kubectl("logs newborn").split()
    other.kubectl("delete pod newborn --timeout=20s")

    assert seen == [sides[-1].pods[WORKER][1]]


def test_pods_leave_room_for_the_tunnel(other: Lab, family: str) -> None:
    size = other.kubectl(f"exec {WORKER} -- cat /sys/class/net/eth0/mtu")

    assert size.strip() == POD_MTU[family]


def test_services_have_addresses_of_the_primary_family(other: Lab, family: str) -> None:
    address = other.kubectl("get service kubernetes -o jsonpath={.spec.clusterIP}")

    assert address == ("fd00:10:96::1" if family == "ipv6" else "10.96.0.1")


def test_addresses_of_ipv4_are_in_a_dual_stack_alone(other: Lab, family: str) -> None:
    """In the kernel of every node and pod, in their names, and in the objects."""
    show = "ip -o -4 addr show; ip -4 route show; cat /etc/hosts"
    agents = other.kubectl("-n cilium get pod -o name").split()
    places = [*SIDE6.pods, *(f"-n cilium {name}" for name in agents)]
    texts = [other.kubectl(f"exec {place} -- sh -c", show) for place in places]
    listed = json.loads(other.kubectl("get pod,node,service -A -o json"))["items"]
    texts += [json.dumps([item["spec"], item.get("status")]) for item in listed]
    found = {address for text in texts for address in IPV4_ADDRESS.findall(text)}

    assert (found == {"127.0.0.1"}) == (family == "ipv6")


def test_status_shows_every_address(other: Lab, sides: tuple[Side, ...]) -> None:
    text = other.outgate("status").stdout

    for side in sides:
        assert side.pods[WORKER][0] in text
        assert side.pods[WORKER][1] in text
