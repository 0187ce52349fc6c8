"""Every program passes the verifier of the kernel that runs this, with some room."""

import os
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from contract.isolation import run_isolated, skip_without_root
from contract.kernel_sides import PIN_DIR, SETTINGS
from outgate.kernel.collector import COLLECT
from outgate.kernel.datapath import prepare_pin_dir
from outgate.kernel.objects import load_program
from outgate.kernel.settings import GatewayPath
from outgate.state.entries import Family, Hook

pytestmark = pytest.mark.kernel

NEEDED = [hook for hook in (*Hook, COLLECT) if hook != Hook.FORWARD_GUARD]

MOST_INSTRUCTIONS = 500_000
"""Half of what the verifier looks at before it gives up: other kernels prune less."""


@pytest.mark.parametrize(("hook", "path"), list(product(NEEDED, GatewayPath)))
@pytest.mark.parametrize("family", Family)
def test_the_verifier_accepts_a_program_with_room_to_spare(
    hook: str, path: GatewayPath, family: Family
) -> None:
    skip_without_root()
    settings = replace(SETTINGS, gateway_path=path, tunnel_port=8472)

    def body() -> None:
        prepare_pin_dir(PIN_DIR)
        program = load_program(
            hook, family, PIN_DIR, settings.encode(), settings.sizes
        ).fd
        try:
            assert 0 < verified_instructions(program) < MOST_INSTRUCTIONS
        finally:
            os.close(program)

    run_isolated(body)


def verified_instructions(program: int) -> int:
    """Return how many instructions the verifier looked at (Linux 5.16 and later)."""
    lines = Path(f"/proc/self/fdinfo/{program}").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values["verified_insns"])
