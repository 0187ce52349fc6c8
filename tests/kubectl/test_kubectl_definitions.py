"""The definitions of policies, as the lab makes them and as users apply them again."""

from __future__ import annotations

import json
from typing import Any

from kubectl.driver import Kubectl
from outgate.lab.definitions import APPLIED, definition_folder, read_definitions


def test_definitions_remember_themselves_to_the_byte_as_kubectl_writes(
    cluster: Kubectl,
) -> None:
    """Rules hold ``<`` and ``&``, which Go escapes: ``apply`` would see a change."""
    save = ["create", "--dry-run=client", "--save-config", "-o", "json", "-f"]
    made = read_definitions(definition_folder())
    files = sorted(definition_folder().glob("*.yaml"))
    written = [json.loads(cluster(*save, str(file))) for file in files]

    assert [remembered(item) for item in made] == [remembered(w) for w in written]


def remembered(item: dict[str, Any]) -> object:
    return item["metadata"]["annotations"][APPLIED]
