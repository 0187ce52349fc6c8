"""
Which hook goes on which interface of a node.

What it is: two tables over observed links.  What it is not: the attaching.
"""

from collections.abc import Set

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
    facts: NodeFacts, node_addresses: Set[Address], tunnel: str
) -> dict[Key, Value]:
    """
    Return the attachments for *facts*; the tunnel device counts as there already.

    *node_addresses* are those of the Node object: links that carry one are uplinks.
    """
    entries: dict[Key, Value] = {FORWARD_GUARD: Attachment.CURRENT}
    entries |= {
        AttachmentKey(tunnel, hook): Attachment.CURRENT for hook in TUNNEL_HOOKS
    }
    for link in facts.links:
        if link.name in (LOOPBACK, tunnel):
            continue
        hooks: tuple[Hook, ...] = ()
        if is_uplink(link, facts, node_addresses):
            hooks = UPLINK_HOOKS
        elif link.kind == "veth" and link.peer_elsewhere:
            hooks = POD_HOOKS
        entries |= {
            AttachmentKey(link.name, hook): Attachment.CURRENT for hook in hooks
        }
    return entries


def is_uplink(link: Link, facts: NodeFacts, node_addresses: Set[Address]) -> bool:
    """Return whether *link* leads out: by a default route, or by its address."""
    return link.name in facts.default_interfaces or not node_addresses.isdisjoint(
        link.addresses
    )
