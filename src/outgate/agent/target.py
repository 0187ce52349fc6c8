"""
What this node's kernel should hold: the source's cluster, compiled with its facts.

Satisfies ``reconcile.ports.Desired``.  Decides nothing about policies (``policy``
does) and nothing about operations (``reconcile`` does); it knows which entries stay
although they are not wanted: those of bad policies.
"""

from collections.abc import Callable

from outgate.policy.compile import Compiled, compile_node, compile_unlisted
from outgate.policy.doubt import stay_careful
from outgate.policy.model import Cluster
from outgate.reconcile.ports import Target
from outgate.source.interface import Source
from outgate.state.entries import (
    CoveredEntry,
    Excluded,
    Key,
    NodeName,
    NoEgressIP,
    NoGateway,
    PolicyId,
    TunnelDevice,
    Value,
    ViaGateway,
)
from outgate.state.facts import NodeFacts
from outgate.state.snapshot import Snapshot


class CompiledTarget:
    """The desired side of one node; *facts* are read anew in each round."""

    def __init__(
        self,
        source: Source,
        node: NodeName,
        tunnel: TunnelDevice,
        facts: Callable[[], NodeFacts],
    ) -> None:
        self._source = source
        self._node = node
        self._tunnel = tunnel
        self._facts = facts
        self._compiled_from: tuple[Cluster, NodeFacts] | None = None
        self._from_cluster = Compiled(snapshot={})
        self.compiled = self._from_cluster

    @property
    def snapshot(self) -> Snapshot:
        """Return what the last round wanted."""
        return self.compiled.snapshot

    def target(self, actual: Snapshot) -> Target:
        """Return what should be there now; only programs before the first full list."""
        if not self._source.is_listed:
            self.compiled = compile_unlisted(actual, self._facts(), self._tunnel)
            return Target(self.compiled.snapshot, is_complete=False, keep=_keep_none)
        inputs = self._source.cluster, self._facts()
        # Compiling is pure: the same inputs would only give the same again.
        if self._compiled_from is None or not (
            inputs[0] is self._compiled_from[0] and inputs[1] == self._compiled_from[1]
        ):
            self._from_cluster = compile_node(
                inputs[0], self._node, inputs[1], self._tunnel
            )
            self._compiled_from = inputs
        self.compiled = stay_careful(self._from_cluster, actual)
        return Target(
            self.compiled.snapshot,
            self._source.is_complete,
            keep_policies(self.compiled.kept_policies),
        )

    async def wait_changed(self) -> None:
        """Return once the cluster, or its completeness, may have changed."""
        await self._source.wait_changed()


def keep_policies(kept: frozenset[PolicyId]) -> Callable[[Key, Value], bool]:
    """Return a predicate for what belongs to one of the policies *kept*."""

    def keep(key: Key, value: Value) -> bool:
        match value:
            case ViaGateway() | Excluded() | NoGateway() | NoEgressIP():
                return value.policy in kept
            case CoveredEntry(policy):
                return policy in kept
            case _:
                return False

    return keep


def _keep_none(key: Key, value: Value) -> bool:
    return False
