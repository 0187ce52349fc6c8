"""One node, agent after agent, over a kernel that sees whether rounds do no harm."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

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
    EndpointEntry,
    EndpointKey,
    InterfaceIndex,
    Key,
    Network,
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
from property.histories import ME, Change
from property.worlds import (
    TUNNEL,
    facts_of,
)

SECONDS_BETWEEN_ROUNDS = 40.0
"""So every failed entry is due again in each round."""

FULL = KernelError("write", 28)


@dataclass(frozen=True)
class Refusal:
    """Each Put of *key* fails from now on; with None, none does."""

    key: Key | PolicyKey
    error: KernelError | None = FULL


@dataclass(frozen=True)
class Loss:
    """Somebody else removes *key*."""

    key: Key


Event = str | tuple[str, int] | Refusal | Loss | Change


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

    def bury(self, number: int) -> None:
        """Let a pod without labels have the addresses of one of this node."""
        found = [k for k, v in self.objects.items() if _is_own_pod(v)]
        if not found:
            return
        place = found[number % len(found)]
        former = self.objects.pop(place)
        assert isinstance(former, Endpoint)
        name = former.name + "x"
        heir = replace(former, name=name, labels={}, incarnation=former.incarnation + 1)
        self.objects["pods", f"{heir.namespace}/{heir.name}"] = heir

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


def _is_own_pod(value: object) -> bool:
    return isinstance(value, Endpoint) and value.node == ME


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
        before = dict(self.kernel.entries)
        done = await self.loop.reconcile()
        wanted, held = self.desired.last.snapshot, self.kernel.entries

        assert done.error is None
        for key, value in held.items():
            if isinstance(key, EndpointKey) and wanted.get(key) == value:
                rows = RowsKey(key.address)
                assert _items(wanted.get(rows)) <= _items(held.get(rows))
        self._check_heirs(before)
        return done

    def _check_heirs(self, before: Snapshot) -> None:
        """See that no pod has rows of a former one with its address."""
        wanted, held = self.desired.last.snapshot, self.kernel.entries
        kept = self.desired.compiled.engine.kept_policies
        for key, value in held.items():
            if not isinstance(key, EndpointKey) or not isinstance(value, EndpointEntry):
                continue
            former = before.get(key)
            if isinstance(former, EndpointEntry) and former.owner == value.owner:
                continue
            rows = RowsKey(key.address)
            left = {
                d for d, entry in _items(held.get(rows)) if entry.policy not in kept
            }
            assert left <= {d for d, _ in _items(wanted.get(rows))}, "it inherits"

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
            case Refusal(key, error):
                self.kernel.refuse(key, error)
            case Loss(key):
                self.kernel.meddle(key, None)
            case ("heir", int(number)):
                self.source.bury(number)
            case (str(kind), str(key), value):
                self.source.objects[kind, key] = value


def _facts(number: int) -> NodeFacts:
    """Return what a node observes, its tunnel device among it."""
    facts = facts_of(number)
    tunnel = Link(TUNNEL.name, InterfaceIndex(9), kind="vxlan")
    return replace(facts, links=(*facts.links, tunnel))


def _items(value: Value | None) -> Set[tuple[Network, PolicyEntry]]:
    return value.items() if isinstance(value, RowSet) else set()


def without(kept: Set[PolicyId], value: Value) -> Value | None:
    """Return *value* without what is of *kept* policies, None for nothing."""
    if isinstance(value, RowSet):
        left = {n: entry for n, entry in value.items() if entry.policy not in kept}
        return RowSet(left) if left else None
    if isinstance(value, CoveredEntry) and value.policy in kept:
        return None
    return value
