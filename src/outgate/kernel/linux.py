"""
The real kernel of this node: observed and changed through the doors beside this file.

Satisfies ``reconcile.ports.Kernel`` by shape.  Each round reads maps, links and
devices anew; what is remembered of rows saves the decoding of the same bytes.  What
it holds open are the programs that this agent loaded (a link is current when it runs
one of those) and the maps.

Everything acts on the network namespace and the mounts of the calling thread.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from itertools import groupby
from pathlib import Path

from outgate.errors import KernelError
from outgate.kernel import netlink, nft, sysctl
from outgate.kernel.attachments import Attachments
from outgate.kernel.collector import (
    COLLECTORS,
    Collection,
    read_collectors,
    start_collectors,
)
from outgate.kernel.datapath import close_programs, load_pair
from outgate.kernel.guard import guard, withheld_error
from outgate.kernel.hooks import AttachWay
from outgate.kernel.maps import (
    DECODERS,
    MapName,
    decode_entry,
    encode_key,
    encode_value,
)
from outgate.kernel.objects import Pair
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.records import MetricRecord
from outgate.kernel.settings import (
    CONFIG_KEY,
    DatapathSettings,
    GatewayPath,
    RuntimeConfig,
)
from outgate.kernel.takeover import take_over
from outgate.state.entries import (
    FORWARD_GUARD,
    HOST,
    Address,
    AttachmentKey,
    EndpointKey,
    Family,
    Hook,
    InterfaceIndex,
    IpcacheEntry,
    IpcacheKey,
    Key,
    PolicyKey,
    TunnelDevice,
    TunnelKey,
    Value,
    family_of,
)
from outgate.state.facts import Link, NodeFacts
from outgate.state.plan import Operation, Put
from outgate.state.snapshot import Snapshot

TUNNEL_OVERHEAD = {Family.V4: 50, Family.V6: 70}
"""Bytes of outer IP, UDP, VXLAN and inner Ethernet headers (RFC 7348, section 5)."""

STACK_PATH_SECONDS = 30
"""How often nft table and sysctls are put back: others flush rulesets, reset trees."""

GENERATIONS = 2**16
"""Generations of routes and of policies start anew after so many."""

Failures = dict[Key, KernelError]
Entry = tuple[Key, Value]


@dataclass(frozen=True, slots=True)
class KernelConfig:
    """Where pins lie, the tunnel device's name, what programs hold and hang by."""

    pin_dir: Path
    tunnel_name: str
    settings: DatapathSettings
    attach: AttachWay = AttachWay.AUTO


class LinuxKernel:
    """
    The kernel side of one node; ``open`` first, ``run`` beside the reconciler.

    Closing it leaves maps, links and flows in place: traffic goes on.
    """

    def __init__(self, config: KernelConfig) -> None:
        self._config = config
        self._programs: dict[Hook, Pair] = {}
        self._attachments = Attachments(config.pin_dir, config.attach)
        self._maps: dict[MapName, PinnedMap] = {}
        self._decoded: dict[MapName, dict[tuple[bytes, bytes], Entry | None]] = {}
        self._changed = asyncio.Event()
        self._uncollected = ""
        self.facts = NodeFacts()

    async def open(self) -> None:
        """Load the programs, adopt or create the maps; KernelError when refused."""
        pin_dir, settings = self._config.pin_dir, self._config.settings
        self._attachments.choose()
        self._programs = take_over(pin_dir, settings)
        self._uncollected = start_collectors(pin_dir, settings)
        names = set(MapName) - set(COLLECTORS.values())
        self._maps = {name: PinnedMap(pin_dir / name) for name in names}
        await self._apply_firewall()

    def close(self) -> None:
        """Let go of programs and maps, without changing either."""
        for opened in self._maps.values():
            opened.close()
        close_programs(self._programs)
        self._maps, self._programs = {}, {}

    async def run(self) -> None:
        """Follow the kernel's events, for ever; each says no more than look again."""
        # A former agent may have died after it changed rows, before it said so.
        self._begin_policy_generation()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_events())
            if self._config.settings.gateway_path is GatewayPath.STACK:
                tasks.create_task(self._keep_stack_path())

    async def _follow_events(self) -> None:
        async for _ in netlink.watch():
            config = self._runtime_config()
            generation = (config.route_generation + 1) % GENERATIONS
            self._write_config(replace(config, route_generation=generation))
            self._changed.set()

    async def _keep_stack_path(self) -> None:
        while True:
            await asyncio.sleep(STACK_PATH_SECONDS)
            await self._apply_firewall()
            if any(link.name == self._config.tunnel_name for link in self.facts.links):
                sysctl.accept_any_way_back(self._config.tunnel_name)

    async def _apply_firewall(self) -> None:
        settings = self._config.settings
        if settings.gateway_path is GatewayPath.STACK:
            await nft.install_table(settings.mark_mask, settings.mark_overlay)
        else:
            await nft.remove_table()

    async def wait_changed(self) -> None:
        """Return once something changed since the last return."""
        await self._changed.wait()
        self._changed.clear()

    async def observe(self) -> Snapshot:
        """Return what this node's kernel holds now; refreshes ``facts`` too."""
        seen = await netlink.observe(self._config.tunnel_name)
        self.facts = seen.facts
        self._follow_tunnel(seen)
        snapshot: dict[Key, Value] = {}
        if seen.tunnel:
            snapshot[TunnelKey()] = seen.tunnel
        for name in DECODERS:
            snapshot.update(self._observe_map(name))
        snapshot.update(self._observe_attachments())
        self._follow_uplinks(snapshot.items())
        return snapshot

    def _observe_map(self, name: MapName) -> list[Entry]:
        """Return the entries of one map; only rows of new bytes are decoded."""
        known = self._decoded.get(name, {})
        self._decoded[name] = decoded = {
            row: known[row] if row in known else decode_entry(name, *row)
            for row in self._maps[name].rows()
        }
        return [entry for entry in decoded.values() if entry]

    def _observe_attachments(self) -> Snapshot:
        return self._attachments.observe(self._programs, self._indexes())

    def _indexes(self) -> dict[str, InterfaceIndex]:
        """Return interfaces by name; that of the node-wide hook counts as 0."""
        links = {link.name: link.index for link in self.facts.links}
        return {FORWARD_GUARD.interface: InterfaceIndex(0), **links}

    def _runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig.decode(self._maps[MapName.CONFIG].get(CONFIG_KEY.pack(0)))

    def _write_config(self, config: RuntimeConfig) -> None:
        self._maps[MapName.CONFIG].put(CONFIG_KEY.pack(0), config.encode())

    def _follow_tunnel(self, seen: netlink.Observed) -> None:
        """Tell the programs which device the tunnel is; 0 while there is none."""
        config = self._runtime_config()
        index = seen.tunnel_index if seen.tunnel else InterfaceIndex(0)
        wanted = replace(config, tunnel_ifindex=index, tunnel_mac=seen.tunnel_mac)
        if wanted != config:
            self._write_config(wanted)

    def _follow_uplinks(self, seen: Iterable[Entry]) -> None:
        """
        Tell the programs what fits the tunnel, whichever uplink its packets take,
        and which IPv6 address of this node its peers believe.

        *seen* has all attachments and ipcache: the outer headers are those towards
        the farthest nodes.
        """
        uplinks, headers = set(), {TUNNEL_OVERHEAD[Family.V4]}
        own: set[Address] = set()
        for key, value in seen:
            if isinstance(key, AttachmentKey) and key.hook is Hook.TO_NETDEV:
                uplinks.add(key.interface)
            elif isinstance(key, IpcacheKey) and isinstance(value, IpcacheEntry):
                if value.identity == HOST:
                    own.add(key.network.network_address)
                elif value.tunnel_endpoint:
                    headers.add(TUNNEL_OVERHEAD[family_of(value.tunnel_endpoint)])
        links = [link for link in self.facts.links if link.name in uplinks]
        config = self._runtime_config()
        mtu = min((link.mtu for link in links), default=0) - max(headers)
        source = _tunnel_source(own, links)
        wanted = replace(config, tunnel_mtu=max(mtu, 0), tunnel_source=source)
        if wanted != config:
            self._write_config(wanted)

    def _follow_changed_uplinks(self) -> None:
        attachments = self._observe_attachments().items()
        self._follow_uplinks((*attachments, *self._observe_map(MapName.IPCACHE)))

    async def apply(self, operations: Sequence[Operation]) -> Failures:
        """
        Carry out *operations* in order; return the failures by key.

        A failed one does not stop the others, except that a pod is not made known
        while rows of it are missing (``kernel.guard``).
        """
        failures: Failures = {}
        for (is_put, kind), group in groupby(operations, _sort_of):
            batch = list(group)
            if is_put and kind is EndpointKey:
                batch = self._without_incomplete(batch, failures)
            if kind is TunnelKey:
                failures |= await self._apply_tunnel(batch)
            elif kind is AttachmentKey:
                failures |= self._apply_attachments(batch)
            else:
                failures |= self._apply_rows(batch)
            if is_put and kind is PolicyKey:
                failures |= self._apply_rows(guard((), failures)[1])
            if kind is PolicyKey:
                self._begin_policy_generation()
            if kind is IpcacheKey:
                self._follow_changed_uplinks()
        return failures

    def _begin_policy_generation(self) -> None:
        """Tell the programs that policy rows changed; see ``ExistingFlows``."""
        config = self._runtime_config()
        generation = (config.policy_generation + 1) % GENERATIONS
        self._write_config(replace(config, policy_generation=generation))

    def _without_incomplete(
        self, batch: Sequence[Operation], failures: Failures
    ) -> list[Operation]:
        withheld, _ = guard(batch, failures)
        for key in withheld:
            failures[key] = withheld_error(key)
        return [operation for operation in batch if operation.key not in withheld]

    def _apply_rows(self, batch: Sequence[Operation]) -> Failures:
        by_map: dict[MapName, dict[bytes, Operation]] = defaultdict(dict)
        for operation in batch:
            name, raw = encode_key(operation.key)
            by_map[name][raw] = operation
        return {
            rows[raw].key: error
            for name, rows in by_map.items()
            for raw, error in self._change_map(name, rows).items()
        }

    def _change_map(
        self, name: MapName, rows: Mapping[bytes, Operation]
    ) -> dict[bytes, KernelError]:
        """Put the *rows* of one map, or remove them: they are all of one sort."""
        values = {
            raw: encode_value(operation.key, operation.value)
            for raw, operation in rows.items()
            if isinstance(operation, Put)
        }
        if values:
            return self._maps[name].put_many(values)
        return self._maps[name].remove_many(list(rows))

    async def _apply_tunnel(self, batch: Iterable[Operation]) -> Failures:
        failures: Failures = {}
        for operation in batch:
            try:
                await self._change_tunnel(operation)
            except KernelError as error:
                failures[operation.key] = error
        return failures

    async def _change_tunnel(self, operation: Operation) -> None:
        if not isinstance(operation, Put):
            await netlink.remove_tunnel(self._config.tunnel_name)
        elif isinstance(operation.value, TunnelDevice):
            await netlink.create_tunnel(operation.value)
            sysctl.accept_any_way_back(operation.value.name)
        seen = await netlink.observe(self._config.tunnel_name)
        self.facts = seen.facts
        self._follow_tunnel(seen)

    def _apply_attachments(self, batch: Iterable[Operation]) -> Failures:
        indexes = self._indexes()
        failures: Failures = {}
        for operation in batch:
            key = operation.key
            if not isinstance(key, AttachmentKey):
                continue
            try:
                if isinstance(operation, Put):
                    index = indexes.get(key.interface, InterfaceIndex(0))
                    self._attach(key, index)
                else:
                    self._attachments.remove(key)
            except KernelError as error:
                failures[key] = error
        self._follow_changed_uplinks()
        return failures

    def _attach(self, key: AttachmentKey, index: InterfaceIndex) -> None:
        config, hook = self._config, key.hook
        if hook not in self._programs:
            # Left out when the others were loaded: try again, to tell why.
            self._programs[hook] = load_pair(hook, config.pin_dir, config.settings)
        self._attachments.put(key, index, self._programs[hook])

    def metrics(self) -> tuple[MetricRecord, ...]:
        """Return the datapath's counters."""
        rows = self._maps[MapName.METRICS].rows()
        return tuple(MetricRecord.decode(key, value) for key, value in rows)

    def collection(self) -> Collection:
        """Return whether garbage is collected, and how much was."""
        return Collection(self._uncollected, read_collectors(self._config.pin_dir))


def _tunnel_source(own: Set[Address], links: Iterable[Link]) -> IPv6Address | None:
    """Return the lowest IPv6 address of the Node object that an uplink has."""
    found = [
        address
        for link in links
        for address in link.addresses
        if isinstance(address, IPv6Address) and address in own
    ]
    return min(found, default=None)


def _sort_of(operation: Operation) -> tuple[bool, type[Key]]:
    return isinstance(operation, Put), type(operation.key)
