"""
Closed by default: what a pod may try, at each place where it might get through.

``docs/reference/fail-closed.md`` lists the situations, and the test for each.
"""

from collections.abc import Callable
from ipaddress import ip_address

import pytest

from bpf.harness import (
    DROP,
    MARK_OVERLAY,
    MARK_SEEN,
    PASS,
    REDIRECT,
    MakeNode,
    Node,
    Outcome,
    Setup,
    needs_root,
)
from bpf.icmp_errors import IcmpError
from bpf.packets import (
    ECHO_NAME,
    ICMP_NUMBER,
    PROTOCOLS,
    TCP_NAME,
    UDP_NAME,
    Packet,
    outbound,
    over_ip,
)
from bpf.sctp import association
from bpf.world import POLICY, World
from outgate.kernel.maps import MapName
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.kernel.settings import GatewayPath
from outgate.state.entries import (
    CLUSTER,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
    Family,
    Hook,
    IpcacheEntry,
    IpcacheKey,
)

pytestmark = [needs_root, pytest.mark.kernel]

OUT = MetricDirection.TO_WORLD

Build = Callable[[World, str], bytes]
"""Makes what the pod at an address sends to SERVER."""

OTHER_PROTOCOLS = {
    "ipip": 4,
    "dccp": 33,
    "ipv6-in-ip": 41,
    "gre": 47,
    "esp": 50,
    "authentication": 51,
    "nothing": 59,
    "ospf": 89,
    "ip-compression": 108,
    "udp-lite": 136,
    "reserved": 255,
}


def raw(number: int, size: int = 24) -> Build:
    """Return a maker of packets with *size* zeros over IP."""
    return lambda world, pod: over_ip(pod, world.SERVER, number, bytes(size))


def other_icmp(world: World, pod: str) -> bytes:
    """Return ICMP neither echo nor an error: IPv4's timestamp, a private one."""
    kind = 13 if world.family is Family.V4 else 200
    content = bytes([kind]) + bytes(19)
    return over_ip(pod, world.SERVER, ICMP_NUMBER[world.family], content)


def error_about_nothing(world: World, pod: str) -> bytes:
    return IcmpError(pod, outbound(UDP_NAME, world.SERVER, pod)).build()


def nothing_of_icmp(world: World, pod: str) -> bytes:
    return over_ip(pod, world.SERVER, ICMP_NUMBER[world.family], b"")


UNTRANSLATABLE: dict[str, tuple[Build, Reason]] = {
    **{
        name: (raw(number), Reason.DROP_UNSUPPORTED_PROTOCOL)
        for name, number in OTHER_PROTOCOLS.items()
    },
    "no-header-gre": (raw(47, 0), Reason.DROP_UNSUPPORTED_PROTOCOL),
    "no-header-nothing": (raw(59, 0), Reason.DROP_UNSUPPORTED_PROTOCOL),
    "no-header-tcp": (raw(6, 0), Reason.DROP_INVALID),
    "no-header-udp": (raw(17, 0), Reason.DROP_INVALID),
    "no-header-sctp": (raw(132, 0), Reason.DROP_INVALID),
    "no-header-icmp": (nothing_of_icmp, Reason.DROP_INVALID),
    "half-tcp": (raw(6, 19), Reason.DROP_INVALID),
    "half-udp": (raw(17, 7), Reason.DROP_INVALID),
    "other-icmp": (other_icmp, Reason.DROP_UNSUPPORTED_ICMP),
    "icmp-error": (error_about_nothing, Reason.DROP_ICMP_NO_FLOW),
}


def begins(protocol: str) -> Build:
    """Return a maker of a flow's first packet."""
    return lambda world, pod: outbound(protocol, pod, world.SERVER).build()


ANYTHING: dict[str, Build] = {
    **{protocol: begins(protocol) for protocol in PROTOCOLS},
    "sctp": lambda world, pod: association(pod, world.SERVER).build(),
    **{name: build for name, (build, _) in UNTRANSLATABLE.items()},
}


@pytest.fixture(params=list(GatewayPath))
def gateway(request: pytest.FixtureRequest, make_node: MakeNode, world: World) -> Node:
    """The gateway, by either path."""
    return make_node(Setup(gateway_path=request.param))


def assert_dropped(
    node: Node, frame: bytes, outcome: Outcome, reason: Reason, policy: int = POLICY
) -> None:
    """Assert that *frame* was dropped as it came, counted, and left no trace."""
    assert Outcome(DROP, frame, outcome.mark) == outcome
    assert {(reason, OUT, policy): 1} == node.counts()
    assert ({}, {}) == (node.flows(), node.nats())


@pytest.mark.parametrize("what", UNTRANSLATABLE)
@pytest.mark.parametrize("pod", ["TUNNELLED_POD", "LOCAL_POD"])
def test_what_cannot_be_translated_does_not_leave_its_pod(
    gateway: Node, world: World, pod: str, what: str
) -> None:
    build, reason = UNTRANSLATABLE[what]
    frame = build(world, world.address(pod))

    assert_dropped(gateway, frame, gateway.run(Hook.FROM_CONTAINER, frame), reason)


@pytest.mark.parametrize("what", UNTRANSLATABLE)
def test_what_cannot_be_translated_does_not_leave_the_gateway(
    gateway: Node, world: World, what: str
) -> None:
    """No row was looked for, so no policy is known."""
    build, reason = UNTRANSLATABLE[what]
    frame = build(world, world.REMOTE_POD)
    outcome = gateway.run(Hook.FROM_OVERLAY, frame, tunnel=world.worker)

    assert_dropped(gateway, frame, outcome, reason, 0)


@pytest.mark.parametrize("what", UNTRANSLATABLE)
def test_what_cannot_be_translated_does_not_leave_the_stack(
    gateway: Node, world: World, what: str
) -> None:
    build, reason = UNTRANSLATABLE[what]
    frame = build(world, world.REMOTE_POD)
    outcome = gateway.run(Hook.TO_NETDEV, frame, mark=MARK_OVERLAY)

    assert_dropped(gateway, frame, outcome, reason, 0)


@pytest.mark.parametrize("what", ANYTHING)
@pytest.mark.parametrize("pod", ["LOCAL_POD", "TUNNELLED_POD", "REMOTE_POD"])
def test_what_nobody_translated_does_not_leave_the_node(
    node: Node, world: World, pod: str, what: str
) -> None:
    """The second line: a pod's packet on the uplink that no hook saw."""
    frame = ANYTHING[what](world, world.address(pod))
    outcome = node.run(Hook.TO_NETDEV, frame, mark=MARK_SEEN)

    assert_dropped(node, frame, outcome, Reason.DROP_UNTRANSLATED)


@pytest.mark.parametrize("what", ANYTHING)
@pytest.mark.parametrize("hook", [Hook.FROM_CONTAINER, Hook.TO_NETDEV])
def test_a_pod_that_is_not_known_yet_reaches_no_covered_network(
    gateway: Node, world: World, hook: Hook, what: str
) -> None:
    frame = ANYTHING[what](world, world.UNKNOWN_POD)
    outcome = gateway.run(hook, frame)

    assert_dropped(gateway, frame, outcome, Reason.DROP_UNKNOWN_POD)


@pytest.mark.parametrize("what", ANYTHING)
def test_a_gateway_that_does_not_know_the_pod_carries_nothing(
    gateway: Node, world: World, what: str
) -> None:
    """Its row is refused there, or still on its way."""
    frame = ANYTHING[what](world, world.ROUTED_POD)
    outcome = gateway.run(Hook.FROM_OVERLAY, frame, tunnel=world.worker)
    _, reason = UNTRANSLATABLE.get(what, (None, Reason.DROP_NO_POLICY))

    assert_dropped(gateway, frame, outcome, reason, 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_address_without_an_owner_is_an_unknown_pods(
    node: Node, world: World, protocol: str
) -> None:
    """Between two pods that have it, whether or not a policy selected the first."""
    for pod in (world.TUNNELLED_POD, world.FREE_POD):
        node.remove(EndpointKey(ip_address(pod)))
        frame = outbound(protocol, pod, world.SERVER).build()
        assert Outcome(DROP, frame, 0) == node.run(Hook.FROM_CONTAINER, frame)

    assert {(Reason.DROP_UNKNOWN_POD, OUT, POLICY): 2} == node.counts()


def test_a_pod_with_a_former_ones_address_gets_its_own_gateway(
    node: Node, world: World
) -> None:
    """Of the same tuple a TCP connection begins anew; the flow's entry decides not."""
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, packet.build())
    reply = packet.reply().build()
    node.run(Hook.FROM_OVERLAY, reply, tunnel=world.worker)
    node.put({world.row(world.TUNNELLED_POD, world.NETWORK): world.via(world.HERE)})
    expected = packet.but(source=world.HERE, ttl=63).build()

    assert expected == node.run(Hook.FROM_CONTAINER, packet.build()).packet


ANSWERS: dict[str, Callable[[Packet], Packet]] = {
    "accept": lambda packet: packet.but(flags="SA"),
    "data": lambda packet: packet.but(flags="PA"),
    "end": lambda packet: packet.but(flags="FA"),
    "refusal": lambda packet: packet.but(flags="RA"),
    "reset": lambda packet: packet.but(flags="R"),
    "echo-reply": lambda packet: outbound(
        ECHO_NAME, packet.destination, packet.source
    ).reply(),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_to_nobody_goes_to_the_gateway(
    node: Node, world: World, answer: str
) -> None:
    """What looks like a reply is one only of a flow that to-container saw begin."""
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.SERVER)
    frame = ANSWERS[answer](packet).build()

    assert Outcome(REDIRECT, frame, 0) == node.run(Hook.FROM_CONTAINER, frame)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("pod", ["LOCAL_POD", "REMOTE_POD"])
def test_an_answer_to_nobody_does_not_leave_the_node(
    node: Node, world: World, pod: str, answer: str
) -> None:
    packet = outbound(TCP_NAME, world.address(pod), world.SERVER)
    frame = ANSWERS[answer](packet).build()
    outcome = node.run(Hook.TO_NETDEV, frame)

    assert_dropped(node, frame, outcome, Reason.DROP_UNTRANSLATED)


def as_cluster(world: World, node: Node) -> Callable[[], None]:
    """Let SERVER be of the cluster; return what makes it external."""
    key = IpcacheKey(world.row(world.LOCAL_POD, world.NETWORK).destination)
    node.put({key: IpcacheEntry(CLUSTER, None)})
    return lambda: node.remove(key)


def as_excluded(world: World, node: Node) -> Callable[[], None]:
    """Let a policy exclude SERVER; return what covers it."""
    key = world.row(world.TUNNELLED_POD, world.NETWORK)
    node.put({key: Excluded(POLICY)})
    return lambda: node.put({key: world.via(world.ELSEWHERE)})


def as_uncovered(world: World, node: Node) -> Callable[[], None]:
    """Let no policy select the pod; return what makes one do so."""
    key = world.row(world.TUNNELLED_POD, world.NETWORK)
    node.remove(key)
    return lambda: node.put({key: world.via(world.ELSEWHERE)})


@pytest.mark.parametrize("before", [as_cluster, as_excluded, as_uncovered])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_flow_that_was_left_alone_is_covered_with_its_next_packet(
    node: Node,
    world: World,
    protocol: str,
    before: Callable[[World, Node], Callable[[], None]],
) -> None:
    """What is left alone has no entry, so each packet asks the policy."""
    make_covered = before(world, node)
    packet = outbound(protocol, world.TUNNELLED_POD, world.SERVER)
    later = packet.but(flags="A").build()
    left_alone = node.run(Hook.FROM_CONTAINER, packet.build())
    entries = (node.flows(), node.nats())
    make_covered()
    tunnelled = node.run(Hook.FROM_CONTAINER, later)

    # What is for the cluster, forward-guard looks at again: a Service may lead outside.
    mark = 0 if before is as_cluster else MARK_SEEN
    assert Outcome(PASS, packet.build(), mark) == left_alone
    assert ({}, {}) == entries
    assert Outcome(REDIRECT, later, 0) == tunnelled
    assert Outcome(DROP, later, 0) == node.run(Hook.TO_NETDEV, later)


def test_a_node_without_an_ipcache_takes_everything_for_the_world(
    node: Node, world: World
) -> None:
    """It has not heard of any other node: better a detour than a leak."""
    with node.table(MapName.IPCACHE) as table:
        assert not table.remove_many([key for key, _ in table.rows()])
    packet = outbound(TCP_NAME, world.TUNNELLED_POD, world.REMOTE_POD).build()

    assert Outcome(REDIRECT, packet, 0) == node.run(Hook.FROM_CONTAINER, packet)


def test_a_pod_of_the_hosts_network_is_the_host(node: Node, world: World) -> None:
    """It has the node's address, which no row has, and no veth of its own."""
    frame = outbound(UDP_NAME, world.HERE, world.SERVER).build()
    node.put({EndpointKey(ip_address(world.HERE)): EndpointEntry(EndpointFlag.HOST)})

    assert Outcome(PASS, frame, 0) == node.run(Hook.TO_NETDEV, frame)
    assert {} == node.counts()
