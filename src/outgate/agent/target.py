"""
What this node's kernel should hold: the source's cluster, compiled with its facts.

Satisfies ``reconcile.ports.Desired``.  Decides nothing about policies (``policy``
does) and nothing about operations (``reconcile`` does); it carries changes from the
source to the engine, and knows which entries stay although they are not wanted: those
of bad policies.
"""

from collections.abc import Callable

from outgate.policy.compile import Compiled, compile_unlisted
from outgate.policy.doubt import policies_of, stay_careful
from outgate.policy.engine import Engine
from outgate.policy.model import Problem
from outgate.policy.xdp import GatewayHook
from outgate.reconcile.ports import Target
from outgate.source.interface import Source
from outgate.state.entries import (
    Excluded,
    Key,
    NodeName,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    PolicyId,
    PolicyKey,
    TunnelDevice,
    Value,
    ViaGateway,
)
from outgate.state.facts import NodeFacts
from outgate.state.plan import Keep, is_inherited, keep_none
from outgate.state.snapshot import Snapshot


class CompiledTarget:
    """The desired side of one node; *facts* are read anew in each round."""

    def __init__(
        self,
        source: Source,
        node: NodeName,
        tunnel: TunnelDevice,
        facts: Callable[[], NodeFacts],
        hook: GatewayHook = GatewayHook.AUTO,
    ) -> None:
        self._source = source
        self._tunnel = tunnel
        self._facts = facts
        self._is_whole = True
        self._is_listed = False
        self._kept: frozenset[PolicyId] = frozenset()
        self._in_force: frozenset[PolicyId] = frozenset()
        self._withheld: tuple[Problem, ...] = ()
        self.engine = Engine(node, tunnel, hook)
        self.snapshot: Snapshot = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return what users should know, as of the last round; none before a list."""
        return (*self.engine.problems, *self._withheld) if self._is_listed else ()

    def target(self, actual: Snapshot) -> Target:
        """Return what should be there now; only programs before the first full list."""
        if not self._source.is_listed:
            self._is_whole = True
            unlisted = compile_unlisted(actual, self._facts(), self._tunnel)
            self.snapshot = unlisted.snapshot
            return Target(self.snapshot, is_complete=False, keep=keep_none)
        self._is_listed = True
        engine = self.engine
        engine.change(self._source.take_changes())
        engine.observe(self._facts())
        touched = engine.settle()
        # Before completeness is asked for: pods that are needed from now on have not
        # been listed, and nothing may be removed until they are.
        self._source.need_pods(engine.pod_queries)
        self._note_kept(engine.kept_policies, actual)
        was_whole, self._is_whole = self._is_whole, bool(self._in_force)
        self.snapshot, self._withheld = engine.desired, ()
        if self._in_force:
            self._stay_careful(actual)
        return Target(
            self.snapshot,
            self._source.is_complete,
            self._keep(actual) if self._in_force else keep_none,
            None if was_whole or self._is_whole else touched,
        )

    def _note_kept(self, kept: frozenset[PolicyId], actual: Snapshot) -> None:
        """
        Find which of the policies *kept* the kernel holds anything of.

        The others were never good.  They change nothing, and rounds go on to look at
        what was touched alone: anybody can write a bad policy.
        """
        if kept != self._kept:
            self._kept, self._is_whole = kept, True
            self._in_force = kept & policies_of(actual) if kept else kept

    def _keep(self, actual: Snapshot) -> Keep:
        """Return what keeps rows of policies in force, but not for other pods."""
        engine, kept = self.engine, self._in_force
        with_rules = engine.kept_with_rules
        selected = {(doubt.policy.id, doubt.address) for doubt in engine.doubtful_pods}

        def keep(key: Key | PolicyKey, value: Value | PolicyEntry) -> bool:
            match key, value:
                case PolicyKey(source), (
                    ViaGateway() | Excluded() | NoGateway() | NoEgressIP()
                ) if value.policy in kept:
                    return (
                        value.policy not in with_rules
                        or (value.policy, source) in selected
                        or not is_inherited(source, engine.desired, actual)
                    )
                case _:
                    return False

        return keep

    def _stay_careful(self, actual: Snapshot) -> None:
        engine = self.engine
        compiled = Compiled(
            snapshot=engine.desired,
            kept_policies=engine.kept_policies,
            doubtful_pods=engine.doubtful_pods,
        )
        careful = stay_careful(compiled, actual)
        self.snapshot, self._withheld = careful.snapshot, careful.problems

    async def wait_changed(self) -> None:
        """Return once the cluster, or its completeness, may have changed."""
        await self._source.wait_changed()
