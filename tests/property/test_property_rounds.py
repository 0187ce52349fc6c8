"""Rounds: whatever happens between them, the kernel ends with what is wanted."""

import asyncio
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outgate.policy.model import Cluster
from outgate.state.entries import (
    CoveredKey,
    EndpointKey,
    Key,
    NodeKey,
    PolicyKey,
    RowsKey,
)
from property.histories import Change, change, spoilt
from property.rounds import FULL, Event, Loss, Refusal, World, without
from property.worlds import (
    NETWORKS,
    NODE_ADDRESSES,
    POD_ADDRESSES,
    clusters,
    policy,
)

keys: st.SearchStrategy[Key] = st.one_of(
    st.builds(RowsKey, st.sampled_from(POD_ADDRESSES)),
    st.builds(EndpointKey, st.sampled_from(POD_ADDRESSES)),
    st.builds(CoveredKey, st.sampled_from(NETWORKS)),
    st.builds(NodeKey, st.sampled_from([a for pair in NODE_ADDRESSES for a in pair])),
)
rows = st.builds(
    PolicyKey, st.sampled_from(POD_ADDRESSES), st.sampled_from(NETWORKS)
).filter(lambda key: key.source.version == key.destination.version)


@st.composite
def bad_version(draw: st.DrawFn) -> Change:
    kind = "CiliumEgressGatewayPolicy"
    good = replace(draw(policy(draw(st.integers(0, 2)))), kind=kind)
    return "policies", f"{good.kind}/{good.name}", spoilt(good)


events: st.SearchStrategy[Event] = st.one_of(
    change(),
    change(),
    change(),
    bad_version(),
    st.just("round"),
    st.just("round"),
    st.sampled_from(("round", "restart", "list", "list pods", "break", "mend")),
    st.tuples(st.just("facts"), st.integers(0, 2)),
    st.tuples(st.just("heir"), st.integers(0, 5)),
    st.builds(Refusal, keys | rows, st.sampled_from((FULL, None))),
    st.builds(Loss, keys),
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(clusters(), st.lists(events, min_size=8, max_size=40))
def test_any_history_ends_with_what_is_wanted(
    cluster: Cluster, history: list[Event]
) -> None:
    """Refused writes, meddling, restarts, partial knowledge: all pass."""
    asyncio.run(_live(cluster, history))


async def _live(cluster: Cluster, history: list[Event]) -> None:
    world = World()
    world.source.is_listed = True
    world.source.hold(cluster)
    await world.round()
    for event in history:
        await world.act(event)
    for event in history:
        if isinstance(event, Refusal):
            await world.act(Refusal(event.key, None))
    await world.act("list")
    await world.act("mend")
    for _ in range(4):
        await world.act("list pods")
        last = await world.round()
    kept = world.desired.compiled.engine.kept_policies
    sides = world.kernel.entries, world.desired.last.snapshot
    held, wanted = ({k: without(kept, v) for k, v in side.items()} for side in sides)

    assert last.is_complete
    assert (last.added, last.removed, last.failed) == (0, 0, 0)
    assert {k: v for k, v in held.items() if v} == {
        k: v for k, v in wanted.items() if v
    }
