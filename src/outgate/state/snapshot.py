"""
A snapshot: every entry of one node, desired or actual alike.

``render`` gives the text form that humans and tests compare, in a stable order:

>>> from ipaddress import IPv4Address, IPv4Network
>>> from outgate.state.entries import PolicyId, PolicyKey, ViaGateway
>>> key = PolicyKey(IPv4Address("10.0.1.7"), IPv4Network("203.0.113.0/24"))
>>> gateway = ViaGateway(
...     IPv4Address("198.51.100.4"), IPv4Address("192.0.2.11"), PolicyId(7)
... )
>>> print(render({key: gateway}))
policy      10.0.1.7 -> 203.0.113.0/24  via 192.0.2.11 as 198.51.100.4
"""

from collections.abc import Mapping
from typing import assert_never

from outgate.state.entries import (
    Attachment,
    AttachmentKey,
    CoveredEntry,
    CoveredKey,
    EndpointEntry,
    EndpointFlag,
    EndpointKey,
    Excluded,
    Hook,
    IpcacheEntry,
    IpcacheKey,
    Key,
    NodeEntry,
    NodeKey,
    NoEgressIP,
    NoGateway,
    PolicyKey,
    TunnelDevice,
    TunnelKey,
    Value,
    ViaGateway,
    key_family,
)

Snapshot = Mapping[Key, Value]


KEY_ORDER: tuple[type[Key], ...] = (
    TunnelKey,
    NodeKey,
    IpcacheKey,
    CoveredKey,
    PolicyKey,
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
    Hook.TO_NETDEV,
    Hook.FROM_NETDEV,
    Hook.FROM_OVERLAY,
    Hook.TO_CONTAINER,
    Hook.FORWARD_GUARD,
    Hook.FROM_CONTAINER,
)
"""
Hooks, in the order in which they are attached.

The guard at the wire first; then the ways back, and the memory of flows that begin
outside; last the hook that captures what pods send, which counts on all of them.  The
guard of the forwarding path drops what that hook did not mark, so it comes just before.
"""

_KIND_RANKS = {kind: rank for rank, kind in enumerate(KEY_ORDER)}
_HOOK_RANKS = {hook: rank for rank, hook in enumerate(ATTACH_ORDER)}


def sort_key(key: Key) -> tuple[int, int, Key]:
    """Order keys by kind, hooks by rank, others by family, then by value."""
    if isinstance(key, AttachmentKey):
        return _KIND_RANKS[AttachmentKey], _HOOK_RANKS[key.hook], key
    return _KIND_RANKS[type(key)], key_family(key) or 0, key


def render(snapshot: Snapshot) -> str:
    """Return one line per entry, sorted, without a line end after the last."""
    return "\n".join(
        f"{name:<11} {subject}  {render_value(snapshot[key])}".rstrip()
        for key in sorted(snapshot, key=sort_key)
        for name, subject in [render_key(key)]
    )


def render_key(key: Key) -> tuple[str, str]:
    """Return the kind of *key* as a word, and what it is about."""
    match key:
        case TunnelKey():
            return "tunnel", "device"
        case NodeKey():
            return "node", str(key.address)
        case IpcacheKey():
            return "ipcache", str(key.network)
        case CoveredKey():
            return "covered", str(key.network)
        case PolicyKey():
            return "policy", f"{key.source} -> {key.destination}"
        case EndpointKey():
            return "endpoint", str(key.address)
        case AttachmentKey():
            at = f" on {key.interface}" if key.interface else ""
            return "attachment", f"{key.hook}{at}"
        case _:
            assert_never(key)


def render_value(value: Value) -> str:
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
        case ViaGateway():
            return f"via {value.tunnel_endpoint} as {value.egress_ip}"
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
