"""What ``outgate lab`` refuses before it does anything."""

import pytest
from typer.testing import CliRunner

from outgate.cli.lab import app


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_is_none_is_refused_by_its_option(port: str) -> None:
    done = CliRunner().invoke(app, ["up", "--name", "never-made", "--port", port])

    assert done.exit_code == 2
    assert "--port" in done.stderr


def test_help_of_the_lab_offers_no_shell_completion_of_its_own() -> None:
    assert "completion" not in CliRunner().invoke(app, ["--help"]).stdout
