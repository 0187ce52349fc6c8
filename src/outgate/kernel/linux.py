"""
The real kernel of this node: observed and changed through the doors beside this file.

Satisfies ``reconcile.ports.Kernel`` by shape.  All is read once; after that what was
written is remembered (``kernel.held``), and checked against the maps by audits.  Links,
addresses and attachments are looked at again after each event, and with each audit.
What it holds open are the programs that this agent loaded (a link is current when it
runs one of those) and the maps.

Everything acts on the network namespace and the mounts of the calling thread.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from outgate.errors import KernelError
from outgate.kernel import devices, netlink, stackpath, sysctl
from outgate.kernel.attachments import Attachments
from outgate.kernel.audit import PERIOD_SECONDS, ROWS_AT_ONCE, Auditor, Rest, rest
from outgate.kernel.collector import (
    COLLECTORS,
    Collection,
    read_collectors,
    start_collectors,
)
from outgate.kernel.datapath import close_programs, load_pair
from outgate.kernel.entrytable import EntryTables
from outgate.kernel.free import FreeAddresses
from outgate.kernel.guard import guard, withheld_error
from outgate.kernel.held import Held
from outgate.kernel.hooks import AttachWay
from outgate.kernel.maps import COUNTERS, EGRESS, ENTRY_MAPS, MapName
from outgate.kernel.objects import Pair
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.policysets import policy_sets
from outgate.kernel.records import MetricRecord, read_counts
from outgate.kernel.rowtable import RowTable
from outgate.kernel.runtime import Runtime
from outgate.kernel.settings import DatapathSettings
from outgate.kernel.takeover import take_over
from outgate.state.entries import (
    FORWARD_GUARD,
    Attachment,
    AttachmentKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Hook,
    InterfaceIndex,
    IpcacheKey,
    Key,
    NodeKey,
    RowsKey,
    TunnelDevice,
    TunnelKey,
)
from outgate.state.facts import NodeFacts
from outgate.state.plan import Operation, Put, Remove
from outgate.state.snapshot import Observation

Failures = dict[Key, KernelError]


@dataclass(frozen=True, slots=True)
class KernelConfig:
    """
    Where pins lie, the tunnel device's name, what programs hold and hang by.

    Without *is_xdp_used* no XDP program is loaded, and none of ours stays.
    """

    pin_dir: Path
    tunnel_name: str
    settings: DatapathSettings
    attach: AttachWay = AttachWay.AUTO
    is_xdp_used: bool = False

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """Return the hooks whose programs are loaded."""
        unused = () if self.is_xdp_used else (Hook.XDP_NETDEV,)
        return tuple(hook for hook in Hook if hook not in unused)


class LinuxKernel:
    """
    The kernel side of one node; ``open`` first, ``run`` beside the reconciler.

    Closing it leaves maps, links and flows in place: traffic goes on.
    """

    def __init__(self, config: KernelConfig) -> None:
        self._config = config
        self._programs: dict[Hook, Pair] = {}
        self._attachments = Attachments(
            config.pin_dir, config.attach, is_xdp_used=config.is_xdp_used
        )
        self._maps: dict[MapName, PinnedMap] = {}
        self._held = Held()
        self._attached: Mapping[AttachmentKey, Attachment] = {}
        self._writing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._is_followed = False
        self._is_stale = True
        self._uncollected = ""
        self.facts = NodeFacts()

    async def open(self) -> None:
        """Load the programs, adopt or create the maps; KernelError when refused."""
        pin_dir, settings = self._config.pin_dir, self._config.settings
        self._attachments.choose()
        self._programs = take_over(pin_dir, settings, self._config.hooks)
        if Hook.XDP_NETDEV not in self._programs:
            # Unwanted, or refused; a former agent's must not go on by former maps.
            self._attachments.remove_xdp()
        self._uncollected = start_collectors(pin_dir, settings)
        names = set(MapName) - set(COLLECTORS.values())
        self._maps = {name: PinnedMap(pin_dir / name) for name in names}
        self._attachments.use(self._maps)
        egress = {family: self._maps[name] for family, name in EGRESS.items()}
        self._rows = RowTable(egress, policy_sets(self._maps), self._held)
        entries = {name: self._maps[name] for name in ENTRY_MAPS}
        self._entries = EntryTables(entries, self._held)
        self._runtime = Runtime(self._maps[MapName.CONFIG])
        self._free = FreeAddresses(self._maps)
        await stackpath.apply(settings)

    def close(self) -> None:
        """Let go of programs and maps, without changing either."""
        for opened in self._maps.values():
            opened.close()
        close_programs(self._programs)
        self._maps, self._programs = {}, {}

    async def run(self) -> None:
        """Follow the kernel's events, for ever; each says no more than look again."""
        # A former agent may have died after it changed rows, before it said so.
        self._runtime.begin_policy_generation()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_events())
            tasks.create_task(self._audit_regularly())
            tasks.create_task(stackpath.keep(self._config.settings, self._tunnel))

    async def _follow_events(self) -> None:
        try:
            async for _ in netlink.watch():
                self._is_followed = True
                self._runtime.begin_route_generation()
                self._look_again()
        finally:
            self._is_followed = False

    def _look_again(self) -> None:
        self._is_stale = True
        self._changed.set()

    async def _audit_regularly(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            await self.audit()

    async def audit(self, rest: Rest = rest, rows_at_once: int = ROWS_AT_ONCE) -> None:
        """
        Compare everything with the kernel once, without hurry; see ``kernel.audit``.

        What differs is told by the next observation.  Errors: KernelError.
        """
        if self._held.touched is not None:
            auditor = Auditor(self._rows, self._entries, self._held, self._writing)
            await auditor.check(self._changed.set, rest, rows_at_once)
        # No event tells when somebody takes away a pin, or what it holds.
        self._look_again()

    def _tunnel(self) -> str | None:
        """Return the tunnel device's name, None while it is not there."""
        name = self._config.tunnel_name
        return name if any(link.name == name for link in self.facts.links) else None

    async def wait_changed(self) -> None:
        """Return once something changed since the last return."""
        await self._changed.wait()
        self._changed.clear()

    async def observe(self) -> Observation:
        """Return what this node's kernel holds; refreshes ``facts`` too."""
        if self._is_stale or not self._is_followed:
            self._look()
        if self._held.touched is None:
            async with self._writing:
                self._entries.read()
                await self._rows.read()
                await self._free.begin(self._held.entries)
            self._follow_uplinks()
        return Observation(self._held.entries, self._held.take_touched())

    def _look(self) -> None:
        """Look at links, addresses, the tunnel device and what is attached."""
        known = self._attachments.xdp_known(self._programs)
        seen = devices.observe(self._config.tunnel_name, known)
        if seen.facts != self.facts:
            self.facts = seen.facts
        self._attachments.follow_xdp(self.facts)
        self._runtime.follow_tunnel(seen)
        if self._held.entries.get(TunnelKey()) != seen.tunnel:
            self._held.correct(TunnelKey(), seen.tunnel)
        self._look_at_attachments()
        self._is_stale = False

    def _look_at_attachments(self) -> None:
        before = self._attached
        self._attached = self._attachments.observe(self._programs, self._indexes())
        for key in before.keys() | self._attached.keys():
            if self._attached.get(key) != before.get(key):
                self._held.correct(key, self._attached.get(key))
        self._follow_uplinks()

    def _indexes(self) -> dict[str, InterfaceIndex]:
        """Return interfaces by name; that of the node-wide hook counts as 0."""
        found = {link.name: link.index for link in self.facts.links}
        return {FORWARD_GUARD.interface: InterfaceIndex(0), **found}

    def _follow_uplinks(self) -> None:
        names = {key.interface for key in self._attached if key.hook is Hook.TO_NETDEV}
        uplinks = [link for link in self.facts.links if link.name in names]
        self._runtime.follow_uplinks(self._held.peers, uplinks)

    async def apply(self, operations: Sequence[Operation]) -> Failures:
        """
        Carry out *operations* in order; return the failures by key.

        A failed one does not stop the others, except that a pod is not made known
        while rows of it are missing (``kernel.guard``).
        """
        failures: Failures = {}
        async with self._writing:
            for (is_put, kind), group in groupby(operations, _sort_of):
                batch = list(group)
                if is_put and kind is EndpointKey:
                    batch = self._without_incomplete(batch, failures)
                failures |= await self._apply_batch(kind, batch)
        return failures

    async def _apply_batch(
        self, kind: type[Key], batch: Sequence[Operation]
    ) -> Failures:
        if kind is TunnelKey:
            return self._apply_tunnel(batch)
        if kind is AttachmentKey:
            return self._apply_attachments(batch)
        if kind is RowsKey:
            failures = await self._rows.change(
                batch, self._free.take, self._make_unknown
            )
            self._runtime.begin_policy_generation()
            return failures
        is_of_host = kind is EndpointKey and any(map(self._is_of_host, batch))
        failures = self._entries.change(batch)
        is_node_gone = kind is NodeKey and any(isinstance(o, Remove) for o in batch)
        if is_of_host or is_node_gone:
            # Programs remember whose tunnel packets they believe, and to which address,
            # and translations which egress IP is here.
            self._runtime.begin_route_generation()
        if kind is IpcacheKey:
            self._follow_uplinks()
        return failures

    def _is_of_host(self, operation: Operation) -> bool:
        before = self._held.entries.get(operation.key)
        after = operation.value if isinstance(operation, Put) else None
        return any(
            isinstance(value, EndpointEntry) and EndpointFlag.HOST in value.flags
            for value in (before, after)
        )

    def _make_unknown(self, failures: Failures) -> None:
        """Take back pods with a refused row; the next round looks at them again."""
        _, taken_back = guard((), failures)
        self._entries.change(taken_back)
        for operation in taken_back:
            self._held.correct(operation.key, self._held.entries.get(operation.key))

    def _without_incomplete(
        self, batch: Sequence[Operation], failures: Failures
    ) -> list[Operation]:
        withheld, _ = guard(batch, failures)
        for key in withheld:
            failures[key] = withheld_error(key)
        return [operation for operation in batch if operation.key not in withheld]

    def _apply_tunnel(self, batch: Iterable[Operation]) -> Failures:
        failures: Failures = {}
        for operation in batch:
            try:
                self._change_tunnel(operation)
            except KernelError as error:
                failures[operation.key] = error
        return failures

    def _change_tunnel(self, operation: Operation) -> None:
        if not isinstance(operation, Put):
            netlink.remove_tunnel(self._config.tunnel_name)
        elif isinstance(operation.value, TunnelDevice):
            netlink.create_tunnel(operation.value)
            sysctl.accept_any_way_back(operation.value.name)
        self._look()

    def _apply_attachments(self, batch: Sequence[Operation]) -> Failures:
        indexes = self._indexes()
        failures: Failures = {}
        for operation in batch:
            key = operation.key
            if not isinstance(key, AttachmentKey):
                continue
            try:
                index = indexes.get(key.interface, InterfaceIndex(0))
                if isinstance(operation, Put):
                    self._attach(key, index)
                else:
                    self._attachments.remove(key, index)
            except KernelError as error:
                failures[key] = error
        if any(getattr(one.key, "hook", None) is Hook.XDP_NETDEV for one in batch):
            # Who has a program, and what its driver can now, are facts.
            before = self.facts
            self._look()
            if self.facts != before:
                self._changed.set()
        else:
            self._look_at_attachments()
        return failures

    def _attach(self, key: AttachmentKey, index: InterfaceIndex) -> None:
        config, hook = self._config, key.hook
        if hook not in self._programs:
            # Left out when the others were loaded: try again, to tell why.
            self._programs[hook] = load_pair(hook, config.pin_dir, config.settings)
        self._attachments.put(key, index, self._programs[hook])

    def metrics(self) -> tuple[MetricRecord, ...]:
        """Return the datapath's counters."""
        rows, slots = (self._maps[name].rows() for name in COUNTERS)
        return read_counts(rows, slots)

    def collection(self) -> Collection:
        """Return whether garbage is collected, and how much was."""
        return Collection(self._uncollected, read_collectors(self._config.pin_dir))


def _sort_of(operation: Operation) -> tuple[bool, type[Key]]:
    return isinstance(operation, Put), type(operation.key)
