"""The pure headers, compiled for the host under sanitizers."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc to compile for the host")
@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_pure_headers_hold_their_claims_under_sanitizers(
    tmp_path: Path, family: int
) -> None:
    program = tmp_path / "test_headers"
    source = Path(__file__).parent / "native" / "test_headers.c"
    subprocess.run(
        [
            *("gcc", "-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror"),
            *("-fsanitize=address,undefined", "-fno-sanitize=alignment"),
            f"-DOUTGATE_FAMILY={family}",
            *(f"-I{ROOT}/bpf", f"-I{ROOT}/bpf/vendor", str(source), "-o", str(program)),
        ],
        check=True,
    )
    outcome = subprocess.run([str(program)], capture_output=True, text=True)

    assert ("", 0) == (outcome.stdout + outcome.stderr, outcome.returncode)
