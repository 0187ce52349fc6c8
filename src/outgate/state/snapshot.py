"""
A snapshot: every entry of one node, desired or actual alike.

``render`` gives the text form that humans and tests compare, in a stable order:

>>> from ipaddress import IPv4Address, IPv4Network
>>> from outgate.state.entries import PolicyId, RowsKey, RowSet, ViaGateway
>>> gateway = ViaGateway(
...     IPv4Address("198.51.100.4"), IPv4Address("192.0.2.11"), PolicyId(7)
... )
>>> rows = RowSet({IPv4Network("203.0.113.0/24"): gateway})
>>> print(render({RowsKey(IPv4Address("10.0.1.7")): rows}))
policy      10.0.1.7 -> 203.0.113.0/24  via 192.0.2.11 as 198.51.100.4
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import assert_never

from outgate.state.entries import (
    Address,
    Attachment,
    AttachmentKey,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
    Family,
    Hook,
    IpcacheEntry,
    IpcacheKey,
    Key,
    Network,
    NodeEntry,
    NodeKey,
    NoEgressIP,
    NoGateway,
    PolicyEntry,
    PolicyKey,
    RowSet,
    RowsKey,
    TunnelDevice,
    TunnelKey,
    Value,
    ViaGateway,
    family_of,
)

Snapshot = Mapping[Key, Value]


@dataclass(frozen=True, slots=True)
class Observation:
    """
    What is there: *snapshot*, which the kernel side keeps current and nobody else
    writes.  *touched* are the keys that may be others than at the last observation,
    and than operations made them since; None means all of them.
    """

    snapshot: Snapshot
    touched: Collection[Key] | None


KEY_ORDER: tuple[type[Key], ...] = (
    TunnelKey,
    NodeKey,
    IpcacheKey,
    CoveredKey,
    RowsKey,
    EndpointKey,
    AttachmentKey,
)
"""
Kinds of keys, in the order in which entries are put (and, reversed, removed).

Covered networks and rows come before endpoints, so that a pod becomes known only
when its rows are there; until then its packets to covered networks are dropped.
Programs are attached last, when what they read is complete.
"""


ATTACH_ORDER = (
    Hook.XDP_NETDEV,
    Hook.TO_NETDEV,
    Hook.FROM_NETDEV,
    Hook.FROM_OVERLAY,
    Hook.TO_CONTAINER,
    Hook.FORWARD_GUARD,
    Hook.FROM_CONTAINER,
)
"""
Hooks, in the order in which they are attached.

XDP first, which repeats what the others decided: a new program that finds new maps
empty leaves all to those that still have the former ones, never the other way round.
Then the guard at the wire; then the ways back, and the memory of flows that begin
outside; last the hook that captures what pods send, which counts on all of them.  The
guard of the forwarding path drops what that hook did not mark, so it comes just before.
"""

_KIND_NAMES: Mapping[type[Key | PolicyKey], str] = {
    TunnelKey: "tunnel",
    NodeKey: "node",
    IpcacheKey: "ipcache",
    CoveredKey: "covered",
    RowsKey: "policy",
    PolicyKey: "policy",
    EndpointKey: "endpoint",
    AttachmentKey: "attachment",
}

_KIND_RANKS = {kind: rank for rank, kind in enumerate(KEY_ORDER)}
_HOOK_RANKS = {hook: rank for rank, hook in enumerate(ATTACH_ORDER)}


def sort_key(key: Key | PolicyKey) -> tuple[int, int | tuple[int, str]]:
    """Order keys by kind, and those of a kind by ``order_in_kind``."""
    kind = RowsKey if isinstance(key, PolicyKey) else type(key)
    return _KIND_RANKS[kind], order_in_kind(key)


def order_in_kind(key: Key | PolicyKey) -> int | tuple[int, str]:
    """
    Order hooks by rank, others by family, then by value.

    Numbers, because a first round orders a hundred thousand keys, and as many tuples
    would be the most that an agent ever needs at once.
    """
    match key:
        case CoveredKey() | IpcacheKey():
            return _network_order(key.network)
        case NodeKey() | EndpointKey():
            return _address_order(key.address)
        case RowsKey():
            return _address_order(key.source) << _ORDER_BITS
        case PolicyKey():
            destination = _network_order(key.destination)
            return _address_order(key.source) << _ORDER_BITS | destination
        case AttachmentKey():
            return _HOOK_RANKS[key.hook], key.interface
        case TunnelKey():
            return 0


_ORDER_BITS = 138
"""Those of a family, an address and a prefix length; IPv4 comes first."""


def _address_order(address: Address) -> int:
    return int(address) | (address.version == 6) << 128


def _network_order(network: Network) -> int:
    return _address_order(network.network_address) << 8 | network.prefixlen


_SUBJECTS: dict[type[Key], Callable[[Key], Address | Network]] = {
    NodeKey: attrgetter("address"),
    IpcacheKey: attrgetter("network"),
    CoveredKey: attrgetter("network"),
    RowsKey: attrgetter("source"),
    EndpointKey: attrgetter("address"),
}


def key_family(key: Key) -> Family | None:
    """Return the family of what *key* is about, None for links and the tunnel."""
    subject = _SUBJECTS.get(type(key))
    return family_of(subject(key)) if subject else None


def policy_rows(snapshot: Snapshot) -> Iterator[tuple[PolicyKey, PolicyEntry]]:
    """Yield every row of every pod, by source and destination."""
    sources = (key for key in snapshot if isinstance(key, RowsKey))
    for key in sorted(sources, key=sort_key):
        yield from _rows_of(key, snapshot[key])


def _rows_of(key: RowsKey, value: Value) -> Iterator[tuple[PolicyKey, PolicyEntry]]:
    if isinstance(value, RowSet):
        for destination in sorted(value, key=_network_order):
            yield PolicyKey(key.source, destination), value[destination]


def weight(value: Value | None) -> int:
    """Return how many rows *value* stands for: those of a pod are counted singly."""
    if value is None:
        return 0
    # Not isinstance: RowSet is a Mapping, and to ask an abstract class takes long.
    return len(value) if type(value) is RowSet else 1


def render(snapshot: Snapshot) -> str:
    """Return one line per entry, sorted, without a line end after the last."""
    return "\n".join(
        f"{name:<11} {subject}  {render_value(value)}".rstrip()
        for key, value in lines(snapshot)
        for name, subject in [render_key(key)]
    )


def lines(snapshot: Snapshot) -> Iterator[tuple[Key | PolicyKey, Value | PolicyEntry]]:
    """Yield every entry in order, those of rows one by one."""
    for key in sorted(snapshot, key=sort_key):
        if isinstance(key, RowsKey):
            yield from _rows_of(key, snapshot[key])
        else:
            yield key, snapshot[key]


def kind_name(key: Key | PolicyKey) -> str:
    """Return the kind of *key* as a word."""
    return _KIND_NAMES[type(key)]


def render_key(key: Key | PolicyKey) -> tuple[str, str]:
    """Return the kind of *key* as a word, and what it is about."""
    return kind_name(key), _subject(key)


def _subject(key: Key | PolicyKey) -> str:
    match key:
        case TunnelKey():
            return "device"
        case NodeKey() | EndpointKey():
            return str(key.address)
        case IpcacheKey() | CoveredKey():
            return str(key.network)
        case RowsKey():
            return str(key.source)
        case PolicyKey():
            return f"{key.source} -> {key.destination}"
        case AttachmentKey():
            at = f" on {key.interface}" if key.interface else ""
            return f"{key.hook}{at}"
        case _:
            assert_never(key)


def render_value(value: Value | PolicyEntry) -> str:
    """Return *value* as the words that follow its key."""
    match value:
        case TunnelDevice():
            return f"{value.name} port {value.port}"
        case NodeEntry():
            return ""
        case IpcacheEntry():
            at = f" at {value.tunnel_endpoint}" if value.tunnel_endpoint else ""
            return f"identity {value.identity}{at}"
        case CoveredEntry():
            return ""
        case RowSet():
            return f"{len(value)} rows"
        case ViaGateway():
            under = f" as {value.egress_ip}" if value.egress_ip else ""
            return f"via {value.tunnel_endpoint}{under}"
        case Excluded():
            return "excluded"
        case NoGateway():
            return "no gateway"
        case NoEgressIP():
            return f"via {value.tunnel_endpoint}, no egress IP"
        case EndpointEntry():
            role = "host" if EndpointFlag.HOST in value.flags else "pod"
            role += ", egress IP" if value.is_egress_ip else ""
            return role + (", other family" if value.is_other_family else "")
        case Attachment():
            return value.value
        case _:
            assert_never(value)
