"""What an agent says of its node: fit or not, and each policy with rows or without."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from outgate.agent.node_report import report_node
from outgate.errors import KernelError
from outgate.policy.engine import Engine
from outgate.policy.model import (
    ClusterChanges,
    EgressPolicy,
    Endpoint,
    GatewayAtAddress,
    Namespace,
    Node,
    Rule,
)
from outgate.policy.reports import NodeReport, PolicyReport
from outgate.policy.selectors import Selector
from outgate.reconcile.status import Ledger
from outgate.state.entries import (
    Key,
    NodeName,
    PolicyId,
    RowsKey,
    Seconds,
    TunnelDevice,
)
from outgate.state.facts import NodeFacts
from outgate.state.plan import diff
from outgate.telemetry.health import Vitals

NODE = NodeName("n1")
GATEWAY, POD = IPv4Address("192.0.2.1"), IPv4Address("10.0.0.7")
KIND = "CiliumEgressNATPolicy"
WELL = Vitals(is_source_listed=True, round_age=1.0)
NOW = Seconds(0.0)
FULL = KernelError("write map cilium_egress_v4", 7, "raise its size", rows=1)


def policy(name: str, created: str) -> EgressPolicy:
    return EgressPolicy(
        kind=KIND,
        name=name,
        uid=f"uid-{name}",
        created=created,
        id=PolicyId(len(name)),
        rules=(Rule(Selector()),),
        destinations=(IPv4Network("203.0.113.0/24"),),
        gateways=(GatewayAtAddress(GATEWAY),),
        generation=2,
    )


@pytest.fixture
def engine() -> Engine:
    engine = Engine(NODE, TunnelDevice("outgate_vx", 4789))
    policies = (policy("old", "2026-01-01T00:00:00Z"), policy("newer", "2026-02-01"))
    changes = ClusterChanges(
        nodes={NODE: Node(NODE, (GATEWAY,))},
        namespaces={"default": Namespace("default")},
        pods={"default/a": Endpoint("default", "a", addresses=(POD,), node=NODE)},
        policies={f"{KIND}/{p.name}": p for p in policies},
    )
    engine.change(changes)
    engine.observe(NodeFacts())
    engine.settle()
    return engine


def report(
    engine: Engine, failures: dict[Key, KernelError], vitals: Vitals = WELL
) -> NodeReport:
    """Return the report after a round in which the kernel refused *failures*."""
    ledger, plan = Ledger(), diff(engine.desired, {})
    ledger.begin(engine.desired, {}, plan, NOW)
    ledger.finish(plan, failures, NOW)
    return report_node(NODE, NodeFacts(), engine, ledger, vitals)


def test_policy_is_programmed_when_the_kernel_has_all_its_rows(engine: Engine) -> None:
    assert report(engine, {}).policies["uid-old"] == PolicyReport(KIND, "old", 2, True)


def test_policy_is_not_programmed_when_the_kernel_refuses_a_row(
    engine: Engine,
) -> None:
    refused = report(engine, {RowsKey(POD): FULL}).policies["uid-old"]

    assert (refused.is_programmed, refused.message) == (False, str(FULL))


def test_policy_is_not_programmed_while_a_round_writes_its_rows(
    engine: Engine,
) -> None:
    ledger, plan = Ledger(), diff(engine.desired, {})
    ledger.begin(engine.desired, {}, plan, NOW)
    found = report_node(NODE, NodeFacts(), engine, ledger, WELL)

    assert not found.policies["uid-old"].is_programmed


def test_policy_that_another_one_beats_says_to_which(engine: Engine) -> None:
    assert report(engine, {}).policies["uid-newer"].message == (
        f"for some pods 203.0.113.0/24 belongs to {KIND} old, because older policies"
        " come first, then by name"
    )


def test_row_that_the_kernel_refuses_makes_the_node_no_less_ready(
    engine: Engine,
) -> None:
    vitals = Vitals(is_source_listed=True, round_age=1.0, failed_entries=1)

    assert report(engine, {RowsKey(POD): FULL}, vitals).is_ready


def test_node_whose_rounds_fail_is_not_ready_and_says_why(engine: Engine) -> None:
    vitals = Vitals(is_source_listed=True, round_age=1.0, round_error="no netlink")
    found = report(engine, {}, vitals)

    assert (found.is_ready, found.message) == (
        False,
        "the last round failed: no netlink",
    )
