"""
Sets of fields: which leaves an object has, and how ``managedFields`` spells them.

What it is: a field set is a plain ``frozenset`` of paths, so union and difference
are Python's; a path is a tuple of FieldsV1 elements: ``f:spec``, ``k:{"name":"a"}``
(an item of a list with keys), ``v:"x"`` (an item of a set).
What it is not: decisions about owners; those are in ``ownership``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from outgate.kubeapi.merge import child
from outgate.kubeapi.wire import JsonObject, decode_json, encode_json

Path: TypeAlias = tuple[str, ...]
FieldSet: TypeAlias = frozenset[Path]

_UNOWNED_ROOT = ("apiVersion", "kind")
_UNOWNED_METADATA = (
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
)


def leaves(obj: JsonObject, node: JsonObject) -> dict[Path, Any]:
    """Every leaf of *obj* with its value; what nobody can own is left out."""
    owned = {key: value for key, value in obj.items() if key not in _UNOWNED_ROOT}
    meta = owned.get("metadata")
    if isinstance(meta, dict):
        kept = {k: v for k, v in meta.items() if k not in _UNOWNED_METADATA}
        owned["metadata"] = kept
        if not kept:
            del owned["metadata"]
    return dict(_walk(owned, node, ()))


def _walk(value: Any, node: JsonObject, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value and not is_atomic(node):
        for key, inner in value.items():
            yield from _walk(inner, child(node, key), (*path, f"f:{key}"))
    elif isinstance(value, list) and value and is_associative(node):
        items = node.get("items") or {}
        for item in value:
            inner_path = (*path, item_element(item, node))
            # The item itself is a field: whoever names it keeps it in the list.
            yield inner_path, None
            if isinstance(item, dict):
                yield from _walk(item, items, inner_path)
    elif path:
        yield path, value


def is_atomic(node: JsonObject) -> bool:
    return node.get("x-kubernetes-map-type") == "atomic"


def is_associative(node: JsonObject) -> bool:
    return node.get("x-kubernetes-list-type") in ("map", "set")


def item_element(item: Any, node: JsonObject) -> str:
    """The path element of a list's *item*, by its keys or by its value."""
    if node.get("x-kubernetes-list-type") == "set" or not isinstance(item, dict):
        return "v:" + encode_json(item).decode()
    items = node.get("items") or {}
    keys = {
        name: item.get(name, child(items, name).get("default"))
        for name in sorted(node.get("x-kubernetes-list-map-keys") or ())
    }
    return "k:" + encode_json(keys).decode()


def encode_fields(fields: FieldSet) -> JsonObject:
    """Write *fields* as nested FieldsV1; ``.`` marks an item that is itself owned."""
    root: JsonObject = {}
    for path in sorted(fields):
        here = root
        for element in path:
            here = here.setdefault(element, {})
        if path[-1].startswith("k:"):
            here["."] = {}
    return root


def decode_fields(fields: JsonObject) -> FieldSet:
    """Read nested FieldsV1; the ``.`` of a plain map is not a leaf of ours."""
    return frozenset(_decode(fields, ()))


def _decode(fields: JsonObject, path: Path) -> Iterator[Path]:
    for element, inner in fields.items():
        if element == ".":
            if path and path[-1].startswith("k:"):
                yield path
        elif isinstance(inner, dict) and inner:
            yield from _decode(inner, (*path, element))
        else:
            yield (*path, element)


def remove_path(value: Any, path: Path, node: JsonObject) -> None:
    """Take one leaf or list item out of *value*, and parents that it leaves empty."""
    element, rest = path[0], path[1:]
    if element.startswith("f:"):
        _remove_field(value, element[2:], rest, node)
    elif isinstance(value, list):
        items = node.get("items") or {}
        for position, item in enumerate(value):
            if item_element(item, node) == element:
                if rest:
                    remove_path(item, rest, items)
                else:
                    del value[position]
                return


def _remove_field(value: Any, key: str, rest: Path, node: JsonObject) -> None:
    if not isinstance(value, dict) or key not in value:
        return
    if not rest:
        del value[key]
        return
    remove_path(value[key], rest, child(node, key))
    if value[key] in ({}, []):
        del value[key]


def spell_path(path: Path) -> str:
    """
    Spell a path as conflicts do.

    >>> spell_path(("f:spec", "f:ports", 'k:{"port":80}', "f:name"))
    '.spec.ports[port=80].name'
    """
    text = ""
    for element in path:
        mark, content = element[:2], element[2:]
        if mark == "f:":
            text += f".{content}"
        elif mark == "k:":
            keys = decode_json(content.encode())
            pairs = ",".join(
                f"{name}={encode_json(value).decode()}" for name, value in keys.items()
            )
            text += f"[{pairs}]"
        else:
            text += f"[={content}]"
    return text
