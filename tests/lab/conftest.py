"""Start one lab for all stories of a run, and take it down whatever happens."""

import os
from collections.abc import Iterator

import pytest

from lab.harness import Lab, started_lab


@pytest.fixture(scope="session", autouse=True)
def needs_root() -> None:
    """Say why nothing here can run without root."""
    if os.geteuid() != 0:
        pytest.skip("the lab makes namespaces and loads programs: needs root")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A running lab with the definitions and the three net-tshoot pods."""
    with started_lab(tmp_path_factory.mktemp("lab") / "kubeconfig") as lab:
        yield lab
