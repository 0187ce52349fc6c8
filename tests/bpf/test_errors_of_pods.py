"""ICMP errors that pods send: they leave as what they speak of left, or not at all."""

from ipaddress import IPv4Address

import pytest

from bpf.harness import (
    DROP,
    MARK_OVERLAY,
    MARK_SEEN,
    MARK_TRANSLATED,
    PASS,
    REDIRECT,
    TUNNEL_MAC,
    Node,
    Outcome,
    Setup,
    needs_root,
)
from bpf.icmp_errors import ERRORS, ETHERNET, ICMP, IPV4, IcmpError
from bpf.packets import ECHO_NAME, PROTOCOLS, TCP_NAME, UDP_NAME, Packet, outbound
from bpf.world import (
    ELSEWHERE,
    FREE_POD,
    HERE,
    LOCAL_POD,
    OTHER_SERVER,
    POLICY,
    REMOTE_POD,
    SERVER,
    TUNNELLED_POD,
    UNKNOWN_POD,
    gateway_entries,
)
from outgate.kernel.maps import GatewayPath
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.state.entries import Hook, NodeEntry, NodeKey

pytestmark = [needs_root, pytest.mark.kernel]

MARKS = {Hook.FROM_CONTAINER: MARK_SEEN, Hook.TO_NETDEV: 0}
"""What a hook leaves on a packet that it lets pass."""

WORKER = IPv4Address(ELSEWHERE)
OUT = MetricDirection.TO_WORLD
STACK = Setup(gateway_path=GatewayPath.STACK)


def refusal(request: Packet, kind: str = "port-unreachable") -> IcmpError:
    """Return what the sender of *request* says of the answer."""
    return IcmpError(request.source, request.reply(), kind)


def as_seen(request: Packet, port: int = 40000) -> Packet:
    """Return *request* as the world saw it."""
    return request.but(source=HERE, source_port=port)


def translated(error: IcmpError, request: Packet, port: int = 40000) -> IcmpError:
    """Return *error*, which answers an answer to *request*, as the world sees it."""
    return error.about(as_seen(request, port).reply()).but(source=HERE, ttl=63)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ERRORS)
def test_a_pods_error_goes_to_the_gateway_of_its_flow(
    node: Node, kind: str, protocol: str
) -> None:
    request = outbound(protocol, TUNNELLED_POD, SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    node.age(20)
    flows = node.flows()
    error = refusal(request, kind).build()

    assert Outcome(REDIRECT, error, 0) == node.run(Hook.FROM_CONTAINER, error)
    assert flows == node.flows()
    assert node.counts() == {(Reason.FORWARDED, OUT, POLICY): 2}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ERRORS)
def test_a_local_pods_error_is_translated(node: Node, kind: str, protocol: str) -> None:
    request = outbound(protocol, LOCAL_POD, SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    node.age(20)
    state = (node.flows(), node.nats())
    error = refusal(request, kind).build()
    expected = refusal(as_seen(request), kind).but(ttl=63).build()
    outcome = node.run(Hook.FROM_CONTAINER, error)

    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == outcome
    assert state == (node.flows(), node.nats())


@pytest.mark.parametrize("quoted_l4", [8, 17, 18, None])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_gateway_translates_a_remote_pods_error(
    node: Node, protocol: str, quoted_l4: int | None
) -> None:
    request = outbound(protocol, REMOTE_POD, SERVER)
    node.run(Hook.FROM_OVERLAY, request.build(), tunnel=WORKER)
    node.age(20)
    state = node.nats()
    error = refusal(request).but(quoted_l4=quoted_l4)
    expected = translated(error, request).build()
    outcome = node.run(Hook.FROM_OVERLAY, error.build(), tunnel=WORKER)

    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == outcome
    assert state == node.nats()


@pytest.mark.parametrize("protocol", [TCP_NAME, UDP_NAME])
def test_a_pods_error_speaks_of_the_port_that_a_collision_gave(
    node: Node, protocol: str
) -> None:
    node.run(Hook.TO_NETDEV, outbound(protocol, HERE, SERVER).build())
    request = outbound(protocol, LOCAL_POD, SERVER)
    sent = node.run(Hook.FROM_CONTAINER, request.build()).packet
    port = int.from_bytes(sent[34:36], "big")
    expected = refusal(as_seen(request, port)).but(ttl=63).build()

    assert 40000 != port
    assert expected == node.run(Hook.FROM_CONTAINER, refusal(request).build()).packet


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_local_pods_error_goes_through_the_stack_where_told(protocol: str) -> None:
    request = outbound(protocol, LOCAL_POD, SERVER)
    error, seen = refusal(request), refusal(as_seen(request))
    with Node(STACK) as node:
        node.put(gateway_entries())
        first = node.run(Hook.FROM_CONTAINER, request.build())
        node.run(Hook.TO_NETDEV, request.build(), mark=first.mark)
        marked = node.run(Hook.FROM_CONTAINER, error.build())
        routed = error.but(ttl=63).build()
        sent = node.run(Hook.TO_NETDEV, routed, mark=MARK_OVERLAY)

        assert Outcome(PASS, error.build(), MARK_OVERLAY) == marked
        assert Outcome(PASS, seen.but(ttl=63).build(), MARK_TRANSLATED) == sent


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_remote_pods_error_goes_through_the_stack_where_told(protocol: str) -> None:
    request = outbound(protocol, REMOTE_POD, SERVER)
    error, seen = refusal(request), refusal(as_seen(request))
    mac = TUNNEL_MAC.hex(":")
    handed_over = error.but(source_mac=mac, destination_mac=mac).build()
    with Node(STACK) as node:
        node.put(gateway_entries())
        node.run(Hook.FROM_OVERLAY, request.build(), tunnel=WORKER)
        node.run(Hook.TO_NETDEV, request.build(), mark=MARK_OVERLAY)
        node.age(20)
        state = (node.flows(), node.nats())
        marked = node.run(Hook.FROM_OVERLAY, error.build(), tunnel=WORKER)
        routed = error.but(ttl=63).build()
        sent = node.run(Hook.TO_NETDEV, routed, mark=MARK_OVERLAY)

        assert Outcome(PASS, handed_over, MARK_OVERLAY) == marked
        assert Outcome(PASS, seen.but(ttl=63).build(), MARK_TRANSLATED) == sent
        assert state == (node.flows(), node.nats())


@pytest.mark.parametrize("hook", [Hook.FROM_CONTAINER, Hook.TO_NETDEV])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_about_a_flow_from_outside_is_left_alone(
    node: Node, protocol: str, hook: Hook
) -> None:
    request = outbound(protocol, SERVER, LOCAL_POD)
    node.run(Hook.TO_CONTAINER, request.build())
    error = IcmpError(LOCAL_POD, request).build()

    assert Outcome(PASS, error, MARKS[hook]) == node.run(hook, error)


@pytest.mark.parametrize(
    ("pod", "server"),
    [(FREE_POD, SERVER), (LOCAL_POD, OTHER_SERVER)],
    ids=["no-policy", "uncovered"],
)
@pytest.mark.parametrize("hook", [Hook.FROM_CONTAINER, Hook.TO_NETDEV])
def test_an_error_that_no_policy_covers_is_left_alone(
    node: Node, hook: Hook, pod: str, server: str
) -> None:
    error = refusal(outbound(UDP_NAME, pod, server)).build()

    assert Outcome(PASS, error, MARKS[hook]) == node.run(hook, error)
    assert {} == node.counts()


@pytest.mark.parametrize(
    ("hook", "pod", "mark", "reason", "policy"),
    [
        (Hook.FROM_CONTAINER, LOCAL_POD, 0, Reason.DROP_ICMP_NO_FLOW, POLICY),
        (Hook.FROM_CONTAINER, TUNNELLED_POD, 0, Reason.DROP_ICMP_NO_FLOW, POLICY),
        (Hook.FROM_CONTAINER, UNKNOWN_POD, 0, Reason.DROP_UNKNOWN_POD, POLICY),
        (Hook.FROM_OVERLAY, REMOTE_POD, 0, Reason.DROP_ICMP_NO_FLOW, 0),
        (Hook.TO_NETDEV, LOCAL_POD, 0, Reason.DROP_UNTRANSLATED, POLICY),
        (Hook.TO_NETDEV, LOCAL_POD, MARK_OVERLAY, Reason.DROP_ICMP_NO_FLOW, 0),
    ],
)
def test_a_covered_error_about_no_flow_is_dropped(
    node: Node, hook: Hook, pod: str, mark: int, reason: Reason, policy: int
) -> None:
    error = refusal(outbound(UDP_NAME, pod, SERVER)).build()
    tunnel = WORKER if hook is Hook.FROM_OVERLAY else None

    assert Outcome(DROP, error, mark) == node.run(hook, error, mark=mark, tunnel=tunnel)
    assert {(reason, OUT, policy): 1} == node.counts()
    assert ({}, {}) == (node.flows(), node.nats())


def test_an_error_about_no_flow_is_not_handed_to_the_stack() -> None:
    error = refusal(outbound(UDP_NAME, REMOTE_POD, SERVER)).build()
    with Node(STACK) as node:
        node.put(gateway_entries())

        assert Outcome(DROP, error, 0) == node.run(
            Hook.FROM_OVERLAY, error, tunnel=WORKER
        )
        assert {(Reason.DROP_ICMP_NO_FLOW, OUT, 0): 1} == node.counts()


def test_a_pod_cannot_speak_of_another_pods_flow(node: Node) -> None:
    request = outbound(UDP_NAME, LOCAL_POD, SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    error = refusal(request).but(source=TUNNELLED_POD).build()

    assert Outcome(DROP, error, 0) == node.run(Hook.FROM_CONTAINER, error)
    assert node.counts()[(Reason.DROP_ICMP_NO_FLOW, OUT, POLICY)] == 1


@pytest.mark.parametrize("setup", [Setup(), STACK], ids=["direct", "stack"])
def test_a_node_cannot_speak_of_another_nodes_flow(setup: Setup) -> None:
    other = IPv4Address("172.18.0.3")
    request = outbound(UDP_NAME, REMOTE_POD, SERVER)
    error = refusal(request).build()
    with Node(setup) as node:
        node.put({**gateway_entries(), NodeKey(other): NodeEntry()})
        node.run(Hook.FROM_OVERLAY, request.build(), tunnel=WORKER)
        outcome = node.run(Hook.FROM_OVERLAY, error, tunnel=other)

        assert Outcome(DROP, error, 0) == outcome
        drops = {r: n for (r, _, _), n in node.counts().items() if r}
        assert {Reason.DROP_ICMP_NO_FLOW: 1} == drops


def test_an_error_about_a_translation_that_is_over_is_dropped(node: Node) -> None:
    request = outbound(UDP_NAME, REMOTE_POD, SERVER)
    node.run(Hook.FROM_OVERLAY, request.build(), tunnel=WORKER)
    node.age(301)
    node.run(Hook.FROM_OVERLAY, refusal(request).build(), tunnel=WORKER)

    assert node.counts()[(Reason.DROP_ICMP_NO_FLOW, OUT, 0)] == 1


def test_a_pods_error_that_may_not_travel_further_is_dropped(node: Node) -> None:
    request = outbound(UDP_NAME, LOCAL_POD, SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    error = refusal(request).but(ttl=1).build()

    assert Outcome(DROP, error, 0) == node.run(Hook.FROM_CONTAINER, error)
    assert node.counts()[(Reason.DROP_TTL_EXCEEDED, OUT, POLICY)] == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quoted_l4": 7}, Reason.DROP_INVALID),
        ({"destination": "203.0.113.10"}, Reason.DROP_INVALID),
        ({"fragment": 1}, Reason.DROP_FRAGMENT),
    ],
    ids=["no-ports", "to-another", "last-fragment"],
)
@pytest.mark.parametrize(
    ("hook", "mark"),
    [(Hook.FROM_CONTAINER, 0), (Hook.FROM_OVERLAY, 0), (Hook.TO_NETDEV, MARK_OVERLAY)],
)
def test_a_covered_error_that_names_no_flow_is_dropped(
    node: Node, hook: Hook, mark: int, changes: dict[str, object], reason: Reason
) -> None:
    pod = REMOTE_POD if hook is Hook.FROM_OVERLAY else LOCAL_POD
    tunnel = WORKER if hook is Hook.FROM_OVERLAY else None
    request = outbound(UDP_NAME, pod, SERVER)
    first = Hook.FROM_CONTAINER if pod is LOCAL_POD else Hook.FROM_OVERLAY
    node.run(first, request.build(), tunnel=tunnel)
    error = refusal(request).but(**changes).build()

    assert Outcome(DROP, error, mark) == node.run(hook, error, mark=mark, tunnel=tunnel)
    assert 1 == sum(n for (r, _, _), n in node.counts().items() if r is reason)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pods_error_cut_anywhere_never_leaves_untranslated(
    node: Node, protocol: str
) -> None:
    request = outbound(protocol, LOCAL_POD, SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    state = (node.flows(), node.nats())
    error = refusal(request).but(quoted_l4=None)
    whole = error.build()
    for size in range(ETHERNET + IPV4, len(whole)):
        outcome = node.run(Hook.FROM_CONTAINER, whole[:size])
        readable = size >= ETHERNET + IPV4 + ICMP + IPV4 + 8
        assert (REDIRECT if readable else DROP) == outcome.verdict
        if readable:
            assert IPv4Address(HERE).packed == outcome.packet[26:30]
    for l4 in range(-IPV4, len(whole) - ETHERNET - IPV4 - ICMP - IPV4):
        short = error.but(quoted_l4=l4).build()
        expected = translated(error.but(quoted_l4=l4), request)
        right = expected.build() if l4 >= 8 else short
        assert right == node.run(Hook.FROM_CONTAINER, short).packet
    assert state == (node.flows(), node.nats())


def test_an_error_about_an_error_is_dropped(node: Node) -> None:
    """RFC 1122, 3.2.2: there must be none."""
    echo = outbound(ECHO_NAME, LOCAL_POD, SERVER)
    node.run(Hook.FROM_CONTAINER, echo.build())
    frame = bytearray(refusal(echo).build())
    frame[ETHERNET + IPV4 + ICMP + IPV4] = 3

    assert DROP == node.run(Hook.FROM_CONTAINER, bytes(frame)).verdict
    assert node.counts()[(Reason.DROP_UNSUPPORTED_ICMP, OUT, POLICY)] == 1
