"""
The agent's settings: one frozen value from a file, the environment and flags.

Order: built-in default < YAML file < ``OUTGATE_*`` < flag.  A setting has one name in
kebab case everywhere: ``tunnel-port`` in the file, ``OUTGATE_TUNNEL_PORT``,
``--tunnel-port``.  Every wrong value is a ConfigError that names the setting, the
value and what would be right.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import yaml

from outgate.errors import ConfigError
from outgate.kernel.hooks import AttachWay
from outgate.kernel.settings import (
    DatapathSettings,
    ExistingFlows,
    GatewayPath,
    OtherFamily,
)
from outgate.state.entries import Network, NodeName, TunnelDevice
from outgate.telemetry.logs import LogFormat

Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class HostPort:
    """An address to listen on; an empty *host* is every one, of both IP families."""

    host: str
    port: int


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
    existing_flows: ExistingFlows
    other_family: OtherFamily
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
            flow_table_size=self.flow_table_size,
        )


def _number(first: int, last: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text, 0)
        except ValueError:
            raise ValueError(f"is not a number from {first} to {last}") from None
        if not first <= number <= last:
            raise ValueError(f"is not from {first} to {last}")
        return number

    return parse


def _choice(kind: type[Choice]) -> Callable[[str], Choice]:
    def parse(text: str) -> Choice:
        if text not in list(kind):
            raise ValueError(f"is none of {', '.join(kind)}")
        return kind(text)

    return parse


def _absolute_path(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError("is not an absolute path")
    return Path(text)


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


def _host_port(text: str) -> HostPort:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("is not host:port")
    return HostPort(host.strip("[]"), int(port))


@dataclass(frozen=True, slots=True)
class Setting:
    """*default* is text as users write it; None: unset, and *parse* is not asked."""

    name: str
    default: str | None
    parse: Callable[[str], Any]
    meaning: str

    @property
    def variable(self) -> str:
        """Return the environment variable of the setting."""
        return "OUTGATE_" + self.name.replace("-", "_").upper()


_port, _mark = _number(1, 65535), _number(1, 2**32 - 1)

SETTINGS = (
    Setting("node", None, str, "This node's name in the cluster; required."),
    Setting("kubeconfig", None, Path, "Kubeconfig file; else as kubectl does."),
    Setting("context", None, str, "Context of it; else the current one."),
    Setting("pin-dir", "/sys/fs/bpf/outgate", _absolute_path, "Where maps are pinned."),
    Setting("tunnel-port", "4789", _port, "UDP port of the VXLAN tunnel."),
    Setting("tunnel-vni", "25959", _number(1, 2**24 - 1), "VXLAN network identifier."),
    Setting("tunnel-device", "outgate_vx", _interface, "Name of the tunnel device."),
    Setting(
        "gateway-path",
        "direct",
        _choice(GatewayPath),
        "How tunnelled packets leave: direct or stack.",
    ),
    Setting(
        "existing-flows",
        "keep",
        _choice(ExistingFlows),
        "When a policy changes, flows that live: keep or redecide.",
    ),
    Setting(
        "other-family",
        "pass",
        _choice(OtherFamily),
        "A covered pod's IP family that no policy on it names: pass or drop.",
    ),
    Setting(
        "attach",
        "auto",
        _choice(AttachWay),
        "How programs meet interfaces: auto, tcx or clsact (Linux before 6.6).",
    ),
    Setting("port-first", "1024", _port, "First port for translated flows."),
    Setting("port-last", "65535", _port, "Last port for translated flows."),
    Setting(
        "flow-table-size",
        None,
        _number(1 << 10, 1 << 24),
        "Room for flows, per IP family; 262144 if unset. A change forgets flows.",
    ),
    Setting("mark-mask", "0x70", _mark, "Bits of the packet mark that are ours."),
    Setting("mark-translated", "0x20", _mark, "Mark of translated packets."),
    Setting("mark-overlay", "0x40", _mark, "Mark of packets to be translated."),
    Setting("mark-seen", "0x10", _mark, "Mark of pods' packets that we let pass."),
    Setting("cluster-networks", "", _networks, "Service and pod networks, by commas."),
    Setting("status-socket", "/run/outgate/agent.sock", _absolute_path, "Unix socket."),
    Setting("metrics-address", None, _host_port, "host:port for metrics, if any."),
    Setting("log-format", "auto", _choice(LogFormat), "auto, text or json."),
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
    in_file = _read_file(file) if file else {}
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        text, origin = setting.default, setting.name
        if setting.name in in_file:
            text, origin = in_file[setting.name], f"{file}: {setting.name}"
        if setting.variable in environment:
            text, origin = environment[setting.variable], setting.variable
        flag = flags.get(setting.name)
        if flag is not None:
            text, origin = flag, f"--{setting.name}"
        values[setting.name.replace("-", "_")] = _parse(setting, text, origin)
    if not values["node"]:
        raise ConfigError("node: not set; give --node or OUTGATE_NODE")
    config = AgentConfig(**values)
    _check_together(config)
    return config


def _parse(setting: Setting, text: str | None, origin: str) -> Any:
    if text is None:
        return None
    try:
        return setting.parse(text)
    except ValueError as error:
        raise ConfigError(f"{origin}: '{text}' {error}") from error


def _check_together(config: AgentConfig) -> None:
    if config.port_first > config.port_last:
        raise ConfigError(
            f"port-first: {config.port_first} is beyond port-last {config.port_last}"
        )
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


def _read_file(file: Path) -> dict[str, str]:
    try:
        read = yaml.safe_load(file.read_text())
    except OSError as error:
        raise ConfigError(f"config file {file}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        # PyYAML lets the ValueError of a number like 0x_ through.
        raise ConfigError(f"config file {file}: no YAML: {error}") from error
    if read is not None and not isinstance(read, dict):
        raise ConfigError(f"config file {file}: is not a mapping of settings")
    known = {setting.name for setting in SETTINGS}
    for name, value in (read or {}).items():
        if name not in known:
            raise ConfigError(f"config file {file}: unknown setting '{name}'")
        if isinstance(value, dict):
            raise ConfigError(f"config file {file}: {name}: is not a single value")
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in (read or {}).items()
        if value is not None
    }
