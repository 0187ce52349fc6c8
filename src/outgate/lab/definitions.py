"""
The policies' definitions (CRDs), which the lab's API has before any agent asks.

What this is: where the definitions are, as files of the wheel or of a checkout, and
the one step that makes them.  An agent that finds no definition waits for one, with
a growing pause; this spares a new lab that wait.
What this is not: their content; ``deploy/crds`` holds that, for every cluster.
"""

import json
from pathlib import Path
from typing import Any

import yaml

import outgate
from outgate.errors import SourceError
from outgate.lab.errors import LabError
from outgate.source.client import Client

APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def definition_folder(package: Path = Path(outgate.__file__).parent) -> Path:
    """
    The folder of definitions: in the wheel ``crds``, in a checkout ``deploy/crds``.

    Errors: LabError when there is neither.
    """
    places = (package / "crds", package.parents[1] / "deploy" / "crds")
    for place in places:
        if place.is_dir():
            return place
    raise LabError(f"no definitions of policies at {' or '.join(map(str, places))}")


def read_definitions(folder: Path) -> list[dict[str, Any]]:
    """
    Every definition of *folder*, as ``kubectl apply`` would send it.

    It remembers itself in the annotation that ``kubectl apply`` compares with, so
    that a later apply of the same file changes nothing and warns of nothing.
    """
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.yaml")):
        found += [_applied(item) for item in yaml.safe_load_all(path.read_text())]
    return found


def _applied(item: dict[str, Any]) -> dict[str, Any]:
    metadata = {"annotations": {}, **item["metadata"]}
    text = as_kubectl_writes({**item, "metadata": metadata})
    annotations = {**metadata["annotations"], APPLIED: f"{text}\n"}
    return {**item, "metadata": {**metadata, "annotations": annotations}}


def as_kubectl_writes(item: dict[str, Any]) -> str:
    """
    Return *item* as kubectl's JSON, to the byte: Go escapes what HTML could misread.

    >>> as_kubectl_writes({"rule": "a < b && c"})
    '{"rule":"a \\\\u003c b \\\\u0026\\\\u0026 c"}'
    """
    text = json.dumps(item, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    for character in "&<>\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


async def make_definitions(client: Client, folder: Path) -> None:
    """Make what is missing; what is there stays as the user left it."""
    for body in read_definitions(folder):
        try:
            await client.request("POST", PATH, body=body)
        except SourceError as error:
            if error.status != 409:
                raise
