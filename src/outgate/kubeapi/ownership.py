"""
Who owns which field: ``managedFields`` after an update, and server-side apply.

What it is: an update takes what it changed away from everybody else; an apply takes
what it names, is refused where another manager wants a different value (unless
forced), and drops what it named before and names no more.
What it is not: all of structured-merge-diff. A map and the list that holds it are
never owned as such, only their leaves and list items are.

Source: KEP-555; checked with ``kubectl apply --server-side``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from outgate.kubeapi.fieldsets import (
    FieldSet,
    decode_fields,
    encode_fields,
    is_associative,
    is_atomic,
    item_element,
    leaves,
    remove_path,
    spell_path,
)
from outgate.kubeapi.merge import child
from outgate.kubeapi.status import Cause, apply_conflict, bad_request
from outgate.kubeapi.wire import JsonObject


@dataclass(frozen=True, slots=True)
class Manager:
    """Who writes: one entry of ``managedFields`` without its fields and time."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Owned:
    """What one manager owns, and since when."""

    fields: FieldSet
    time: str


Owners = dict[Manager, Owned]


def read_owners(obj: JsonObject) -> Owners:
    """Read ``managedFields``; an entry that is none is the client's fault."""
    owners: Owners = {}
    for entry in obj["metadata"].get("managedFields") or []:
        if not entry:
            continue
        if entry.get("fieldsType", "FieldsV1") != "FieldsV1":
            raise bad_request("metadata.managedFields: fieldsType must be FieldsV1")
        manager = Manager(
            entry.get("manager", ""),
            entry.get("operation", "Update"),
            entry.get("apiVersion", ""),
            entry.get("subresource", ""),
        )
        fields = decode_fields(entry.get("fieldsV1") or {})
        owners[manager] = Owned(fields, entry.get("time", ""))
    return owners


def write_owners(obj: JsonObject, owners: Owners) -> None:
    """Write ``managedFields``: applies first, then by time and name."""

    def order(item: tuple[Manager, Owned]) -> tuple[bool, str, str]:
        manager, owned = item
        return (manager.operation != "Apply", owned.time, manager.name)

    entries = []
    for manager, owned in sorted(owners.items(), key=order):
        if not owned.fields:
            continue
        entry: JsonObject = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": encode_fields(owned.fields),
        }
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def changed_paths(
    before: JsonObject | None, after: JsonObject, node: JsonObject
) -> tuple[FieldSet, FieldSet]:
    """The leaves that *after* adds or changes, and all the leaves that it has."""
    old = leaves(before, node) if before is not None else {}
    new = leaves(after, node)
    changed = {path for path in new if path not in old or old[path] != new[path]}
    return frozenset(changed), frozenset(new)


def own_update(
    before: JsonObject | None,
    after: JsonObject,
    manager: Manager,
    node: JsonObject,
    now: str,
) -> None:
    """Record in *after* that *manager* wrote what differs from *before*."""
    changed, present = changed_paths(before, after, node)
    owners = read_owners(after)
    for other, owned in owners.items():
        left = owned.fields & present
        if other != manager:
            left -= changed
        owners[other] = Owned(left, owned.time)
    if changed:
        mine = owners[manager].fields if manager in owners else frozenset()
        owners[manager] = Owned(mine | changed, now)
    write_owners(after, owners)


@dataclass(frozen=True, slots=True)
class Application:
    """
    One apply: what is wanted, by whom, and whether conflicts are overruled.

    *forgiven* are fields that count as the manager's own already.
    """

    config: JsonObject
    manager: Manager
    force: bool
    now: str
    forgiven: FieldSet = frozenset()


def apply(live: JsonObject | None, wanted: Application, node: JsonObject) -> JsonObject:
    """
    Server-side apply: the object as it should be, ``managedFields`` included.

    Errors: 409 that names each field another manager holds at another value.
    """
    named = frozenset(leaves(wanted.config, node))
    base = live or {"metadata": {}}
    merged: JsonObject = copy.deepcopy(merge_applied(base, wanted.config, node))
    changed, _ = changed_paths(live, merged, node)
    owners = read_owners(live) if live is not None else {}
    others = {name: o for name, o in owners.items() if name != wanted.manager}
    contested = {name: o.fields & named & changed for name, o in others.items()}
    disputed = any(paths - wanted.forgiven for paths in contested.values())
    if disputed and not wanted.force:
        raise apply_conflict(_causes(contested))
    before = owners.get(wanted.manager)
    _drop_abandoned(merged, before, named, others, node)
    present = frozenset(leaves(merged, node))
    result: Owners = {
        name: Owned((o.fields - contested[name]) & present, o.time)
        for name, o in others.items()
    }
    unchanged = before is not None and before.fields == named and not changed
    time = before.time if before is not None and unchanged else wanted.now
    result[wanted.manager] = Owned(named, time)
    write_owners(merged, result)
    return merged


def _drop_abandoned(
    merged: JsonObject,
    before: Owned | None,
    named: FieldSet,
    others: Owners,
    node: JsonObject,
) -> None:
    """
    Remove what the manager named before, names no more, and nobody else holds.

    Short paths first: an item that loses its key could not be found any more.
    """
    if before is None:
        return
    held = {path for owned in others.values() for path in owned.fields} | named
    for path in sorted(before.fields - named, key=len):
        if not any(other[: len(path)] == path for other in held):
            remove_path(merged, path, node)


def _causes(contested: dict[Manager, FieldSet]) -> list[Cause]:
    causes = []
    for manager, paths in contested.items():
        using = f" using {manager.api_version}" if manager.operation == "Update" else ""
        text = f'conflict with "{manager.name}"{using}'
        if manager.subresource:
            text = (
                f'conflict with "{manager.name}" with subresource '
                f'"{manager.subresource}"{using}'
            )
        for path in sorted(paths):
            causes.append(Cause("FieldManagerConflict", text, spell_path(path)))
    return causes


def merge_applied(live: Any, config: Any, node: JsonObject) -> Any:
    """Merge *config* over *live*: maps and keyed lists merge, the rest replaces."""
    if isinstance(config, dict) and isinstance(live, dict) and not is_atomic(node):
        merged = dict(live)
        for key, value in config.items():
            merged[key] = merge_applied(live.get(key), value, child(node, key))
        return merged
    if isinstance(config, list) and is_associative(node):
        return _merge_associative(live, config, node)
    return copy.deepcopy(config)


def _merge_associative(live: Any, config: list[Any], node: JsonObject) -> list[Any]:
    present = list(live) if isinstance(live, list) else []
    at: dict[str, int] = {
        item_element(item, node): position for position, item in enumerate(present)
    }
    items = node.get("items") or {}
    seen: set[str] = set()
    for value in config:
        element = item_element(value, node)
        if element in seen:
            raise bad_request(f"duplicate entries for key [{spell_path((element,))}]")
        seen.add(element)
        if element in at:
            present[at[element]] = merge_applied(present[at[element]], value, items)
        else:
            present.append(
                merge_applied({} if isinstance(value, dict) else None, value, items)
            )
    return present
