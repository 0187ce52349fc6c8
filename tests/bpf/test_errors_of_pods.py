"""ICMP errors that pods send: they leave as what they speak of left, or not at all."""

import pytest

from bpf.harness import (
    DROP,
    MARK_OVERLAY,
    MARK_SEEN,
    MARK_TRANSLATED,
    PASS,
    REDIRECT,
    TUNNEL_MAC,
    MakeNode,
    Node,
    Outcome,
    Setup,
    needs_root,
)
from bpf.icmp_errors import ICMP, KINDS, IcmpError
from bpf.packets import (
    ECHO_NAME,
    ETHERNET,
    PROTOCOLS,
    TCP_NAME,
    UDP_NAME,
    Packet,
    outbound,
    source_of,
    source_port_of,
)
from bpf.world import POLICY, World
from outgate.kernel.reasons import Reason
from outgate.kernel.records import MetricDirection
from outgate.kernel.settings import GatewayPath
from outgate.state.entries import Hook

pytestmark = [needs_root, pytest.mark.kernel]

MARKS = {Hook.FROM_CONTAINER: MARK_SEEN, Hook.TO_NETDEV: 0}
"""What a hook leaves on a packet that it lets pass."""

OUT = MetricDirection.TO_WORLD
STACK = Setup(gateway_path=GatewayPath.STACK)


def refusal(request: Packet, kind: str = "port-unreachable") -> IcmpError:
    """Return what the sender of *request* says of the answer."""
    return IcmpError(request.source, request.reply(), kind)


def as_seen(world: World, request: Packet, port: int = 40000) -> Packet:
    """Return *request* as the world saw it."""
    return request.but(source=world.HERE, source_port=port)


def translated(
    world: World, error: IcmpError, request: Packet, port: int = 40000
) -> IcmpError:
    """Return *error*, which answers an answer to *request*, as the world sees it."""
    return error.about(as_seen(world, request, port).reply()).but(
        source=world.HERE, ttl=63
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pods_error_goes_to_the_gateway_of_its_flow(
    node: Node, world: World, kind: str, protocol: str
) -> None:
    request = outbound(protocol, world.TUNNELLED_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    node.age(20)
    flows = node.flows()
    error = refusal(request, kind).build()

    assert Outcome(REDIRECT, error, 0) == node.run(Hook.FROM_CONTAINER, error)
    assert flows == node.flows()
    assert node.counts() == {(Reason.FORWARDED, OUT, POLICY): 2}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_local_pods_error_is_translated(
    node: Node, world: World, kind: str, protocol: str
) -> None:
    request = outbound(protocol, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    node.age(20)
    state = (node.flows(), node.nats())
    error = refusal(request, kind).build()
    expected = refusal(as_seen(world, request), kind).but(ttl=63).build()
    outcome = node.run(Hook.FROM_CONTAINER, error)

    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == outcome
    assert state == (node.flows(), node.nats())


@pytest.mark.parametrize("quoted_l4", [8, 17, 18, None])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_gateway_translates_a_remote_pods_error(
    node: Node, world: World, protocol: str, quoted_l4: int | None
) -> None:
    request = outbound(protocol, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, request.build(), tunnel=world.worker)
    node.age(20)
    state = node.nats()
    error = refusal(request).but(quoted_l4=quoted_l4)
    expected = translated(world, error, request).build()
    outcome = node.run(Hook.FROM_OVERLAY, error.build(), tunnel=world.worker)

    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == outcome
    assert state == node.nats()


def test_a_pods_error_goes_on_after_routes_changed(node: Node, world: World) -> None:
    request = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, request.build(), tunnel=world.worker)
    node.configure()
    error = refusal(request)
    expected = translated(world, error, request).build()
    outcome = node.run(Hook.FROM_OVERLAY, error.build(), tunnel=world.worker)

    assert Outcome(REDIRECT, expected, MARK_TRANSLATED) == outcome


@pytest.mark.parametrize("protocol", [TCP_NAME, UDP_NAME])
def test_a_pods_error_speaks_of_the_port_that_a_collision_gave(
    node: Node, world: World, protocol: str
) -> None:
    node.run(Hook.TO_NETDEV, outbound(protocol, world.HERE, world.SERVER).build())
    request = outbound(protocol, world.LOCAL_POD, world.SERVER)
    sent = node.run(Hook.FROM_CONTAINER, request.build()).packet
    port = source_port_of(sent)
    expected = refusal(as_seen(world, request, port)).but(ttl=63).build()

    assert 40000 != port
    assert expected == node.run(Hook.FROM_CONTAINER, refusal(request).build()).packet


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_local_pods_error_goes_through_the_stack_where_told(
    world: World, make_node: MakeNode, protocol: str
) -> None:
    request = outbound(protocol, world.LOCAL_POD, world.SERVER)
    error, seen = refusal(request), refusal(as_seen(world, request))
    node = make_node(STACK)
    first = node.run(Hook.FROM_CONTAINER, request.build())
    node.run(Hook.TO_NETDEV, request.build(), mark=first.mark)
    marked = node.run(Hook.FROM_CONTAINER, error.build())
    routed = error.but(ttl=63).build()
    sent = node.run(Hook.TO_NETDEV, routed, mark=MARK_OVERLAY)

    assert Outcome(PASS, error.build(), MARK_OVERLAY) == marked
    assert Outcome(PASS, seen.but(ttl=63).build(), MARK_TRANSLATED) == sent


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_remote_pods_error_goes_through_the_stack_where_told(
    world: World, make_node: MakeNode, protocol: str
) -> None:
    request = outbound(protocol, world.REMOTE_POD, world.SERVER)
    error, seen = refusal(request), refusal(as_seen(world, request))
    mac = TUNNEL_MAC.hex(":")
    handed_over = error.but(source_mac=mac, destination_mac=mac).build()
    node = make_node(STACK)
    node.run(Hook.FROM_OVERLAY, request.build(), tunnel=world.worker)
    node.run(Hook.TO_NETDEV, request.build(), mark=MARK_OVERLAY)
    node.age(20)
    state = (node.flows(), node.nats())
    marked = node.run(Hook.FROM_OVERLAY, error.build(), tunnel=world.worker)
    routed = error.but(ttl=63).build()
    sent = node.run(Hook.TO_NETDEV, routed, mark=MARK_OVERLAY)

    assert Outcome(PASS, handed_over, MARK_OVERLAY) == marked
    assert Outcome(PASS, seen.but(ttl=63).build(), MARK_TRANSLATED) == sent
    assert state == (node.flows(), node.nats())


@pytest.mark.parametrize("hook", [Hook.FROM_CONTAINER, Hook.TO_NETDEV])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_about_a_flow_from_outside_is_left_alone(
    node: Node, world: World, protocol: str, hook: Hook
) -> None:
    request = outbound(protocol, world.SERVER, world.LOCAL_POD)
    node.run(Hook.TO_CONTAINER, request.build())
    error = IcmpError(world.LOCAL_POD, request).build()

    assert Outcome(PASS, error, MARKS[hook]) == node.run(hook, error)


@pytest.mark.parametrize(
    ("pod", "server"),
    [("FREE_POD", "SERVER"), ("LOCAL_POD", "OTHER_SERVER")],
    ids=["no-policy", "uncovered"],
)
@pytest.mark.parametrize("hook", [Hook.FROM_CONTAINER, Hook.TO_NETDEV])
def test_an_error_that_no_policy_covers_is_left_alone(
    node: Node, world: World, hook: Hook, pod: str, server: str
) -> None:
    request = outbound(UDP_NAME, world.address(pod), world.address(server))
    error = refusal(request).build()

    assert Outcome(PASS, error, MARKS[hook]) == node.run(hook, error)
    assert {} == node.counts()


@pytest.mark.parametrize(
    ("hook", "pod", "mark", "reason", "policy"),
    [
        (Hook.FROM_CONTAINER, "LOCAL_POD", 0, Reason.DROP_ICMP_NO_FLOW, POLICY),
        (Hook.FROM_CONTAINER, "TUNNELLED_POD", 0, Reason.DROP_ICMP_NO_FLOW, POLICY),
        (Hook.FROM_CONTAINER, "UNKNOWN_POD", 0, Reason.DROP_UNKNOWN_POD, POLICY),
        (Hook.FROM_OVERLAY, "REMOTE_POD", 0, Reason.DROP_ICMP_NO_FLOW, 0),
        (Hook.TO_NETDEV, "LOCAL_POD", 0, Reason.DROP_UNTRANSLATED, POLICY),
        (Hook.TO_NETDEV, "LOCAL_POD", MARK_OVERLAY, Reason.DROP_ICMP_NO_FLOW, 0),
    ],
)
def test_a_covered_error_about_no_flow_is_dropped(
    node: Node,
    world: World,
    hook: Hook,
    pod: str,
    mark: int,
    reason: Reason,
    policy: int,
) -> None:
    request = outbound(UDP_NAME, world.address(pod), world.SERVER)
    error = refusal(request).build()
    tunnel = world.worker if hook is Hook.FROM_OVERLAY else None

    assert Outcome(DROP, error, mark) == node.run(hook, error, mark=mark, tunnel=tunnel)
    assert {(reason, OUT, policy): 1} == node.counts()
    assert ({}, {}) == (node.flows(), node.nats())


def test_an_error_about_no_flow_is_not_handed_to_the_stack(
    world: World, make_node: MakeNode
) -> None:
    error = refusal(outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)).build()
    node = make_node(STACK)

    assert Outcome(DROP, error, 0) == node.run(
        Hook.FROM_OVERLAY, error, tunnel=world.worker
    )
    assert {(Reason.DROP_ICMP_NO_FLOW, OUT, 0): 1} == node.counts()


def test_a_pod_cannot_speak_of_another_pods_flow(node: Node, world: World) -> None:
    request = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    error = refusal(request).but(source=world.TUNNELLED_POD).build()

    assert Outcome(DROP, error, 0) == node.run(Hook.FROM_CONTAINER, error)
    assert node.counts()[(Reason.DROP_ICMP_NO_FLOW, OUT, POLICY)] == 1


@pytest.mark.parametrize("setup", [Setup(), STACK], ids=["direct", "stack"])
def test_a_node_cannot_speak_of_another_nodes_flow(
    world: World, make_node: MakeNode, setup: Setup
) -> None:
    request = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    error = refusal(request).build()
    node = make_node(setup)
    node.put(world.node_entries(world.THIRD))
    node.run(Hook.FROM_OVERLAY, request.build(), tunnel=world.worker)
    third = world.tunnel_address(world.THIRD)
    outcome = node.run(Hook.FROM_OVERLAY, error, tunnel=third)

    assert Outcome(DROP, error, 0) == outcome
    drops = {r: n for (r, _, _), n in node.counts().items() if r}
    assert {Reason.DROP_ICMP_NO_FLOW: 1} == drops


def test_an_error_about_a_translation_that_is_over_is_dropped(
    node: Node, world: World
) -> None:
    request = outbound(UDP_NAME, world.REMOTE_POD, world.SERVER)
    node.run(Hook.FROM_OVERLAY, request.build(), tunnel=world.worker)
    node.age(301)
    node.run(Hook.FROM_OVERLAY, refusal(request).build(), tunnel=world.worker)

    assert node.counts()[(Reason.DROP_ICMP_NO_FLOW, OUT, 0)] == 1


def test_a_pods_error_that_may_not_travel_further_is_dropped(
    node: Node, world: World
) -> None:
    request = outbound(UDP_NAME, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    error = refusal(request).but(ttl=1).build()

    assert Outcome(DROP, error, 0) == node.run(Hook.FROM_CONTAINER, error)
    assert node.counts()[(Reason.DROP_TTL_EXCEEDED, OUT, POLICY)] == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quoted_l4": 7}, Reason.DROP_INVALID),
        ({"destination": "OTHER_COVERED_SERVER"}, Reason.DROP_INVALID),
        ({"fragment": 1}, Reason.DROP_FRAGMENT),
    ],
    ids=["no-ports", "to-another", "last-fragment"],
)
@pytest.mark.parametrize(
    ("hook", "mark"),
    [(Hook.FROM_CONTAINER, 0), (Hook.FROM_OVERLAY, 0), (Hook.TO_NETDEV, MARK_OVERLAY)],
)
def test_a_covered_error_that_names_no_flow_is_dropped(
    node: Node,
    world: World,
    hook: Hook,
    mark: int,
    changes: dict[str, object],
    reason: Reason,
) -> None:
    pod = world.REMOTE_POD if hook is Hook.FROM_OVERLAY else world.LOCAL_POD
    tunnel = world.worker if hook is Hook.FROM_OVERLAY else None
    request = outbound(UDP_NAME, pod, world.SERVER)
    first = Hook.FROM_CONTAINER if pod is world.LOCAL_POD else Hook.FROM_OVERLAY
    node.run(first, request.build(), tunnel=tunnel)
    error = refusal(request).but(**world.resolve(changes)).build()

    assert Outcome(DROP, error, mark) == node.run(hook, error, mark=mark, tunnel=tunnel)
    assert 1 == sum(n for (r, _, _), n in node.counts().items() if r is reason)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pods_error_cut_anywhere_never_leaves_untranslated(
    node: Node, world: World, protocol: str
) -> None:
    request = outbound(protocol, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, request.build())
    state = (node.flows(), node.nats())
    error = refusal(request).but(quoted_l4=None)
    whole = error.build()
    least = ETHERNET + world.ip_size + ICMP + world.ip_size
    for size in range(ETHERNET + world.ip_size, len(whole)):
        outcome = node.run(Hook.FROM_CONTAINER, whole[:size])
        readable = size >= least + 8
        assert (REDIRECT if readable else DROP) == outcome.verdict
        if readable:
            assert world.HERE == source_of(outcome.packet)
    for l4 in range(-world.ip_size, len(whole) - least):
        short = error.but(quoted_l4=l4).build()
        expected = translated(world, error.but(quoted_l4=l4), request)
        right = expected.build() if l4 >= 8 else short
        assert right == node.run(Hook.FROM_CONTAINER, short).packet
    assert state == (node.flows(), node.nats())


def test_an_error_about_an_error_is_dropped(node: Node, world: World) -> None:
    """RFC 1122, 3.2.2: there must be none."""
    echo = outbound(ECHO_NAME, world.LOCAL_POD, world.SERVER)
    node.run(Hook.FROM_CONTAINER, echo.build())
    frame = bytearray(refusal(echo).build())
    frame[ETHERNET + world.ip_size + ICMP + world.ip_size] = 3

    assert DROP == node.run(Hook.FROM_CONTAINER, bytes(frame)).verdict
    assert node.counts()[(Reason.DROP_UNSUPPORTED_ICMP, OUT, POLICY)] == 1
