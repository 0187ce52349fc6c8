"""A short slice of the fuzzer, with fixed seeds; ``make fuzz`` runs more."""

import pytest

from bpf.fuzz.rounds import Job, work
from bpf.harness import needs_root
from outgate.state.entries import Hook

FAMILIES = ("IPv4", "IPv6")

pytestmark = [needs_root, pytest.mark.kernel]


def test_random_frames_meet_the_same_end_in_kernel_and_model() -> None:
    ends = work(Job(1, range(12), 12_000), print)

    verdicts = {verdict for _, _, verdict in ends}
    assert {"pass", "drop", "answer", "redirect"} == verdicts
    taken = {family: ends[Hook.XDP_NETDEV, family, "redirect"] for family in FAMILIES}
    assert min(taken.values()) > 50
