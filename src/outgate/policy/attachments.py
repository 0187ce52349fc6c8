"""
Which hook goes on which interface of a node.

What it is: tables over observed links; that of XDP is ``xdp``.  What it is not: the
attaching.
"""

from collections.abc import Set

from outgate.policy.xdp import XdpRule
from outgate.state.entries import (
    FORWARD_GUARD,
    Address,
    Attachment,
    AttachmentKey,
    Hook,
    Key,
    Value,
)
from outgate.state.facts import Link, NodeFacts

POD_HOOKS = (Hook.FROM_CONTAINER, Hook.TO_CONTAINER)
TUNNEL_HOOKS = (Hook.FROM_OVERLAY,)
UPLINK_HOOKS = (Hook.TO_NETDEV, Hook.FROM_NETDEV)

LOOPBACK = "lo"


def attachment_entries(
    facts: NodeFacts,
    node_addresses: Set[Address],
    tunnel: str,
    xdp: XdpRule | None = None,
) -> dict[Key, Value]:
    """
    Return the attachments for *facts*; the tunnel device counts as there already.

    *node_addresses* are those of the Node object: links that carry one are uplinks.
    Without *xdp* there are none of XDP.
    """
    entries: dict[Key, Value] = {FORWARD_GUARD: Attachment.CURRENT}
    entries |= {
        AttachmentKey(tunnel, hook): Attachment.CURRENT for hook in TUNNEL_HOOKS
    }
    outward = frozenset(uplinks(facts, node_addresses, tunnel))
    for link in facts.links:
        if link.name in (LOOPBACK, tunnel):
            continue
        hooks: tuple[Hook, ...] = ()
        if link in outward:
            is_fast = xdp is not None and not xdp.why_not(link)
            hooks = (*UPLINK_HOOKS, *((Hook.XDP_NETDEV,) if is_fast else ()))
        elif link.kind == "veth" and link.peer_elsewhere:
            hooks = POD_HOOKS
        entries |= {
            AttachmentKey(link.name, hook): Attachment.CURRENT for hook in hooks
        }
    return entries


def uplinks(
    facts: NodeFacts, node_addresses: Set[Address], tunnel: str
) -> tuple[Link, ...]:
    """Return the links of *facts* that lead out, as ``attachment_entries`` means it."""
    return tuple(
        link
        for link in facts.links
        if link.name not in (LOOPBACK, tunnel)
        and is_uplink(link, facts, node_addresses)
    )


def is_uplink(link: Link, facts: NodeFacts, node_addresses: Set[Address]) -> bool:
    """Return whether *link* leads out: by a default route, or by its address."""
    return link.name in facts.default_interfaces or not node_addresses.isdisjoint(
        link.addresses
    )
