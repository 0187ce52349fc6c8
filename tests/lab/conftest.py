"""Start one lab for all stories of a run, and take it down whatever happens."""

import os
from collections.abc import Iterator

import pytest

from lab.harness import PROJECT, Lab, left_behind, new_name


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A running lab with the definitions and the three net-tshoot pods."""
    if os.geteuid() != 0:
        pytest.skip("the lab makes namespaces and loads programs: needs root")
    config = tmp_path_factory.mktemp("lab") / "kubeconfig"
    for name in left_behind():
        Lab(name, config).outgate("down")
    made = Lab(new_name(), config)
    made.outgate("down")
    try:
        made.outgate("up")
        made.kubectl("apply", "-f", str(PROJECT / "deploy/crds"))
        made.kubectl("apply", "-f", str(PROJECT / "deploy/lab/net-tshoot.yaml"))
        made.kubectl("wait pod --for=condition=Ready -l name=net-tshoot")
        yield made
    finally:
        made.outgate("down")
