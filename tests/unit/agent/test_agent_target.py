"""The desired side over a kernel: addresses that pods have one after the other."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from outgate.policy.model import (
    BadPolicy,
    EgressPolicy,
    Endpoint,
    GatewayAtAddress,
    Namespace,
    Node,
    Problem,
    Rule,
    policy_id,
)
from outgate.policy.selectors import Operator, Requirement, Selector
from outgate.state.entries import (
    CoveredEntry,
    CoveredKey,
    EndpointKey,
    NodeName,
    RowsKey,
)
from property.rounds import World
from property.worlds import NODE_ADDRESSES, NODE_NAMES

ADDRESS = ip_address("10.0.0.7")
ROWS, KNOWN = RowsKey(ADDRESS), EndpointKey(ADDRESS)

SHOP = Selector((Requirement("app", Operator.IN, frozenset({"shop"})),))
POLICY = EgressPolicy(
    kind="CiliumEgressNATPolicy",
    name="shop",
    uid="u1",
    created="2026-06-01T00:00:00Z",
    id=policy_id("u1", "", "", ""),
    rules=(Rule(SHOP),),
    destinations=(ip_network("203.0.113.0/24"),),
    gateways=(GatewayAtAddress(NODE_ADDRESSES[1][0]),),
)
BAD = BadPolicy(
    POLICY.kind,
    POLICY.name,
    POLICY.uid,
    POLICY.id,
    (Problem(POLICY.reference, "spec", "is bad"),),
    POLICY.rules,
)
SHOP_POD = Endpoint(
    namespace="default",
    name="shop",
    uid="a",
    created="",
    addresses=(ADDRESS,),
    labels={"app": "shop"},
    node=NODE_NAMES[0],
    incarnation=1,
)
OTHER_POD = replace(SHOP_POD, name="other", uid="b", labels={}, incarnation=2)
NEXT_SHOP_POD = replace(SHOP_POD, name="shop-2", uid="c", incarnation=3)


def _world() -> World:
    """Return a node with one covered pod, after its first round."""
    world = World()
    world.source.is_listed = True
    hold = world.source.objects
    for name, addresses, third in zip(
        NODE_NAMES, NODE_ADDRESSES, range(3), strict=True
    ):
        network = ip_network(f"10.0.{third}.0/24")
        hold["nodes", name] = Node(
            NodeName(name), addresses[:1], pod_networks=(network,)
        )
    hold["namespaces", "default"] = Namespace("default")
    hold["policies", "CiliumEgressNATPolicy/shop"] = POLICY
    hold["pods", "default/shop"] = SHOP_POD
    asyncio.run(_rounds(world))

    assert ROWS in world.kernel.entries
    return world


async def _rounds(world: World, count: int = 2) -> None:
    for _ in range(count):
        await world.round()


def _bury(world: World, heir: Endpoint) -> None:
    hold = world.source.objects
    del hold["pods", "default/shop"]
    hold["pods", f"default/{heir.name}"] = heir


def test_heir_of_an_address_has_no_rows_while_a_list_is_broken() -> None:
    world = _world()
    world.source.is_broken = True
    _bury(world, OTHER_POD)
    asyncio.run(_rounds(world))

    assert world.kernel.entries[KNOWN] == world.desired.last.snapshot[KNOWN]
    assert ROWS not in world.kernel.entries


def test_late_heir_of_an_address_has_no_rows_while_a_list_is_broken() -> None:
    """Its former pod went a round before, and was kept."""
    world = _world()
    world.source.is_broken = True
    del world.source.objects["pods", "default/shop"]
    asyncio.run(_rounds(world))
    assert ROWS in world.kernel.entries
    world.source.objects["pods", "default/other"] = OTHER_POD
    asyncio.run(_rounds(world))

    assert world.kernel.entries[KNOWN] == world.desired.last.snapshot[KNOWN]
    assert ROWS not in world.kernel.entries


def test_policy_that_never_was_good_makes_no_round_look_at_everything() -> None:
    world = _world()
    never_good = replace(BAD, name="never", uid="u9", id=policy_id("u9", "", "", ""))
    world.source.objects["policies", "CiliumEgressNATPolicy/never"] = never_good
    asyncio.run(_rounds(world))
    world.source.objects["pods", "default/shop-2"] = replace(
        NEXT_SHOP_POD, addresses=(ADDRESS + 1,)
    )
    done = asyncio.run(world.round())
    expected = {RowsKey(ADDRESS + 1), EndpointKey(ADDRESS + 1)}

    assert expected <= world.kernel.entries.keys()
    assert done.touched == len(expected)


def test_rows_of_a_policy_stay_that_is_bad_when_an_agent_comes() -> None:
    world = _world()
    held = world.kernel.entries[ROWS]
    world.source.objects["policies", "CiliumEgressNATPolicy/shop"] = BAD
    world.start_agent()
    world.source.is_listed = True
    asyncio.run(_rounds(world, 3))

    assert world.kernel.entries[ROWS] == held


def _restarted_while_bad(heir: Endpoint) -> World:
    """Return the node after an agent came that knows only a bad version, and *heir*."""
    world = _world()
    world.source.objects["policies", "CiliumEgressNATPolicy/shop"] = BAD
    world.start_agent()
    world.source.is_listed = True
    asyncio.run(_rounds(world))
    _bury(world, heir)
    asyncio.run(_rounds(world))
    return world


def test_heir_of_an_address_has_no_rows_of_a_bad_policy() -> None:
    world = _restarted_while_bad(OTHER_POD)

    assert world.kernel.entries[KNOWN] == world.desired.last.snapshot[KNOWN]
    assert ROWS not in world.kernel.entries


def test_heir_that_a_bad_policy_selects_is_never_known_without_rows() -> None:
    held = _restarted_while_bad(NEXT_SHOP_POD).kernel.entries

    assert KNOWN not in held or ROWS in held


def test_pod_that_a_bad_policy_selects_keeps_its_rows_when_a_container_restarts() -> (
    None
):
    world = _restarted_while_bad(replace(SHOP_POD, incarnation=9))

    assert KNOWN in world.kernel.entries
    assert ROWS in world.kernel.entries


def test_late_heir_of_an_address_has_no_rows_of_a_bad_policy() -> None:
    """Its former pod went a round before; only what it had of the policy was kept."""
    world = _restarted_while_bad(replace(SHOP_POD, addresses=()))
    assert ROWS in world.kernel.entries
    world.source.objects["pods", "default/other"] = OTHER_POD
    asyncio.run(_rounds(world))

    assert KNOWN in world.kernel.entries
    assert ROWS not in world.kernel.entries


def test_pods_asked_for_do_not_change_with_each_answer() -> None:
    """A pod of another node has the address: known, it must not end the question."""
    world = _world()
    hold = world.source.objects
    del hold["nodes", NODE_NAMES[0]]
    far = replace(OTHER_POD, node=NODE_NAMES[1], created="2026-01-01T00:00:00Z")
    hold["pods", "default/other"] = far
    for _ in range(6):
        world.source.list_pods()
        done = asyncio.run(world.round())

        assert done.touched is not None
    assert done.is_complete
    assert done.touched == 0


@pytest.mark.parametrize("created", ["2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"])
def test_networks_of_a_bad_policy_stay_covered_when_another_one_goes(
    created: str,
) -> None:
    """What it selects anew is unknown, and unknown pods drop at covered networks."""
    world = _world()
    hold = world.source.objects
    (network,) = POLICY.destinations
    nobody = Rule(Selector((Requirement("app", Operator.IN, frozenset({"no"})),)))
    other = replace(
        POLICY,
        name="other",
        uid="u2",
        id=policy_id("u2", "", "", ""),
        created=created,
        rules=(nobody,),
    )
    hold["policies", "CiliumEgressNATPolicy/other"] = other
    asyncio.run(_rounds(world))
    hold["policies", "CiliumEgressNATPolicy/shop"] = BAD
    world.start_agent()
    world.source.is_listed = True
    asyncio.run(_rounds(world))
    del hold["policies", "CiliumEgressNATPolicy/other"]
    asyncio.run(_rounds(world))

    assert world.kernel.entries[ROWS]
    assert world.kernel.entries[CoveredKey(network)] == CoveredEntry(POLICY.id)
