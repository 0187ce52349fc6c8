"""
What programs are told: constants from their load on, and what changes while they run.

``struct settings`` and ``struct runtime_config`` of ``bpf/include/types.h``; a test
compares every offset.  Not here: the rows of the other maps (``kernel.maps``).  Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address
from struct import Struct

from outgate.kernel.maps import FLOWS, MapName

_PAIRS = (MapName.SNAT_V4, MapName.SNAT_V6)
_QUEUES = (MapName.GARBAGE_V4, MapName.GARBAGE_V6)

QUEUE_SIZE = 1 << 18
"""Of the garbage queues, as ``maps.h`` has them: one item for each flow."""

SETTINGS = Struct("=I I I I I I H H B B B B H H")
PORT_STRIDE = 2654435761
"""As in ``bpf/include/port_hints.h``."""

CONFIG_KEY = Struct("=I")
CONFIG = Struct("=I H H 6s H 16s")


class GatewayPath(StrEnum):
    """How a gateway sends tunnelled packets on; see DESIGN section 3.1."""

    DIRECT = "direct"
    STACK = "stack"


class ExistingFlows(StrEnum):
    """What flows that began before a policy changed do: stay, or follow it at once."""

    KEEP = "keep"
    REDECIDE = "redecide"


class OtherFamily(StrEnum):
    """What becomes of packets in the family that no policy on their pod names."""

    PASS = "pass"
    DROP = "drop"


class TunnelWay(StrEnum):
    """
    Who adds and removes the tunnel's outer header.

    AUTO: the programs themselves where they can, else the kernel's VXLAN device.
    DEVICE: the device, always.  On the wire there is no difference.
    """

    AUTO = "auto"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class DatapathSettings:
    """
    What programs hold as constants from their load on (``struct settings``).

    Units: ports are in host order and inclusive; jiffies are the running kernel's.
    *tunnel_port* is closed to pods; 0 closes none.
    """

    tunnel_vni: int
    mark_mask: int
    mark_translated: int
    mark_overlay: int
    mark_seen: int
    jiffies_per_second: int
    port_first: int
    port_last: int
    gateway_path: GatewayPath
    existing_flows: ExistingFlows = ExistingFlows.KEEP
    other_family: OtherFamily = OtherFamily.PASS
    tunnel_port: int = 0
    tunnel_way: TunnelWay = TunnelWay.AUTO
    flow_table_size: int | None = None

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return how many entries maps have that differ from their objects'."""
        if self.flow_table_size is None:
            return {}
        flows: dict[str, int] = dict.fromkeys(FLOWS.values(), self.flow_table_size)
        # A translated flow has two halves.
        pairs: dict[str, int] = dict.fromkeys(_PAIRS, 2 * self.flow_table_size)
        # Else the flows that the queue has no room for would not be collected.
        items = max(self.flow_table_size, QUEUE_SIZE)
        return {**flows, **pairs, **dict.fromkeys(_QUEUES, items)}

    @property
    def port_inverse(self) -> int:
        """Return what undoes a multiplication by ``PORT_STRIDE`` in the range."""
        return pow(PORT_STRIDE, -1, self.port_last - self.port_first + 1)

    def encode(self) -> bytes:
        """Return the bytes of section ``.rodata.settings``."""
        return SETTINGS.pack(
            self.tunnel_vni,
            self.mark_mask,
            self.mark_translated,
            self.mark_overlay,
            self.mark_seen,
            self.jiffies_per_second,
            self.port_first,
            self.port_last,
            list(GatewayPath).index(self.gateway_path),
            list(ExistingFlows).index(self.existing_flows),
            list(OtherFamily).index(self.other_family),
            list(TunnelWay).index(self.tunnel_way),
            self.tunnel_port,
            self.port_inverse,
        )


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """
    What programs read anew with each packet (``struct runtime_config``).

    Shape: *tunnel_mac* is six bytes.  *route_generation* counts up, modulo 2**16,
    whenever a stored next hop, an own address or a node may be out of date;
    *policy_generation* likewise, whenever a policy row changed.  *tunnel_source* is
    the source of IPv6 outer headers; for None the kernel chooses.

    Units: *tunnel_mtu* is in bytes, the largest IP packet that fits the tunnel; 0 is
    not known, and then nothing is held to it.
    """

    tunnel_ifindex: int = 0
    route_generation: int = 0
    tunnel_mac: bytes = bytes(6)
    tunnel_mtu: int = 0
    policy_generation: int = 0
    tunnel_source: IPv6Address | None = None

    def encode(self) -> bytes:
        """Return the value of ``outgate_config``."""
        source = self.tunnel_source.packed if self.tunnel_source else bytes(16)
        return CONFIG.pack(
            *(self.tunnel_ifindex, self.route_generation, self.policy_generation),
            *(self.tunnel_mac, self.tunnel_mtu, source),
        )

    @classmethod
    def decode(cls, value: bytes) -> "RuntimeConfig":
        """Return the config in a value of ``outgate_config``."""
        index, routes, policies, mac, mtu, packed = CONFIG.unpack(value)
        source = IPv6Address(packed) if any(packed) else None
        return cls(index, routes, mac, mtu, policies, source)
