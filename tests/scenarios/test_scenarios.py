"""
Run every ``*.yaml`` of this folder: objects in, the text of snapshots out.

Shape of a scenario::

    objects: [FILE…]           from objects/, applied before the first step
    show: [KIND…]              which lines of a snapshot are compared; all by default
    steps:
    - apply: [OBJECT…]         replaces an object of the same kind and name
      delete: [KIND/NAME…]
      facts: {NODE: FACTS}     what a node observes, as in `policy plan --facts`;
                               without them one link carries all addresses of the Node
      expect: {NODE: TEXT}
      problems: {NODE: TEXT}   "OBJECT: PATH: MESSAGE" lines

Steps build on each other.  The name of the file is the claim.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from outgate.cli.policy import TUNNEL, find_node, imagine_facts
from outgate.policy.compile import Compiled, compile_node
from outgate.policy.fields import Field
from outgate.source.facts_file import parse_facts
from outgate.source.files import Document, build_cluster, read_documents
from outgate.state.facts import NodeFacts
from outgate.state.snapshot import render

FOLDER = Path(__file__).parent
SCENARIOS = sorted(FOLDER.glob("*.yaml"))


class World:
    """The objects of a scenario as its steps change them."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        self.shown = scenario.get("show", [])
        self._documents: dict[str, Document] = {}
        self._facts: dict[str, NodeFacts] = {}
        for name in scenario["objects"]:
            self.apply(read_documents(FOLDER / "objects" / name))

    def apply(self, documents: Iterable[Document]) -> None:
        for document in documents:
            metadata = document.value["metadata"]
            assert isinstance(metadata, dict)
            self._documents[f"{document.value['kind']}/{metadata['name']}"] = document

    def take_step(self, step: dict[str, Any]) -> None:
        self.apply(Document("step", value) for value in step.get("apply", []))
        for reference in step.get("delete", []):
            del self._documents[reference]
        for node, facts in step.get("facts", {}).items():
            root = Field(facts, f"facts of {node}")
            self._facts[node] = parse_facts(root)
            assert root.problems == []

    def compile(self, node: str) -> Compiled:
        cluster = build_cluster(self._documents.values())
        found = find_node(cluster, node)
        facts = self._facts.get(node) or imagine_facts(found)
        return compile_node(cluster, found.name, facts, TUNNEL)

    def render(self, compiled: Compiled) -> list[str]:
        lines = render(compiled.snapshot).splitlines()
        return [
            line for line in lines if not self.shown or line.split()[0] in self.shown
        ]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    scenario = yaml.safe_load(path.read_text())
    world = World(scenario)
    for step in scenario["steps"]:
        world.take_step(step)
        for node, text in step.get("expect", {}).items():
            assert text.splitlines() == world.render(world.compile(node)), node
        for node, text in step.get("problems", {}).items():
            told = [
                f"{problem.object}: {problem.path}: {problem.message}"
                for problem in world.compile(node).problems
            ]
            assert text.splitlines() == told, node


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 5
