"""
Why the datapath sent a packet on or dropped it: ``enum reason`` of ``verdict.h``.

Numbers are append-only, because dashboards hold them.  Not a copy kept by hand in
good faith: a test reads the header and compares numbers, names and meanings.
"""

from enum import IntEnum


class Reason(IntEnum):
    """A verdict; *meaning* is the sentence that people read."""

    meaning: str

    def __new__(cls, number: int, meaning: str = "") -> "Reason":
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        return member

    FORWARDED = 0, "sent on by us: tunnelled, translated, or delivered to its pod"
    DROP_INVALID = 1, "a header is cut short or contradicts itself"
    DROP_UNKNOWN_POD = 2, "source is a pod not known yet, destination is covered"
    DROP_NO_GATEWAY = 3, "the policy has no gateway node now"
    DROP_NO_EGRESS_IP = 4, "the gateway node does not have the policy's egress IP"
    DROP_UNSUPPORTED_PROTOCOL = 5, "covered, and neither TCP, UDP, SCTP nor ICMP"
    DROP_UNSUPPORTED_ICMP = 6, "covered ICMP other than echo and errors"
    DROP_FRAGMENT = 7, "covered part of a datagram that is not known"
    DROP_TTL_EXCEEDED = 8, "the packet may not travel further"
    DROP_FLOW_TABLE_FULL = 9, "no room for a flow entry"
    DROP_NAT_TABLE_FULL = 10, "no room for a NAT entry"
    DROP_SNAT_NO_PORT = 11, "every port towards this destination is taken"
    DROP_NO_ROUTE = 12, "the gateway node has no route to the destination"
    DROP_UNKNOWN_TUNNEL_SOURCE = 13, "tunnelled from an address that is no node's"
    DROP_NO_FLOW = 14, "tunnelled to a pod that did not start this flow here"
    DROP_NO_POLICY = 15, "tunnelled to this gateway without a policy row for it"
    DROP_UNTRANSLATED = 16, "guard: covered, and about to leave untranslated"
    DROP_NO_TUNNEL = 17, "the tunnel device is missing or refused the packet"
    DROP_REWRITE = 18, "the kernel refused to change the packet"
    DROP_HOST_PORT_TAKEN = 19, "a socket of the node chose a port that a pod's flow has"
    DROP_FORGED_POD = 20, "tunnelled from a node that does not hold the source pod"
    DROP_UNSEEN_POD = 21, "guard: covered, and from_container never saw it"
    DROP_ICMP_NO_FLOW = 22, "covered ICMP error that speaks of no flow of its pod"
    DROP_TOO_BIG = 23, "too big for the tunnel, with DF set: its sender is told"
    OTHER_FAMILY = 24, "left alone: its pod is selected in the other IP family"
    DROP_OTHER_FAMILY = 25, "the same, and the setting other-family says drop"
    FRAGMENT_HELD = 26, "a part before its datagram's first: held until that comes"
    DROP_FORGED_TUNNEL = 27, "from a pod as a node, or to a node's tunnel port"
    DROP_OTHER_INTERFACE = 28, "covered, from a pod's address behind another interface"
    DROP_WRONG_ENTRY = 29, "a full table gave the flow's entry away meanwhile"


def reason_name(number: int) -> str:
    """Return the lower-case name of reason *number*, also of one we do not know."""
    names = {reason.value: reason.name.lower() for reason in Reason}
    return names.get(number, f"reason_{number}")
