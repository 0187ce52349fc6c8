"""
The cluster from YAML or JSON files: ordinary Kubernetes documents, no API server.

What it is: the same decoding as the API source, for ``outgate policy plan`` and for
tests.  Documents of kinds that do not matter here are passed over, as a folder of
manifests holds many; a later document replaces an earlier one of the same name, as
``kubectl apply`` would.

What it is not: a watch on a folder; it reads once.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from outgate.errors import SourceError
from outgate.policy.model import (
    BadPolicy,
    Cluster,
    EgressPolicy,
    Endpoint,
    Namespace,
    Node,
)
from outgate.policy.parse import is_policy
from outgate.source.objects import (
    EgressNodeObject,
    EndpointSliceObject,
    NamespaceObject,
    NodeObject,
    PodObject,
    PolicyObject,
    ServiceCIDRObject,
)
from outgate.state.entries import Network, NodeName
from outgate.state.facts import NodeFacts

STANDARD_INPUT = Path("-")
SUFFIXES = (".yaml", ".yml", ".json")

REPORT_KIND = "EgressNode"

NAME_LABEL = "kubernetes.io/metadata.name"
"""The label that an API server gives each namespace."""

_Networks = tuple[Network, ...]
_Model = Node | Namespace | Endpoint | EgressPolicy | BadPolicy | _Networks
_Struct = (
    NodeObject
    | NamespaceObject
    | PodObject
    | ServiceCIDRObject
    | EndpointSliceObject
    | PolicyObject
)
_STRUCTS: Mapping[tuple[str, str], type[_Struct]] = {
    ("v1", "Node"): NodeObject,
    ("v1", "Namespace"): NamespaceObject,
    ("v1", "Pod"): PodObject,
    ("networking.k8s.io/v1", "ServiceCIDR"): ServiceCIDRObject,
    ("networking.k8s.io/v1beta1", "ServiceCIDR"): ServiceCIDRObject,
    ("discovery.k8s.io/v1", "EndpointSlice"): EndpointSliceObject,
}

T = TypeVar("T", bound=_Model)
S = TypeVar("S", bound=_Struct | EgressNodeObject)


class _Loader(yaml.SafeLoader):
    """Reads timestamps as the text they are, as JSON would hold them."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (the type is PyYAML's)
        first: [(tag, regexp) for tag, regexp in resolvers if "timestamp" not in tag]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True, slots=True)
class Document:
    """One object and where it stood, for messages: *number* counts from 1 in *file*."""

    place: str
    value: Mapping[str, object]
    file: str = ""
    number: int = 0


def build_cluster(
    documents: Iterable[Document], cluster_networks: Iterable[Network] = ()
) -> Cluster:
    """
    Return the cluster that *documents* describe.

    A namespace that pods name but no document describes exists without labels of
    its own, as a user means who leaves it out.

    Errors: ``SourceError`` with the file and the document, when one is no object of
    its kind; wrong policies become ``BadPolicy``.
    """
    found: dict[tuple[str, str], _Model] = {}
    for document in documents:
        decoded = _decode(document)
        if decoded is not None:
            key, model = decoded
            found[key] = model
    models = [found[key] for key in sorted(found)]
    endpoints = _of(Endpoint, models)
    inside = [network for part in models if isinstance(part, tuple) for network in part]
    return Cluster(
        nodes=_of(Node, models),
        namespaces=_name_namespaces(_of(Namespace, models), endpoints),
        endpoints=endpoints,
        policies=_of(EgressPolicy, models),
        bad_policies=_of(BadPolicy, models),
        cluster_networks=tuple(dict.fromkeys((*cluster_networks, *inside))),
    )


def reported_facts(documents: Iterable[Document]) -> dict[NodeName, NodeFacts]:
    """
    Return what agents told of their nodes, from EgressNode documents.

    Errors: as ``build_cluster``.
    """
    found = {}
    for document in documents:
        if document.value["kind"] == REPORT_KIND:
            report = _convert(document, EgressNodeObject).to_model()
            if report.facts.links:
                found[report.node] = report.facts
    return found


def read_documents(path: Path) -> Iterator[Document]:
    """
    Yield the objects of a file, of stdin (``-``), or of a folder's files by name.

    Errors: ``SourceError`` with the file and the document, when one cannot be read or
    is no Kubernetes object, after the objects that could be read.
    """
    try:
        is_folder = path.is_dir()
    except OSError as e:
        raise SourceError(f"{name_of(path)}: {e.strerror}") from e
    if is_folder:
        for file in sorted(path.rglob("*")):
            if file.suffix in SUFFIXES and file.is_file():
                yield from read_documents(file)
        return
    name = name_of(path)
    for number, value in enumerate(read_yaml(path), 1):
        if value is None:
            continue
        place = Document(f"{name}, document {number}", {}, name, number)
        try:
            yield from _flatten(value, place)
        except RecursionError as e:
            raise SourceError(f"{place.place}: a List that holds itself") from e


def read_yaml(path: Path) -> Iterator[object]:
    """
    Yield what the documents of one file hold, whatever that is; ``-`` is stdin.

    Errors: ``SourceError`` when it cannot be read or is no YAML.
    """
    try:
        text = sys.stdin.read() if path == STANDARD_INPUT else path.read_text()
        yield from _decode_text(text)
    except OSError as e:
        raise SourceError(f"{name_of(path)}: {e.strerror}") from e
    except (yaml.YAMLError, ValueError) as e:
        # PyYAML lets the ValueError of a number like 0x_ through.
        raise SourceError(f"{name_of(path)}: no YAML: {e}") from e
    except RecursionError as e:
        raise SourceError(f"{name_of(path)}: nested too deeply to be read") from e


def _decode_text(text: str) -> Iterable[object]:
    """
    Return the documents of *text*.

    JSON is YAML, but 30 times slower to read as such: what `kubectl get -o json` writes
    of a large cluster takes minutes.
    """
    if text.lstrip().startswith("{"):
        try:
            return [msgspec.json.decode(text)]
        except msgspec.DecodeError:
            pass
    documents: Iterable[object] = yaml.load_all(text, _Loader)
    return documents


def name_of(path: Path) -> str:
    """Return what messages call *path*."""
    return "standard input" if path == STANDARD_INPUT else str(path)


def _flatten(value: object, place: Document) -> Iterator[Document]:
    """Yield *value* at *place*, or its items if it is a List, of a kind or of any."""
    if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
        raise SourceError(f"{place.place}: no Kubernetes object: it has no kind")
    items = value.get("items")
    if not value["kind"].endswith("List") or not isinstance(items, list):
        yield replace(place, value=value)
        return
    # An API server's PodList says kind and apiVersion once for all of its items.
    said = {
        "apiVersion": value.get("apiVersion"),
        "kind": value["kind"].removesuffix("List"),
    }
    for index, item in enumerate(items):
        if said["kind"] and isinstance(item, Mapping) and "kind" not in item:
            item = {**said, **item}
        yield from _flatten(
            item, replace(place, place=f"{place.place}, items[{index}]")
        )


def _decode(document: Document) -> tuple[tuple[str, str], _Model] | None:
    api_version = str(document.value.get("apiVersion", ""))
    kind = str(document.value["kind"])
    struct: type[_Struct] | None = (
        PolicyObject if is_policy(kind) else _STRUCTS.get((api_version, kind))
    )
    if struct is None:
        return None
    found = _convert(document, struct)
    return (kind, found.metadata.key), found.to_model()


def _convert(document: Document, struct: type[S]) -> S:
    place = f"{document.place} ({document.value['kind']})"
    try:
        found = msgspec.convert(document.value, struct)
    except msgspec.ValidationError as e:
        raise SourceError(f"{place}: {e}") from e
    if not found.metadata.name:
        raise SourceError(f"{place}: metadata.name is missing")
    return found


def _of(kind: type[T], models: Iterable[_Model]) -> tuple[T, ...]:
    return tuple(model for model in models if isinstance(model, kind))


def _name_namespaces(
    described: tuple[Namespace, ...], endpoints: Iterable[Endpoint]
) -> tuple[Namespace, ...]:
    """Add what an API server would: the name label, and namespaces left out."""
    found = {namespace.name: namespace for namespace in described}
    for endpoint in endpoints:
        found.setdefault(endpoint.namespace, Namespace(endpoint.namespace))
    return tuple(
        replace(namespace, labels={**namespace.labels, NAME_LABEL: name})
        for name, namespace in sorted(found.items())
    )
