"""
The agent's settings: one frozen value from a file, the environment and flags.

How a setting gets its value is told in ``outgate.settings``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from outgate.errors import ConfigError
from outgate.kernel.hooks import AttachWay
from outgate.kernel.settings import (
    DatapathSettings,
    ExistingFlows,
    GatewayPath,
    OtherFamily,
    TunnelWay,
)
from outgate.policy.xdp import GatewayHook
from outgate.settings import (
    HostPort,
    Setting,
    absolute_path,
    choice,
    host_port,
    number,
    read_settings,
)
from outgate.state.entries import Network, NodeName, TunnelDevice
from outgate.telemetry.logs import LogFormat


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Every setting of one agent; ``SETTINGS`` says what each means."""

    node: NodeName
    kubeconfig: Path | None
    context: str | None
    pin_dir: Path
    tunnel_port: int
    tunnel_vni: int
    tunnel_device: str
    gateway_path: GatewayPath
    gateway_hook: GatewayHook
    existing_flows: ExistingFlows
    other_family: OtherFamily
    tunnel_way: TunnelWay
    attach: AttachWay
    port_first: int
    port_last: int
    flow_table_size: int | None
    mark_mask: int
    mark_translated: int
    mark_overlay: int
    mark_seen: int
    cluster_networks: tuple[Network, ...]
    status_socket: Path
    metrics_address: HostPort | None
    log_format: LogFormat

    @property
    def tunnel(self) -> TunnelDevice:
        """Return the tunnel device as entries name it."""
        return TunnelDevice(self.tunnel_device, self.tunnel_port)

    @property
    def xdp_setting(self) -> GatewayHook:
        """Return ``gateway_hook``, or TC where the other settings rule out XDP."""
        return GatewayHook.TC if self.why_no_xdp else self.gateway_hook

    @property
    def why_no_xdp(self) -> str:
        """Return the setting that leaves XDP nothing to do, and what would be right."""
        if self.gateway_path is not GatewayPath.DIRECT:
            return f"gateway-path direct, not {self.gateway_path}"
        if self.tunnel_way is not TunnelWay.AUTO:
            return f"tunnel-way auto, not {self.tunnel_way}"
        return ""

    def datapath_settings(self, jiffies_per_second: int) -> DatapathSettings:
        """Return what programs are loaded with."""
        return DatapathSettings(
            tunnel_vni=self.tunnel_vni,
            mark_mask=self.mark_mask,
            mark_translated=self.mark_translated,
            mark_overlay=self.mark_overlay,
            mark_seen=self.mark_seen,
            jiffies_per_second=jiffies_per_second,
            port_first=self.port_first,
            port_last=self.port_last,
            gateway_path=self.gateway_path,
            existing_flows=self.existing_flows,
            other_family=self.other_family,
            tunnel_port=self.tunnel_port,
            tunnel_way=self.tunnel_way,
            flow_table_size=self.flow_table_size,
        )


def _interface(text: str) -> str:
    if not re.fullmatch(r"[^\s/:]{1,15}", text) or text in (".", ".."):
        raise ValueError("is no interface name of at most 15 characters")
    return text


def _networks(text: str) -> tuple[Network, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tuple(ip_network(part) for part in parts)
    except ValueError as error:
        raise ValueError(f"is no list of networks: {error}") from None


_port, _mark = number(1, 65535), number(1, 2**32 - 1)

SETTINGS = (
    Setting("node", None, str, "This node's name in the cluster; required."),
    Setting("kubeconfig", None, Path, "Kubeconfig file; else as kubectl does."),
    Setting("context", None, str, "Context of it; else the current one."),
    Setting("pin-dir", "/sys/fs/bpf/outgate", absolute_path, "Where maps are pinned."),
    Setting("tunnel-port", "4789", _port, "UDP port of the VXLAN tunnel."),
    Setting("tunnel-vni", "25959", number(1, 2**24 - 1), "VXLAN network identifier."),
    Setting("tunnel-device", "outgate_vx", _interface, "Name of the tunnel device."),
    Setting(
        "gateway-path",
        "direct",
        choice(GatewayPath),
        "How tunnelled packets leave: direct or stack.",
    ),
    Setting(
        "gateway-hook",
        "auto",
        choice(GatewayHook),
        "Where gateways meet packets first: auto, xdp or tc; see xdp.md.",
    ),
    Setting(
        "existing-flows",
        "keep",
        choice(ExistingFlows),
        "When a policy changes, flows that live: keep or redecide.",
    ),
    Setting(
        "other-family",
        "pass",
        choice(OtherFamily),
        "A covered pod's IP family that no policy on it names: pass or drop.",
    ),
    Setting(
        "tunnel-way",
        "auto",
        choice(TunnelWay),
        "Outer headers: auto (by programs where they can) or device (by the kernel).",
    ),
    Setting(
        "attach",
        "auto",
        choice(AttachWay),
        "How programs meet interfaces: auto, tcx or clsact (Linux before 6.6).",
    ),
    Setting("port-first", "1024", _port, "First port for translated flows."),
    Setting("port-last", "65535", _port, "Last port for translated flows."),
    Setting(
        "flow-table-size",
        None,
        number(1 << 10, 1 << 24),
        "Room for flows, per IP family; 262144 if unset. A change forgets flows.",
    ),
    Setting("mark-mask", "0x70", _mark, "Bits of the packet mark that are ours."),
    Setting("mark-translated", "0x20", _mark, "Mark of translated packets."),
    Setting("mark-overlay", "0x40", _mark, "Mark of packets to be translated."),
    Setting("mark-seen", "0x10", _mark, "Mark of pods' packets that we let pass."),
    Setting("cluster-networks", "", _networks, "Service and pod networks, by commas."),
    Setting("status-socket", "/run/outgate/agent.sock", absolute_path, "Unix socket."),
    Setting("metrics-address", None, host_port, "host:port for metrics, if any."),
    Setting("log-format", "auto", choice(LogFormat), "auto, text or json."),
)
"""The one table of settings: flags, environment, file and documentation follow it."""


def load_config(
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    file: Path | None = None,
) -> AgentConfig:
    """
    Return the settings; *flags* are by setting name, None where not given.

    Errors: ConfigError that names the setting and where its value came from.
    """
    values = read_settings(SETTINGS, flags, environment, file)
    if not values["node"]:
        raise ConfigError("node: not set; give --node or OUTGATE_NODE")
    config = AgentConfig(**values)
    _check_together(config)
    return config


def _check_together(config: AgentConfig) -> None:
    if config.port_first > config.port_last:
        raise ConfigError(
            f"port-first: {config.port_first} is beyond port-last {config.port_last}"
        )
    if config.gateway_hook is GatewayHook.XDP and (needed := config.why_no_xdp):
        raise ConfigError(f"gateway-hook: xdp needs {needed}; choose auto or tc")
    known: dict[int, str] = {}
    for name in ("mark_translated", "mark_overlay", "mark_seen"):
        mark, setting = getattr(config, name), name.replace("_", "-")
        if mark & ~config.mark_mask:
            raise ConfigError(
                f"{setting}: {mark:#x} has bits outside mark-mask {config.mark_mask:#x}"
            )
        if mark in known:
            raise ConfigError(f"{setting}: {mark:#x} is also {known[mark]}")
        known[mark] = setting
