"""
Entries of flows as bytes, in the model's own types: what ``runner`` and stories read.
"""

import sys
from typing import Any

from bpf.gateway_xdp import ROUTER, UPLINK
from bpf.model.rules import plain
from bpf.model.table import FROM_TUNNEL, INBOUND, LOCAL_GATEWAY, TO_GATEWAY
from outgate.kernel.layouts import FLOW, NAT
from outgate.kernel.records import NAT_HOST_SOCKET
from outgate.state.entries import Family

DECISIONS = {1: TO_GATEWAY, 2: LOCAL_GATEWAY, 3: INBOUND, 4: FROM_TUNNEL}
FORWARD = 1
STAMP = 8

FlowRow = tuple[str, int, bytes, bytes, bytes, int]
"""Decision, policy, tunnel endpoint, egress IP, MACs, TCP state."""

HalfRow = tuple[bytes, int, bytes, bytes, int, int, bool]
"""Address, port, tunnel endpoint, MACs, policy, TCP state, of a host socket."""

DatagramRow = tuple[int, int, int, int, bool]
"""Ports, protocol, state, whether parts wait for the first."""


def aged(value: bytes, jiffies: int) -> bytes:
    """Return an entry that was last seen so much earlier."""
    seen = int.from_bytes(value[-STAMP:], sys.byteorder)
    older = (seen - jiffies) % (1 << 64)
    return value[:-STAMP] + older.to_bytes(STAMP, sys.byteorder)


def flow_row(value: bytes, family: Family) -> FlowRow:
    """Decode a flow entry."""
    decision, tcp, _, policy, endpoint, egress, _, *macs, _ = FLOW[family].unpack(value)
    where = _some(endpoint), _some(egress)
    return DECISIONS[decision], policy, *where, b"".join(macs), tcp


def half_row(value: bytes, family: Family) -> HalfRow:
    """Decode half of a translation."""
    fields: tuple[Any, ...] = NAT[family].unpack(value)
    becomes, port, tcp, flags, endpoint, policy, *_, mac, host_mac, _, _ = fields
    to = _some(becomes), int.from_bytes(port, "big"), _some(endpoint)
    return *to, mac + host_mac, policy, tcp, bool(flags & NAT_HOST_SOCKET)


def forward_row(value: bytes, family: Family) -> HalfRow:
    """Decode a forward half without XDP's MACs, which must be those of the way."""
    address, port, endpoint, macs, policy, tcp, is_host = half_row(value, family)
    assert macs in (bytes(12), ROUTER + bytes(6), ROUTER + UPLINK), macs.hex(":")
    return address, port, endpoint, bytes(12), policy, tcp, is_host


def _some(packed: bytes) -> bytes:
    """Return an address of a row in the model's form; empty: none."""
    return plain(packed) if any(packed) else b""
