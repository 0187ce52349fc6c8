"""What fits the tunnel, and what peers are told about it; part of the model."""

from bpf.harness import TUNNEL_MTU
from bpf.model.headers import ETHERNET_SIZE
from bpf.model.packet import Read
from bpf.model.rewrite import TCP_HEADER, lower_mss


def is_too_big(frame: bytes, seen: Read) -> bool:
    """Tell whether the tunnel has no room for a packet that must stay whole."""
    assert seen.header
    return seen.header.is_df and len(frame) - ETHERNET_SIZE > TUNNEL_MTU


def clamped(frame: bytes, seen: Read) -> bytes:
    """Return *frame* with its MSS lowered to what fits the tunnel."""
    if not seen.is_syn and not seen.is_accept:
        return frame
    assert seen.header
    return lower_mss(frame, seen, TUNNEL_MTU - seen.header.layout.size - TCP_HEADER)
