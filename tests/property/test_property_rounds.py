"""Rounds: whatever happens between them, the kernel ends with what is wanted."""

import asyncio
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outgate.agent.target import CompiledTarget
from outgate.errors import KernelError
from outgate.kernel.fake import FakeKernel
from outgate.policy.compile import as_changes
from outgate.policy.model import Cluster, ClusterChanges, Endpoint, PodQuery
from outgate.reconcile.loop import Pace, Reconciler, Round
from outgate.reconcile.ports import Target
from outgate.source.interface import KindStatistics
from outgate.state.entries import (
    Address,
    CoveredEntry,
    CoveredKey,
    EndpointKey,
    InterfaceIndex,
    Key,
    Network,
    NodeKey,
    PolicyEntry,
    PolicyId,
    PolicyKey,
    RowSet,
    RowsKey,
    Value,
)
from outgate.state.facts import Link, NodeFacts
from outgate.state.plan import Operation, Put
from outgate.state.snapshot import Snapshot
from property.histories import ME, Change, change, spoilt
from property.worlds import (
    NETWORKS,
    NODE_ADDRESSES,
    POD_ADDRESSES,
    TUNNEL,
    clusters,
    facts_of,
    policy,
)

SECONDS_BETWEEN_ROUNDS = 40.0
"""So every failed entry is due again in each round."""

FULL = KernelError("write", 28)

Event = str | tuple[str, object] | Change


class FickleSource:
    """A source that can be unlisted, broken, and late with the pods of other nodes."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], object] = {}
        self.is_broken = False
        self.is_listed = True
        self.errors: Mapping[str, str] = {}
        self._told: dict[tuple[str, str], object] = {}
        self._needed: Set[PodQuery] = frozenset()
        self._listed: Set[PodQuery] = frozenset()

    def hold(self, cluster: Cluster) -> None:
        """Have the objects of *cluster*."""
        whole, _ = as_changes(cluster)
        for kind in ("nodes", "namespaces", "pods", "policies", "networks"):
            for key, value in getattr(whole, kind).items():
                self.objects[kind, key] = value

    def begin_anew(self) -> None:
        """Be the source of another agent, which has been told nothing."""
        self._told, self._needed, self._listed = {}, frozenset(), frozenset()
        self.is_listed = False

    def list_pods(self) -> None:
        """Learn the pods that are awaited."""
        self._listed = self._needed

    @property
    def is_complete(self) -> bool:
        return self.is_listed and not self.is_broken and self._needed == self._listed

    def need_pods(self, queries: Set[PodQuery]) -> None:
        self._needed = queries
        if not queries:
            self._listed = queries

    def take_changes(self) -> ClusterChanges:
        now = {k: v for k, v in self.objects.items() if self._is_seen(v)}
        changes = ClusterChanges()
        for kind, key in self._told.keys() | now.keys():
            value = now.get((kind, key))
            if value is not self._told.get((kind, key)):
                getattr(changes, kind)[key] = value
        self._told = now
        return changes

    def _is_seen(self, value: object) -> bool:
        is_ours = not isinstance(value, Endpoint) or value.node == ME
        return value is not None and (is_ours or bool(self._listed))

    def statistics(self) -> tuple[KindStatistics, ...]:
        return ()

    async def wait_changed(self) -> None:
        raise NotImplementedError

    async def run(self) -> None:
        raise NotImplementedError


class WatchedDesired:
    """What the agent wants, remembered for those who watch."""

    def __init__(self, target: CompiledTarget) -> None:
        self.compiled = target
        self.last = Target({}, is_complete=False)

    def target(self, actual: Snapshot) -> Target:
        self.last = self.compiled.target(actual)
        return self.last

    async def wait_changed(self) -> None:
        raise NotImplementedError


class WatchedKernel(FakeKernel):
    """A kernel that compares what it is told to do with what is wanted."""

    desired: WatchedDesired

    async def apply(self, operations: Sequence[Operation]) -> dict[Key, KernelError]:
        wanted = self.desired.last.snapshot
        heirs = {
            operation.key.address
            for operation in operations
            if isinstance(operation, Put) and isinstance(operation.key, EndpointKey)
        }
        for operation in operations:
            if isinstance(operation, Put):
                _check_put(operation, wanted.get(operation.key))
            else:
                self._check_removal(operation.key, wanted, heirs)
        return await super().apply(operations)

    def _check_removal(self, key: Key, wanted: Snapshot, heirs: Set[Address]) -> None:
        is_heir = isinstance(key, EndpointKey) and key.address in heirs
        is_of_heir = isinstance(key, RowsKey) and key.source in heirs

        assert is_heir or key not in wanted
        assert is_heir or is_of_heir or self.desired.last.is_complete


def _check_put(operation: Put, wanted: Value | None) -> None:
    if isinstance(operation.value, RowSet):
        assert _items(wanted) <= _items(operation.value)
    else:
        assert operation.value == wanted


class World:
    """One node, agent after agent."""

    def __init__(self) -> None:
        self.kernel = WatchedKernel(_facts(0))
        self.source = FickleSource()
        self.now = 0.0
        self.start_agent()

    def start_agent(self) -> None:
        """Let another agent take over what is there."""
        kernel = self.kernel
        kernel.restart()
        self.source.begin_anew()
        target = CompiledTarget(self.source, ME, TUNNEL, lambda: kernel.facts)
        kernel.desired = self.desired = WatchedDesired(target)
        pace = Pace(lambda: self.now)
        self.loop = Reconciler(kernel, self.desired, lambda _: None, pace)

    async def round(self) -> Round:
        """Do a round, and see that no pod is known that lacks a row."""
        self.now += SECONDS_BETWEEN_ROUNDS
        done = await self.loop.reconcile()
        wanted, held = self.desired.last.snapshot, self.kernel.entries

        assert done.error is None
        for key, value in held.items():
            if isinstance(key, EndpointKey) and wanted.get(key) == value:
                rows = RowsKey(key.address)
                assert _items(wanted.get(rows)) <= _items(held.get(rows))
        return done

    async def act(self, event: Event) -> None:
        match event:
            case "round":
                await self.round()
            case "restart":
                self.start_agent()
            case "list":
                self.source.is_listed = True
            case "list pods":
                self.source.list_pods()
            case "break" | "mend":
                self.source.is_broken = event == "break"
            case ("facts", int(number)):
                self.kernel.set_facts(_facts(number))
            case ("refuse", key):
                self.kernel.refuse(key, FULL)
            case ("accept", key):
                self.kernel.refuse(key, None)
            case ("lose", key):
                self.kernel.meddle(key, None)
            case (kind, key, value):
                self.source.objects[kind, key] = value


def _facts(number: int) -> NodeFacts:
    """Return what a node observes, its tunnel device among it."""
    facts = facts_of(number)
    tunnel = Link(TUNNEL.name, InterfaceIndex(9), kind="vxlan")
    return replace(facts, links=(*facts.links, tunnel))


def _items(value: Value | None) -> Set[tuple[Network, PolicyEntry]]:
    return value.items() if isinstance(value, RowSet) else set()


keys: st.SearchStrategy[Key | PolicyKey] = st.one_of(
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
    st.tuples(st.sampled_from(("refuse", "accept")), st.one_of(keys, rows)),
    st.tuples(st.just("lose"), keys),
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
        if event[0] == "refuse":
            await world.act(("accept", event[1]))
    await world.act("list")
    await world.act("mend")
    for _ in range(4):
        await world.act("list pods")
        last = await world.round()
    kept = world.desired.compiled.engine.kept_policies
    held = {k: _without(kept, v) for k, v in world.kernel.entries.items()}

    assert last.is_complete
    assert (last.added, last.removed, last.failed) == (0, 0, 0)
    assert {k: v for k, v in held.items() if v} == dict(world.desired.last.snapshot)


def _without(kept: Set[PolicyId], value: Value) -> Value | None:
    """Return *value* without what is of *kept* policies, None for nothing."""
    if isinstance(value, RowSet):
        left = {n: entry for n, entry in value.items() if entry.policy not in kept}
        return RowSet(left) if left else None
    if isinstance(value, CoveredEntry) and value.policy in kept:
        return None
    return value
