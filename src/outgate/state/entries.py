"""
The entries of one node: what its kernel holds, or should hold.

Each entry is a key and a value, both frozen.  The policy compiler produces them
from the cluster, the kernel side observes them from maps and links, and ``plan``
compares the two.  Nothing here knows bytes (``kernel.maps`` does) or Kubernetes.

An entry is of either IP family, never of both: the two halves of a ``PolicyKey`` are
alike, and so is an egress IP to its key.  Only a tunnel endpoint may differ, because
the outer header is of the family of the nodes' addresses.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, IntFlag, StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NewType

NodeName = NewType("NodeName", str)
Identity = NewType("Identity", int)
InterfaceIndex = NewType("InterfaceIndex", int)
Seconds = NewType("Seconds", float)

PolicyId = NewType("PolicyId", int)
"""A policy as the datapath counts it: 32 bits, derived from its uid, never 0."""


class Family(IntEnum):
    """An IP family, by its version."""

    V4 = 4
    V6 = 6


_FAMILIES = {family.value: family for family in Family}

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def family_of(subject: Address | Network) -> Family:
    """Return the family of an address or a network."""
    return _FAMILIES[subject.version]


WORLD = Identity(2)
"""Everything that is not a part of the cluster."""

HOST = Identity(1)
"""The node itself."""

REMOTE_NODE = Identity(6)
"""Another node of the cluster."""

CLUSTER = Identity(3)
"""An address inside the cluster that is no node: pods and services."""


def _remember_hash(key: object, subject: Address | Network) -> None:
    """
    Set ``_hash`` of a *key* about *subject*.

    A round looks each key up some twenty times, and ``ipaddress`` computes a hash anew
    each time: with 100,000 networks that was a third of a first round.
    """
    object.__setattr__(key, "_hash", hash(subject))


@dataclass(frozen=True, slots=True, order=True)
class TunnelKey:
    """The one tunnel device of a node."""


@dataclass(frozen=True, slots=True)
class TunnelDevice:
    """A collect-metadata VXLAN device; *port* is its UDP port in host order."""

    name: str
    port: int


@dataclass(frozen=True, slots=True, order=True)
class NodeKey:
    """A node address: packets tunnelled from it are believed."""

    address: Address
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _remember_hash(self, self.address)

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """Nothing but presence counts today."""


@dataclass(frozen=True, slots=True, order=True)
class IpcacheKey:
    """A network of addresses with one identity; the longest prefix wins."""

    network: Network
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _remember_hash(self, self.network)

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class IpcacheEntry:
    """*tunnel_endpoint* is the node that holds the network, or None."""

    identity: Identity
    tunnel_endpoint: Address | None


@dataclass(frozen=True, slots=True, order=True)
class CoveredKey:
    """A destination that some policy covers; unknown local sources drop there."""

    network: Network
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _remember_hash(self, self.network)

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class CoveredEntry:
    """*policy* is the first (oldest, then by name) that names the network."""

    policy: PolicyId


@dataclass(frozen=True, slots=True, order=True)
class PolicyKey:
    """
    One pod address talking to one destination network: one row of a map.

    Snapshots hold rows by source (``RowsKey``); this is how one of them is named.
    """

    source: Address
    destination: Network


@dataclass(frozen=True, slots=True, order=True)
class RowsKey:
    """All rows of one pod address; the value is a ``RowSet``."""

    source: Address
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _remember_hash(self, self.source)

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class ViaGateway:
    """
    Leave through *tunnel_endpoint*'s node, under *egress_ip*.

    *egress_ip* is None where only the gateway itself knows it: a node that is not the
    gateway of the row needs none.  *interface* is the one that carries it, as far as
    known; it is told to users and is in no map.
    """

    egress_ip: Address | None
    tunnel_endpoint: Address
    policy: PolicyId
    interface: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Excluded:
    """The policy names the network as excluded: it leaves as if uncovered."""

    policy: PolicyId


@dataclass(frozen=True, slots=True)
class NoGateway:
    """Covered, but no node can be its gateway now: dropped."""

    policy: PolicyId


@dataclass(frozen=True, slots=True)
class NoEgressIP:
    """Covered, but the gateway lacks the egress IP: dropped there."""

    tunnel_endpoint: Address
    policy: PolicyId


PolicyEntry = ViaGateway | Excluded | NoGateway | NoEgressIP


class RowSet(Mapping[Network, PolicyEntry]):
    """
    What happens to one pod address at each destination that policies name.

    Never changed once made, so that one object serves all pods with the same fate: a
    thousand pods of a thousand networks are a thousand references, not a million rows.
    Equal when the rows are; comparing an object with itself costs nothing.
    """

    __slots__ = ("__weakref__", "_hash", "_rows")

    def __init__(self, rows: Mapping[Network, PolicyEntry]) -> None:
        self._rows = dict(rows)
        self._hash: int | None = None

    def __getitem__(self, destination: Network) -> PolicyEntry:
        return self._rows[destination]

    def __iter__(self) -> Iterator[Network]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, RowSet) and self._rows == other._rows

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._rows.items()))
        return self._hash

    def __repr__(self) -> str:
        return f"RowSet({self._rows!r})"


class EndpointFlag(IntFlag):
    """Flags of ``cilium_lxc``; HOST has the value that users' tools know."""

    HOST = 1
    POD = 2


@dataclass(frozen=True, slots=True, order=True)
class EndpointKey:
    """An address that lives on this node."""

    address: Address
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _remember_hash(self, self.address)

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class EndpointEntry:
    """
    A pod is entered only after its policy rows, so a known pod has all of them.

    *is_egress_ip* marks a host address that policies use as egress IP here: the
    ports of the node's own sockets on it are kept apart from those of pods.
    *is_other_family* marks an address of a pod that policies cover in the other IP
    family only: setting ``other-family`` says what becomes of what it sends.
    *is_selected* marks an address of a pod that has rows: what it sends to the cluster
    is looked at again where the host forwards it, since a Service may lead outside.
    *owner* tells the pods apart that have the address one after the other (32 bits):
    a new owner may be behind another interface, the same one is where it was.
    """

    flags: EndpointFlag
    is_egress_ip: bool = False
    is_other_family: bool = False
    is_selected: bool = False
    owner: int = 0


class Hook(StrEnum):
    """The seven places where packets meet the datapath; see bpf/README.md."""

    FROM_CONTAINER = "from_container"
    TO_CONTAINER = "to_container"
    FROM_OVERLAY = "from_overlay"
    TO_NETDEV = "to_netdev"
    FROM_NETDEV = "from_netdev"
    FORWARD_GUARD = "forward_guard"
    XDP_NETDEV = "xdp_netdev"


@dataclass(frozen=True, slots=True, order=True)
class AttachmentKey:
    """A hook on an interface, by its name; it is empty for ``FORWARD_GUARD``."""

    interface: str
    hook: Hook


FORWARD_GUARD = AttachmentKey("", Hook.FORWARD_GUARD)
"""The one attachment that is the whole node's: all that its stack forwards."""


class Attachment(Enum):
    """How a hook is attached, as far as a plan cares."""

    CURRENT = "current"
    """
    For both IP families by links that live, running what this agent loaded.

    An interface has one XDP program: there IPv4's, which calls the one for IPv6.
    """

    STALE = "stale"
    """Otherwise: for one family, by another program, or its interface is gone."""


Key = (
    TunnelKey
    | NodeKey
    | IpcacheKey
    | CoveredKey
    | RowsKey
    | EndpointKey
    | AttachmentKey
)
Value = (
    TunnelDevice
    | NodeEntry
    | IpcacheEntry
    | CoveredEntry
    | RowSet
    | EndpointEntry
    | Attachment
)
