"""The wheel carries what a user without a compiler needs."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from outgate.kernel.objects import program_name
from outgate.state.entries import Family, Hook

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)),
        ],
        check=True,
    )
    return next(folder.glob("outgate-*.whl"))


def test_wheel_carries_every_compiled_program(wheel: Path) -> None:
    names = {program_name(hook, family) for hook in Hook for family in Family}
    objects = {f"outgate/kernel/objects/{name}.bpf.o" for name in names}

    assert objects <= set(zipfile.ZipFile(wheel).namelist())


def test_wheel_carries_no_sources_of_the_datapath(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert [] == [name for name in names if name.endswith((".c", ".h"))]


def test_wheel_runs_where_nothing_else_is_installed_from_here(
    wheel: Path, tmp_path: Path
) -> None:
    """Its package alone, in front of the dependencies of this environment."""
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    program = "from outgate.cli.main import run; run()"
    outcome = subprocess.run(
        [sys.executable, "-c", program, "datapath", "load", "--help"],
        env={"PYTHONPATH": str(unpacked), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert outcome.returncode == 0, outcome.stderr
    assert "--pin" in outcome.stdout
