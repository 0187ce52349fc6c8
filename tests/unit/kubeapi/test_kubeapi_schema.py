"""Type tables and structural schemas."""

from __future__ import annotations

import pytest

from outgate.kubeapi.kinds import BUILT_IN_KINDS
from outgate.kubeapi.schema import Schema
from outgate.kubeapi.typetable import (
    TypeTableError,
    built_in_schema,
    parse_types,
    type_table,
)
from outgate.kubeapi.wire import JsonObject

NODE: JsonObject = {
    "properties": {
        "spec": {
            "type": "object",
            "required": ["cidr"],
            "properties": {
                "cidr": {"type": "string", "format": "cidr"},
                "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                "port": {"x-kubernetes-int-or-string": True},
                "count": {
                    "type": "integer",
                    "minimum": 0,
                    "exclusiveMinimum": True,
                    "nullable": True,
                },
                "free": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {"known": {"type": "object"}},
                },
                "list": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"x": {"type": "integer", "default": 1}},
                    },
                },
            },
        }
    }
}
SCHEMA = Schema(NODE, built_in_schema("ObjectMeta"))


def faults(**spec: object) -> list[str]:
    return [f"{c.field}: {c.message}" for c in SCHEMA.faults({"spec": spec})]


@pytest.mark.parametrize("kind", [kind.kind for kind in BUILT_IN_KINDS])
def test_every_built_in_kind_has_a_shape(kind: str) -> None:
    assert "metadata" in built_in_schema(kind)["properties"]


def test_type_table_describes_every_field() -> None:
    nameless = [
        f"{name}.{field}"
        for name, node in type_table().items()
        for field, inner in node["properties"].items()
        if not inner.get("description")
    ]

    assert nameless == []


def test_type_table_with_a_broken_line_names_it() -> None:
    with pytest.raises(TypeTableError, match="neither a type nor a field"):
        parse_types("A: a type\n  field without meaning")


def test_prune_removes_and_names_unknown_fields() -> None:
    obj = {"spec": {"cidr": "x", "typo": 1, "list": [{"x": 1, "y": 2}]}, "top": 1}

    assert SCHEMA.prune(obj) == ["spec.typo", "spec.list[0].y", "top"]
    assert obj == {"spec": {"cidr": "x", "list": [{"x": 1}]}}


def test_prune_leaves_what_must_be_preserved() -> None:
    obj = {"spec": {"free": {"any": {"thing": 1}, "known": {"typo": 1}}}}

    assert SCHEMA.prune(obj) == ["spec.free.known.typo"]


def test_defaults_reach_list_items() -> None:
    obj: JsonObject = {"spec": {"list": [{}, {"x": 5}]}}
    SCHEMA.fill_defaults(obj)

    assert obj["spec"] == {"list": [{"x": 1}, {"x": 5}], "mode": "a"}


def test_faults_of_a_good_object_are_none() -> None:
    assert faults(cidr="10.0.0.0/8", port="http", count=None) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "spec.cidr: Required value"),
        (
            {"cidr": 5},
            'spec.cidr: Invalid value: "integer": spec.cidr in body must be of type '
            'string: "integer"',
        ),
        (
            {"cidr": "10.0.0.0/8", "mode": "c"},
            'spec.mode: Unsupported value: "c": supported values: "a", "b"',
        ),
    ],
)
def test_faults_speak_as_the_real_api(spec: dict[str, object], message: str) -> None:
    assert faults(**spec) == [message]


def test_faults_are_all_named() -> None:
    assert len(faults(cidr="10.0.0.0/99", count=0, port=1.5)) == 3
