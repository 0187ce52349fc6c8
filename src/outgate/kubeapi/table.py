"""
``Table`` answers: objects as rows, for ``kubectl get``.

What it is: column definitions and rows for any kind, from ``printers`` or, for a
custom kind, from its ``additionalPrinterColumns``.
What it is not: a decision whether a client wants a table (``protocol``).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from outgate.kubeapi.crds import Column, Resource
from outgate.kubeapi.jsonpath import find_all
from outgate.kubeapi.printers import PRINTERS, age, plain_row
from outgate.kubeapi.wire import JsonObject

_NUMBERS = ("Data", "Secrets", "Count")
_AGE = Column("Age", "date", ".metadata.creationTimestamp")


def columns_of(resource: Resource) -> list[JsonObject]:
    """The column definitions; those of priority 1 show only with ``-o wide``."""
    kind = resource.kind
    if not kind.custom:
        printer = PRINTERS[kind.kind]
        first_wide = len(printer.columns) - printer.wide
        return [
            _definition(name, "integer" if name in _NUMBERS else "string", wide)
            for position, name in enumerate(printer.columns)
            for wide in (int(position >= first_wide),)
        ]
    name = _definition("Name", "string", 0)
    return [name] + [
        _definition(c.name, c.type, c.priority)
        | {"format": c.format, "description": c.description}
        for c in resource.columns or (_AGE,)
    ]


def _definition(name: str, kind: str, priority: int) -> JsonObject:
    is_name = name == "Name" and priority == 0
    return {
        "name": name,
        "type": kind,
        "format": "name" if is_name else "",
        "description": "",
        "priority": priority,
    }


def cells_of(resource: Resource, obj: JsonObject, now: datetime) -> list[Any]:
    """One row's cells, as many as ``columns_of`` names."""
    if not resource.kind.custom:
        return PRINTERS[resource.kind.kind].row(obj, now)
    columns = resource.columns or (_AGE,)
    return plain_row(obj, now)[:1] + [_custom_cell(c, obj, now) for c in columns]


def _custom_cell(column: Column, obj: JsonObject, now: datetime) -> Any:
    values = [value for value in find_all(obj, column.path) if value is not None]
    if not values:
        return None
    if column.type == "date":
        return age(values[0], now)
    if column.type == "string":
        return " ".join(_text(value) for value in values)
    return values[0]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(f'"{_text(item)}"' for item in value) + "]"
    return str(value)


def make_table(
    resource: Resource,
    objects: Iterable[JsonObject],
    now: datetime,
    *,
    include: str = "Metadata",
    with_columns: bool = True,
) -> JsonObject:
    """
    Pack *objects* as a ``Table``.

    *include* is ``None``, ``Metadata`` or ``Object``: what each row carries along.
    In a watch only the first table has columns.
    """
    rows = []
    for obj in objects:
        row: JsonObject = {"cells": cells_of(resource, obj, now)}
        if include == "Object":
            row["object"] = obj
        elif include == "Metadata":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": obj["metadata"],
            }
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": columns_of(resource) if with_columns else [],
        "rows": rows,
    }
