"""A short slice of the fuzzer, with fixed seeds; ``make fuzz`` runs more."""

import pytest

from bpf.fuzz.run import work
from bpf.harness import needs_root

pytestmark = [needs_root, pytest.mark.kernel]


@pytest.mark.parametrize("seed", [1, 2])
def test_random_frames_meet_the_same_end_in_kernel_and_model(seed: int) -> None:
    verdicts = work(seed, [0, 1, 2], 6_000)

    assert {"pass", "drop", "redirect"} == set(verdicts)
