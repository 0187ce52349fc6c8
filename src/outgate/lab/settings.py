"""
What a lab was asked to be, and where its files are.

What this is: the settings that ``lab up`` takes and the lab's processes share (one
JSON file), and the names of every file and folder of a lab.
What this is not: state of processes; that is ``process``.

Everything of one lab lives in one folder, so that ``down`` can remove it whole.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from outgate.lab.errors import LabError
from outgate.policy.xdp import GatewayHook

LOOPBACK = "127.0.0.1"
BASE = Path("/run/outgate/lab")
DEFAULT_NAME = "outgate"
NAME_PATTERN = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


class PodNetwork(StrEnum):
    """The reference CNI plugin that cables the pods."""

    PTP = "ptp"
    BRIDGE = "bridge"


class IpFamily(StrEnum):
    """Which addresses everything in the lab has; ``dual`` is IPv4 first."""

    IPV4 = "ipv4"
    DUAL = "dual"
    IPV6 = "ipv6"


class GatewayPath(StrEnum):
    """How the agents' gateways send on what came through the tunnel."""

    DIRECT = "direct"
    STACK = "stack"


IPV6_MIN_MTU = 1280
"""RFC 8200, section 5."""

POD_MTU = {IpFamily.IPV4: 1450, IpFamily.DUAL: 1450, IpFamily.IPV6: 1430}
"""What fits the nodes' 1500 less the tunnel's 50 bytes, or 70 between IPv6 nodes."""


@dataclass(frozen=True, slots=True)
class LabSettings:
    """
    One lab.

    Units: *mtu* in bytes; None lets the tunnel fit.
    *port* is the API's port on loopback; 0 lets the lab choose one and keep it.
    """

    name: str = DEFAULT_NAME
    ip_family: IpFamily = IpFamily.IPV4
    network: PodNetwork = PodNetwork.PTP
    gateway_path: GatewayPath = GatewayPath.DIRECT
    gateway_hook: GatewayHook = GatewayHook.AUTO
    mtu: int | None = None
    port: int = 0
    agent_environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not NAME_PATTERN.fullmatch(self.name):
            raise LabError(
                f"--name: {self.name!r} is no lab name; use at most 40 lower case "
                "letters, digits and dashes"
            )
        if self.ip_family is not IpFamily.IPV4 and self.pod_mtu < IPV6_MIN_MTU:
            raise LabError(
                f"--mtu: {self.mtu} is too small for IPv6, which needs {IPV6_MIN_MTU}"
            )
        if self.has_xdp and self.gateway_path is not GatewayPath.DIRECT:
            raise LabError(
                f"--gateway-hook: xdp needs --gateway-path direct, not "
                f"{self.gateway_path}"
            )

    @property
    def has_xdp(self) -> bool:
        """Whether cables must be such that XDP can take packets from them."""
        return self.gateway_hook is GatewayHook.XDP

    @property
    def pod_mtu(self) -> int:
        """The MTU of the pods' interfaces."""
        return POD_MTU[self.ip_family] if self.mtu is None else self.mtu


@dataclass(frozen=True, slots=True)
class ApiAddress:
    """Where the lab's API listens on loopback, whom to trust, and the token it asks."""

    port: int
    token: str
    certificate: str

    @property
    def server(self) -> str:
        return f"https://{LOOPBACK}:{self.port}"


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The files of one lab, by what they are."""

    root: Path

    @classmethod
    def of(cls, name: str, base: Path = BASE) -> "StateFolder":
        return cls(base / name)

    @property
    def lock(self) -> Path:
        return self.root.with_suffix(".lock")

    @property
    def log(self) -> Path:
        return self.root / "lab.log"

    @property
    def settings(self) -> Path:
        return self.root / "settings.json"

    @property
    def api_address(self) -> Path:
        return self.root / "api.json"

    @property
    def certificate(self) -> Path:
        return self.root / "api.crt"

    @property
    def key(self) -> Path:
        return self.root / "api.key"

    @property
    def journal(self) -> Path:
        return self.root / "journal.sqlite"

    @property
    def kubeconfigs(self) -> Path:
        """The users' kubeconfig files that name this lab."""
        return self.root / "kubeconfigs.json"

    @property
    def agent_kubeconfig(self) -> Path:
        return self.root / "agent.kubeconfig"

    @property
    def agent_settings(self) -> Path:
        """The settings file of all agents; who changes it restarts an agent."""
        return self.root / "agent.yaml"

    @property
    def scratch(self) -> Path:
        """The empty folder that new root file systems are mounted on."""
        return self.root / "scratch"

    @property
    def holders(self) -> Path:
        """One file per namespace holder: the hosts of the topology and the wire."""
        return self.root / "holders"

    @property
    def services(self) -> Path:
        """One file per supervised process."""
        return self.root / "services"

    @property
    def networks(self) -> Path:
        """Addresses that the CNI plugin handed out, a folder per node."""
        return self.root / "networks"

    @property
    def pods(self) -> Path:
        """What runs: a folder per pod, named by the pod's uid."""
        return self.root / "pods"
