"""Which uplinks get the XDP program, why others do not, and what is told of it."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from outgate.policy.compile import compile_node, compile_unlisted
from outgate.policy.engine import Engine
from outgate.policy.model import (
    Cluster,
    ClusterChanges,
    EgressPolicy,
    GatewayAtAddress,
    Node,
    Rule,
)
from outgate.policy.selectors import Selector
from outgate.policy.xdp import GatewayHook, UplinkState, XdpRule, uplink_states
from outgate.state.entries import (
    HOST,
    Attachment,
    AttachmentKey,
    Hook,
    InterfaceIndex,
    IpcacheEntry,
    IpcacheKey,
    Key,
    NodeName,
    PolicyId,
    TunnelDevice,
    Value,
)
from outgate.state.facts import Link, NodeFacts, XdpFeature, XdpProgram

HERE = NodeName("here")
ADDRESS = IPv4Address("192.0.2.1")
TUNNEL = TunnelDevice("outgate_vx", 4789)
ABLE = XdpFeature.BASIC | XdpFeature.REDIRECT
CARD = Link(
    "eth0", InterfaceIndex(2), addresses=(ADDRESS,), xdp_features=ABLE | XdpFeature.SEND
)
ON_UPLINK = AttachmentKey("eth0", Hook.XDP_NETDEV)
POLICY = EgressPolicy(
    kind="CiliumEgressNATPolicy",
    name="p",
    uid="p",
    created="",
    id=PolicyId(7),
    rules=(Rule(Selector()),),
    destinations=(IPv4Network("203.0.113.0/24"),),
    gateways=(GatewayAtAddress(ADDRESS),),
)
NODES = ClusterChanges(nodes={HERE: Node(HERE, internal_addresses=(ADDRESS,))})
A_POLICY = ClusterChanges(policies={"p": POLICY})

AUTO, XDP, TC = GatewayHook.AUTO, GatewayHook.XDP, GatewayHook.TC

FOREIGN = "an XDP program of somebody else is there"
WITHOUT_DRIVER = "its driver has no native XDP"
CARD_IN_USE = replace(CARD, xdp_program=XdpProgram.OURS)
VETH = replace(CARD, kind="veth")

TABLE = [
    (AUTO, True, CARD, ""),
    (AUTO, True, replace(CARD, xdp_features=ABLE), ""),
    (AUTO, False, CARD, "no pod leaves through this node"),
    (AUTO, False, CARD_IN_USE, ""),
    (
        AUTO,
        False,
        replace(CARD, xdp_program=XdpProgram.FORMER),
        "no pod leaves through this node",
    ),
    (AUTO, True, replace(CARD, xdp_program=XdpProgram.FOREIGN), FOREIGN),
    (AUTO, True, VETH, "it is no network card but a veth"),
    (AUTO, True, replace(CARD, kind="bond"), "it is no network card but a bond"),
    (
        AUTO,
        True,
        replace(CARD, has_vlans=True),
        "VLAN devices stand on it, and a card may hide their tags from XDP",
    ),
    (
        AUTO,
        True,
        replace(CARD, xdp_features=None),
        "the kernel does not tell what its driver can (Linux 6.3 does)",
    ),
    (AUTO, True, replace(CARD, xdp_features=XdpFeature(0)), WITHOUT_DRIVER),
    (AUTO, True, replace(CARD, xdp_features=XdpFeature.BASIC), WITHOUT_DRIVER),
    (XDP, False, CARD, ""),
    (XDP, False, VETH, ""),
    (XDP, False, replace(CARD, has_vlans=True), ""),
    (XDP, False, replace(CARD, xdp_features=None), ""),
    (XDP, False, replace(CARD, xdp_features=XdpFeature(0)), WITHOUT_DRIVER),
    (XDP, True, replace(CARD, xdp_program=XdpProgram.FOREIGN), FOREIGN),
    (TC, True, CARD, "the agent's settings leave everything to tc"),
    (TC, True, CARD_IN_USE, "the agent's settings leave everything to tc"),
]


@pytest.mark.parametrize(("setting", "is_gateway", "link", "reason"), TABLE)
def test_each_uplink_has_xdp_or_the_first_reason_why_not(
    setting: GatewayHook, is_gateway: bool, link: Link, reason: str
) -> None:
    assert XdpRule(setting, is_gateway).why_not(link) == reason


def facts_of(*links: Link) -> NodeFacts:
    return NodeFacts(links, "eth0")


def engine_of(hook: GatewayHook, link: Link = CARD) -> Engine:
    engine = Engine(HERE, TUNNEL, hook)
    engine.change(NODES)
    engine.observe(facts_of(link))
    engine.settle()
    return engine


def test_a_node_that_becomes_a_gateway_gets_xdp() -> None:
    engine = engine_of(AUTO)
    before = ON_UPLINK in engine.desired
    engine.change(A_POLICY)
    touched = engine.settle()

    assert not before
    assert engine.desired[ON_UPLINK] is Attachment.CURRENT
    assert ON_UPLINK in touched


def test_a_node_that_ceases_to_be_a_gateway_keeps_what_it_attached() -> None:
    engine = engine_of(AUTO)
    engine.change(A_POLICY)
    engine.settle()
    engine.observe(facts_of(CARD_IN_USE))
    engine.settle()
    engine.change(ClusterChanges(policies={"p": None}))
    engine.settle()

    assert engine.desired[ON_UPLINK] is Attachment.CURRENT


def test_a_new_agent_on_a_node_that_is_no_gateway_lets_go_of_xdp() -> None:
    former = replace(CARD, xdp_program=XdpProgram.FORMER)

    assert ON_UPLINK not in engine_of(AUTO, former).desired


def test_pod_veths_have_no_xdp() -> None:
    pod = Link(
        "vethpod",
        InterfaceIndex(3),
        "veth",
        peer_elsewhere=True,
        xdp_features=CARD.xdp_features,
    )
    engine = engine_of(XDP)
    engine.observe(facts_of(CARD, pod))
    engine.settle()

    found = [k for k in engine.desired if getattr(k, "hook", 0) is Hook.XDP_NETDEV]
    assert found == [ON_UPLINK]


def test_uplinks_without_features_keep_tc_by_default() -> None:
    """Facts that users write for `outgate policy plan` tell nothing of drivers."""
    cluster = Cluster((Node(HERE, internal_addresses=(ADDRESS,)),), policies=(POLICY,))
    facts = facts_of(replace(CARD, xdp_features=None))

    assert ON_UPLINK not in compile_node(cluster, HERE, facts, TUNNEL).snapshot


def test_before_the_cluster_is_known_xdp_is_left_as_it_is() -> None:
    """What the former agent attached goes on; with its removal waits the plan."""
    held: dict[Key, Value] = {
        IpcacheKey(IPv4Network("192.0.2.1/32")): IpcacheEntry(HOST, None)
    }
    former = replace(CARD, xdp_program=XdpProgram.FORMER)
    snapshot = compile_unlisted(held, facts_of(former), TUNNEL).snapshot

    assert AttachmentKey("eth0", Hook.FROM_NETDEV) in snapshot
    assert ON_UPLINK not in snapshot


def test_asking_for_xdp_in_vain_is_a_problem_that_names_the_mend() -> None:
    unable = replace(CARD, xdp_features=XdpFeature(0))
    (problem,) = engine_of(XDP, unable).problems

    assert (problem.object, problem.path) == ("Node here", "gateway-hook")
    assert problem.message.startswith("eth0 has no XDP: its driver has no native XDP;")
    assert "set gateway-hook to auto or tc" in problem.message


@pytest.mark.parametrize("hook", [AUTO, TC])
def test_keeping_tc_is_no_problem_where_nobody_asked_for_xdp(hook: GatewayHook) -> None:
    assert engine_of(hook, replace(CARD, xdp_features=XdpFeature(0))).problems == ()


def states_of(facts: NodeFacts, **errors: str) -> list[UplinkState]:
    rule = XdpRule(XDP)
    return list(uplink_states(facts, facts.links, rule, errors))


def test_states_say_which_hook_works() -> None:
    unable = replace(CARD, name="eth1", xdp_features=XdpFeature(0))

    assert states_of(facts_of(CARD_IN_USE, unable)) == [
        UplinkState("eth0", XDP),
        UplinkState("eth1", TC, WITHOUT_DRIVER),
    ]


def test_states_say_why_attaching_failed() -> None:
    assert states_of(facts_of(CARD), eth0="attach: no") == [
        UplinkState("eth0", TC, "attach: no")
    ]
    assert states_of(facts_of(CARD)) == [UplinkState("eth0", TC, "not attached yet")]


def test_states_say_that_xdp_cannot_send() -> None:
    (state,) = states_of(facts_of(replace(VETH_IN_USE, xdp_features=ABLE)))

    assert state.hook is XDP
    assert "ethtool -K PEER gro on" in state.reason


VETH_IN_USE = replace(CARD_IN_USE, kind="veth")
SECOND = replace(CARD_IN_USE, name="eth1", index=InterfaceIndex(3))


@pytest.mark.parametrize(
    ("links", "senders"),
    [
        pytest.param([CARD_IN_USE], ["eth0"], id="it can"),
        pytest.param([CARD], [], id="no program yet"),
        pytest.param(
            [replace(CARD, xdp_program=XdpProgram.FOREIGN)], [], id="foreign program"
        ),
        pytest.param(
            [replace(CARD, xdp_program=XdpProgram.FORMER)], ["eth0"], id="former agent"
        ),
        pytest.param([replace(CARD_IN_USE, is_up=False)], [], id="down"),
        pytest.param(
            [replace(CARD_IN_USE, xdp_features=ABLE)], ["eth0"], id="back where it came"
        ),
        pytest.param(
            [replace(CARD_IN_USE, xdp_features=None)], ["eth0"], id="alone and unknown"
        ),
        pytest.param(
            [replace(CARD_IN_USE, xdp_features=ABLE), SECOND],
            ["eth1"],
            id="others would redirect to it",
        ),
        pytest.param([VETH_IN_USE], ["eth0"], id="veth with NAPI"),
        pytest.param(
            [replace(VETH_IN_USE, xdp_features=ABLE)], [], id="veth without NAPI"
        ),
    ],
)
def test_xdp_sends_out_of_what_takes_it(links: list[Link], senders: list[str]) -> None:
    found = NodeFacts(tuple(links)).xdp_senders

    assert sorted(link.name for link in found) == senders
