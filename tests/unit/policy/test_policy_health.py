"""One candidate gateway, as its agent's report shows it."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from outgate.policy.health import Candidate, Life, Verdict, assess
from outgate.policy.model import GatewayAtAddress, GatewayOnNodes, Node
from outgate.policy.reports import NodeReport
from outgate.policy.selectors import Selector
from outgate.state.entries import Family, InterfaceIndex, NodeName
from outgate.state.facts import Link, NodeFacts

IP, IP6 = IPv4Address("198.51.100.4"), IPv6Address("2001:db8::4")
NAME = NodeName("g1")
NODE = Node(NAME, (IPv4Address("192.0.2.1"),))
ETH1 = Link("eth1", InterfaceIndex(2), addresses=(IP, IP6), altnames=("enp1s0",))
REPORT = NodeReport(NAME, True, facts=NodeFacts((ETH1,), "eth1", "eth1"))
WELL = Candidate(NODE, REPORT, Life.FRESH)
EVERY = Selector(())
V4, BOTH = frozenset({Family.V4}), frozenset(Family)


def verdict(candidate: Candidate, **gateway: object) -> Verdict:
    return assess(GatewayOnNodes(EVERY, **gateway), V4, candidate)  # type: ignore[arg-type]


def test_candidate_without_a_fault_is_usable() -> None:
    expected = Verdict(True, "Usable", "", (IP, IP6), "eth1")

    assert expected == verdict(WELL)
    assert expected == verdict(WELL, interface="enp1s0")
    assert expected == verdict(WELL, egress_ip=IP)


@pytest.mark.parametrize(
    ("candidate", "reason", "hint"),
    [
        (replace(WELL, node=replace(NODE, is_ready=False)), "NodeNotReady", "g1"),
        (replace(WELL, node=replace(NODE, is_deleted=True)), "NodeDeleted", "g1"),
        (replace(WELL, life=Life.SILENT), "AgentSilent", "silent since 2026"),
        (replace(WELL, report=None, life=Life.SILENT), "AgentMissing", "DaemonSet"),
        (
            replace(WELL, report=replace(REPORT, is_ready=False, message="no round")),
            "AgentNotReady",
            "no round",
        ),
        (
            replace(WELL, report=replace(REPORT, facts=NodeFacts())),
            "NoEgressIP",
            "default route",
        ),
    ],
)
def test_candidate_with_a_fault_is_not(
    candidate: Candidate, reason: str, hint: str
) -> None:
    if candidate.report is not None:
        renewed = "2026-01-02T03:04:05.000000Z"
        report = replace(candidate.report, renew_time=renewed)
        candidate = replace(candidate, report=report)
    found = verdict(candidate)

    assert (False, reason) == (found.is_usable, found.reason)
    assert hint in found.message


@pytest.mark.parametrize(
    "candidate",
    [replace(WELL, life=Life.UNKNOWN), Candidate(NODE, None, Life.UNKNOWN)],
)
def test_candidate_of_which_nothing_is_known_is_neither(candidate: Candidate) -> None:
    found = verdict(candidate)

    assert (None, "NotReported") == (found.is_usable, found.reason)
    assert found.to_health(NAME).is_usable, "agents may choose it"


def test_candidate_is_missing_only_families_that_are_needed() -> None:
    v4_only = replace(REPORT, facts=NodeFacts((replace(ETH1, addresses=(IP,)),)))
    candidate = replace(WELL, report=v4_only)
    gateway = GatewayOnNodes(EVERY, interface="eth1")

    assert assess(gateway, V4, candidate).is_usable
    found = assess(gateway, BOTH, candidate)
    assert {Family.V6} == found.missing
    assert (IP,) == found.egress_ips


def test_gateway_at_an_address_needs_no_other_family() -> None:
    assert assess(GatewayAtAddress(IP), BOTH, WELL).is_usable
    elsewhere = assess(GatewayAtAddress(IPv4Address("198.51.100.5")), V4, WELL)
    assert "NoEgressIP" == elsewhere.reason
    assert "198.51.100.5" in elsewhere.message
