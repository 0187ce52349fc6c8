"""Where the policies' definitions are, and how the lab makes them."""

import json
from pathlib import Path

import pytest

from outgate.lab.definitions import APPLIED, definition_folder, read_definitions
from outgate.lab.errors import LabError

CHECKOUT = Path(__file__).parents[3]


def test_a_checkout_uses_its_own_deploy_folder() -> None:
    assert definition_folder() == CHECKOUT / "deploy" / "crds"


def test_a_wheel_brings_its_own_definitions(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "outgate"
    (package / "crds").mkdir(parents=True)

    assert definition_folder(package) == package / "crds"


def test_a_package_without_definitions_says_where_it_looked(tmp_path: Path) -> None:
    package = tmp_path / "src" / "outgate"
    with pytest.raises(LabError, match=r"outgate/crds or .*/deploy/crds"):
        definition_folder(package)


def test_a_definition_remembers_itself_as_kubectl_apply_does() -> None:
    for made in read_definitions(definition_folder()):
        remembered = json.loads(made["metadata"]["annotations"].pop(APPLIED))
        assert remembered == made
        assert made["kind"] == "CustomResourceDefinition"
