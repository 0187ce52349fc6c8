"""
The XDP program of a node's uplink, before tc: run on one frame, and checked.

What it passes on must be as it came.  What it sends goes to the neighbour that
the kernel knows; everything else of it is for the caller to compare, so the addresses
of the link are put back to what tc leaves there before the kernel writes them.
"""

from bpf import outer
from bpf.uplink import PEER_MAC, ROUTER_MAC, UPLINK_MAC
from outgate.kernel.testrun import run_program

XDP_PASS, XDP_TX, XDP_REDIRECT = 2, 3, 4
MACS = 12
"""Bytes: destination, source."""


def packed(mac: str) -> bytes:
    """Return the bytes of a MAC."""
    return bytes.fromhex(mac.replace(":", ""))


UPLINK, ROUTER, PEER = map(packed, (UPLINK_MAC, ROUTER_MAC, PEER_MAC))


class GatewayXdp:
    """*program* is IPv4's; *taken* counts the frames that it sent on."""

    def __init__(self, program: int) -> None:
        self.program = program
        self.taken = 0

    def run(self, frame: bytes) -> bytes | None:
        """Return what was sent for *frame*, as tc would have made it; None: passed."""
        after = run_program(self.program, frame)
        return self.judge(frame, after.verdict, after.packet)

    def judge(self, frame: bytes, verdict: int, sent: bytes) -> bytes | None:
        """Return the same for a run of the program."""
        if verdict == XDP_PASS:
            assert sent == frame, "XDP passed a frame that it had changed"
            return None
        assert verdict == XDP_REDIRECT, f"XDP verdict {verdict}"
        self.taken += 1
        if outer.unwrap(sent):
            assert sent[:MACS] == PEER + UPLINK, sent[:MACS].hex(":")
            return bytes(MACS) + sent[MACS:]
        assert sent[:MACS] == ROUTER + UPLINK, sent[:MACS].hex(":")
        inner = len(frame) - len(sent)
        return frame[inner : inner + MACS] + sent[MACS:]
