import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outgate.cli import main


def outgate(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = "from outgate.cli.main import run; run()"
    return subprocess.run(
        (sys.executable, "-c", program, *arguments), capture_output=True, text=True
    )


def test_an_expected_error_is_one_line(tmp_path: Path) -> None:
    done = outgate("status", "--socket", str(tmp_path / "none.sock"))

    assert done.returncode == 1
    assert done.stderr.startswith(f"outgate: no agent answers at {tmp_path}/none.sock")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("map", "list", "--pin"),
        ("map", "get", "cilium_lxc", "--pin"),
        ("datapath", "load", "--pin"),
        ("datapath", "unload", "--pin"),
        ("policy", "plan", "--node", "n", "-f"),
        ("agent", "--node", "n", "--config"),
        ("agent", "--node", "n", "--kubeconfig"),
        ("status", "--socket"),
    ],
)
def test_a_path_that_cannot_be_looked_up_is_one_line(
    arguments: tuple[str, ...],
) -> None:
    """Too long a name is refused to root too; no permission takes the same way."""
    done = outgate(*arguments, "/" + "x" * 300)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("outgate: ")
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_command_exits_with_2() -> None:
    assert outgate("nonsense").returncode == 2


def test_version_is_printed() -> None:
    done = CliRunner().invoke(main.app, ["--version"])

    assert done.output.startswith("outgate ")


def test_an_unknown_map_is_answered_with_the_names_of_all() -> None:
    done = outgate("map", "get", "cilium_lb4")

    assert "outgate_snat_v4" in done.stderr


def test_a_missing_extra_hides_only_its_own_command() -> None:
    lazy = main.Lazy("outgate.cli.lab", "app", extra="lab")
    program = (
        "import sys; sys.modules['outgate.cli.lab'] = None;"
        "from outgate.cli.main import run; run()"
    )
    done = subprocess.run(
        (sys.executable, "-c", program, "lab", "up"), capture_output=True, text=True
    )

    assert lazy == main.COMMANDS["lab"]
    assert done.returncode == 1
    assert "pip install 'outgate[lab]'" in done.stderr


def test_agent_has_a_flag_for_each_setting() -> None:
    done = CliRunner().invoke(main.app, ["agent", "--help"], env={"COLUMNS": "200"})

    assert "--tunnel-port" in done.output
    assert "--config" in done.output
