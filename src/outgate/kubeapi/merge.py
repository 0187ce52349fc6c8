"""
The three patches that edit an object: JSON merge, strategic merge, JSON patch.

What it is: pure functions from (object, patch) to a new object; nothing given is
changed. Merge keys come from the schema's ``x-kubernetes-patch-*`` marks.
What it is not: server-side apply, which also asks who owns a field (``apply``).

Source: RFC 7386 (merge patch), RFC 6902 (JSON patch, by the ``jsonpatch`` library),
and Kubernetes' "strategic merge patch" notes for the ``$`` directives.
"""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch

from outgate.kubeapi.status import ApiError, bad_request
from outgate.kubeapi.wire import JsonObject

_DIRECTIVE = "$patch"
_ORDER = "$setElementOrder/"
_REMOVE_VALUES = "$deleteFromPrimitiveList/"
_RETAIN = "$retainKeys"


def merge_patch(target: Any, patch: Any) -> Any:
    """
    Apply a JSON merge patch: objects merge, ``null`` removes, all else replaces.

    >>> merge_patch({"a": 1, "b": {"c": 2}}, {"a": None, "b": {"d": 3}})
    {'b': {'c': 2, 'd': 3}}
    """
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def json_patch(target: JsonObject, operations: Any) -> Any:
    """Apply a JSON patch; a failed ``test`` or a missing path is a 422."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch must be a list of operations")
    try:
        return jsonpatch.apply_patch(target, operations)
    except jsonpatch.InvalidJsonPatch as error:
        raise bad_request(f"invalid JSON patch: {error}") from error
    except (
        jsonpatch.JsonPatchException,
        jsonpatch.JsonPointerException,
        TypeError,
    ) as error:
        text = (
            f"the server rejected our request due to an error in our request: {error}"
        )
        raise ApiError(422, "Invalid", text, {}) from error


def strategic_merge(target: Any, patch: Any, node: JsonObject) -> Any:
    """
    Apply a strategic merge patch under schema *node*.

    Lists whose schema names a merge key are merged item by item; ``$patch``,
    ``$retainKeys``, ``$setElementOrder/x`` and ``$deleteFromPrimitiveList/x`` are
    understood.
    """
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    directive = patch.get(_DIRECTIVE)
    if directive == "delete":
        return {}
    if directive == "replace":
        return {k: copy.deepcopy(v) for k, v in patch.items() if k != _DIRECTIVE}
    merged = dict(target) if isinstance(target, dict) else {}
    if isinstance(patch.get(_RETAIN), list):
        merged = {k: v for k, v in merged.items() if k in patch[_RETAIN]}
    for key, value in patch.items():
        _merge_field(merged, key, value, node)
    for key, value in patch.items():
        if key.startswith(_ORDER):
            _reorder(merged, key.removeprefix(_ORDER), value, node)
    return merged


def _merge_field(merged: JsonObject, key: str, value: Any, node: JsonObject) -> None:
    if key.startswith(_REMOVE_VALUES):
        name = key.removeprefix(_REMOVE_VALUES)
        if not isinstance(value, list):
            raise bad_request(f"{key} must be a list")
        if isinstance(merged.get(name), list):
            merged[name] = [item for item in merged[name] if item not in value]
    elif key.startswith("$"):
        return
    elif value is None:
        merged.pop(key, None)
    else:
        inner = child(node, key)
        old = merged.get(key)
        if isinstance(value, list):
            merged[key] = _merge_list(old, value, inner)
        else:
            merged[key] = strategic_merge(old, value, inner)


def child(node: JsonObject, key: str) -> JsonObject:
    """The schema of field *key*; empty where the schema says nothing."""
    properties = node.get("properties") or {}
    found = properties.get(key) or node.get("additionalProperties")
    return found if isinstance(found, dict) else {}


def _merge_list(old: Any, patch: list[Any], node: JsonObject) -> list[Any]:
    items = list(old) if isinstance(old, list) else []
    if any(isinstance(p, dict) and p.get(_DIRECTIVE) == "replace" for p in patch):
        return [p for p in patch if not (isinstance(p, dict) and _DIRECTIVE in p)]
    if node.get("x-kubernetes-patch-strategy") != "merge":
        return copy.deepcopy(patch)
    merge_key = node.get("x-kubernetes-patch-merge-key")
    if merge_key is None:
        return items + [value for value in patch if value not in items]
    for change in patch:
        _merge_item(items, change, merge_key, node.get("items") or {})
    return items


def _merge_item(
    items: list[Any], change: JsonObject, merge_key: str, node: JsonObject
) -> None:
    if not isinstance(change, dict) or merge_key not in change:
        raise bad_request(
            f"map: {change!r} does not contain declared merge key: {merge_key}"
        )
    wanted = change[merge_key]
    for position, item in enumerate(items):
        if item.get(merge_key) == wanted:
            if change.get(_DIRECTIVE) == "delete":
                del items[position]
            else:
                items[position] = strategic_merge(item, change, node)
            return
    if change.get(_DIRECTIVE) != "delete":
        items.append(strategic_merge({}, change, node))


def _reorder(merged: JsonObject, name: str, order: Any, node: JsonObject) -> None:
    items = merged.get(name)
    if not isinstance(items, list) or not isinstance(order, list):
        return
    merge_key = child(node, name).get("x-kubernetes-patch-merge-key")

    def key_of(item: Any) -> Any:
        return item.get(merge_key) if merge_key and isinstance(item, dict) else item

    wanted = [key_of(item) for item in order]
    ranked = {
        position: wanted.index(key_of(item)) if key_of(item) in wanted else None
        for position, item in enumerate(items)
    }
    listed = sorted(
        (p for p, rank in ranked.items() if rank is not None),
        key=lambda p: ranked[p] or 0,
    )
    # Items that the order does not name keep their places.
    queue = iter(listed)
    merged[name] = [
        items[next(queue)] if ranked[position] is not None else item
        for position, item in enumerate(items)
    ]
