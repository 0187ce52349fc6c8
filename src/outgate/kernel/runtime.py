"""
What programs read anew with each packet, written where it changed (``outgate_config``).

The tunnel device, what fits it, and two counters: of routes, own addresses and nodes,
and of policy rows.  A stored next hop, a tunnel source that was believed, or a flow's
decision where ``existing-flows`` says so, is looked at again when its counter moved.
Called by ``kernel.linux``.
"""

from collections.abc import Sequence
from dataclasses import replace

from outgate.kernel.devices import Observed
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.settings import CONFIG_KEY, RuntimeConfig
from outgate.kernel.uplinks import Peers
from outgate.state.entries import InterfaceIndex
from outgate.state.facts import Link

GENERATIONS = 2**16
"""Generations of routes and of policies start anew after so many."""


class Runtime:
    """The one row of the map *config*; errors: KernelError."""

    def __init__(self, config: PinnedMap) -> None:
        self._map = config

    def _read(self) -> RuntimeConfig:
        return RuntimeConfig.decode(self._map.get(CONFIG_KEY.pack(0)))

    def _write(self, before: RuntimeConfig, after: RuntimeConfig) -> None:
        if after != before:
            self._map.put(CONFIG_KEY.pack(0), after.encode())

    def begin_route_generation(self) -> None:
        """Tell the programs that a route, an own address or a node may have changed."""
        config = self._read()
        generation = (config.route_generation + 1) % GENERATIONS
        self._write(config, replace(config, route_generation=generation))

    def begin_policy_generation(self) -> None:
        """Tell the programs that policy rows changed; see ``ExistingFlows``."""
        config = self._read()
        generation = (config.policy_generation + 1) % GENERATIONS
        self._write(config, replace(config, policy_generation=generation))

    def follow_tunnel(self, seen: Observed) -> None:
        """Tell the programs which device the tunnel is; 0 while there is none."""
        config = self._read()
        index = seen.tunnel_index if seen.tunnel else InterfaceIndex(0)
        after = replace(config, tunnel_ifindex=index, tunnel_mac=seen.tunnel_mac)
        self._write(config, after)

    def follow_uplinks(self, peers: Peers, uplinks: Sequence[Link]) -> None:
        """Tell the programs what outer headers look like (``kernel.uplinks``)."""
        config = self._read()
        mtu, source = peers.mtu(uplinks), peers.source(uplinks)
        self._write(config, replace(config, tunnel_mtu=mtu, tunnel_source=source))
