"""CEL rules of custom resources, as the API words what breaks them."""

from __future__ import annotations

from typing import Any

import pytest

from outgate.kubeapi.admission import WriteOptions
from outgate.kubeapi.crds import Resource
from outgate.kubeapi.objects import Objects
from outgate.kubeapi.operations import MERGE_PATCH, Patch, create, patch, replace
from outgate.kubeapi.schema import Schema
from outgate.kubeapi.status import ApiError
from outgate.kubeapi.typetable import built_in_schema
from outgate.kubeapi.validations import RuleError, compile_rules
from outgate.kubeapi.wire import JsonObject


def schema(spec: JsonObject, *rules: JsonObject) -> Schema:
    node = {
        "type": "object",
        "properties": {"spec": {"type": "object", **spec}},
        "x-kubernetes-validations": list(rules),
    }
    return Schema(node, built_in_schema("ObjectMeta"))


def faults(spec: JsonObject, value: Any) -> list[str]:
    found = schema(spec).faults({"spec": value})
    return [f"{cause.field}: {cause.message}" for cause in found]


def must(rule: str, **more: str) -> dict[str, Any]:
    return {"x-kubernetes-validations": [{"rule": rule, **more}]}


ITEM: JsonObject = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
    **must("has(self.a) || has(self.b)", message="  needs a or b\n"),
}
LIST: JsonObject = {"properties": {"list": {"type": "array", "items": ITEM}}}
MAP: JsonObject = {
    "properties": {"map": {"type": "object", "additionalProperties": ITEM}}
}


def test_rule_that_holds_is_silent() -> None:
    assert faults(LIST, {"list": [{"a": "x"}, {"b": "y"}]}) == []


def test_rule_names_the_item_that_breaks_it() -> None:
    assert faults(LIST, {"list": [{"a": "x"}, {}]}) == [
        'spec.list[1]: Invalid value: "object": needs a or b'
    ]


def test_rule_names_the_member_of_a_map_that_breaks_it() -> None:
    assert faults(MAP, {"map": {"good": {"a": "x"}, "bad": {}}}) == [
        'spec.map[bad]: Invalid value: "object": needs a or b'
    ]


def test_rule_without_a_message_is_its_own() -> None:
    spec = {"properties": {"n": {"type": "integer"} | must("self > 3")}}

    assert faults(spec, {"n": 2}) == [
        'spec.n: Invalid value: "integer": failed rule: self > 3'
    ]


def test_rule_of_the_root_has_no_path() -> None:
    rule = {"rule": "size(self.metadata.name) < 3", "message": "too long"}
    found = schema({}, rule).faults({"metadata": {"name": "abc"}})

    assert [(cause.field, cause.message) for cause in found] == [
        ("<nil>", 'Invalid value: "object": too long')
    ]


def test_rule_tells_with_its_own_expression_reason_and_field() -> None:
    rule = must(
        "has(self.a)",
        messageExpression="'b is ' + self.b",
        reason="FieldValueRequired",
        fieldPath=".a",
    )
    spec = {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}} | rule
    (cause,) = schema(spec).faults({"spec": {"b": "x"}})

    assert (cause.reason, cause.field, cause.message) == (
        "FieldValueRequired",
        "spec.a",
        "Required value: b is x",
    )


def test_rule_that_cannot_be_evaluated_is_broken() -> None:
    spec = {"properties": {"a": {"type": "string"}}} | must("self.a == 'x'")
    (said,) = faults(spec, {})

    assert said.startswith('spec: Invalid value: "object": rule evaluation error: ')


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("self.__namespace__ == 'x'", {"namespace": "x"}),
        ("self.a__dash__b == 1", {"a-b": 1}),
        ("self.ratio > 1.5", {"ratio": 2}),
        ("self.map['a-b'] == 'x'", {"map": {"a-b": "x"}}),
        ("self.list.all(i, i.startsWith('a'))", {"list": ["a", "ab"]}),
    ],
)
def test_rule_sees_names_and_numbers_as_in_kubernetes(
    rule: str, value: JsonObject
) -> None:
    spec = {
        "properties": {
            "namespace": {"type": "string"},
            "a-b": {"type": "integer"},
            "ratio": {"type": "number"},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "list": {"type": "array", "items": {"type": "string"}},
        }
    }

    assert faults(spec | must(rule), value) == []


def test_rules_wait_until_the_object_has_its_shape() -> None:
    spec = {"required": ["b"], "properties": {"b": {"type": "string"}}} | must("false")

    assert faults(spec, {}) == [
        "spec.b: Required value",
        '<nil>: Invalid value: "null": some validation rules were not checked because'
        " the object was invalid; correct the existing errors to complete validation",
    ]


def test_rules_are_evaluated_beside_a_wrong_pattern() -> None:
    spec = {"properties": {"b": {"type": "string", "pattern": "^x$"}}} | must("false")

    assert len(faults(spec, {"b": "y"})) == 2


def test_list_with_too_many_items_is_told_so() -> None:
    spec = {"properties": {"l": {"type": "array", "maxItems": 1, "items": {}}}}

    assert faults(spec, {"l": [1, 2]}) == [
        "spec.l: Too many: 2: must have at most 1 items"
    ]


def test_text_that_is_too_long_is_told_so_instead_of_its_rules() -> None:
    spec = {"properties": {"t": {"type": "string", "maxLength": 1} | must("false")}}

    assert faults(spec, {"t": "ab"})[0] == (
        "spec.t: Too long: may not be more than 1 bytes"
    )
    assert "were not checked" in faults(spec, {"t": "ab"})[1]


@pytest.mark.parametrize(
    ("rules", "place", "reason"),
    [
        ([{"rule": "1 +"}], "[0].rule", "compilation failed"),
        ([{"rule": "self == oldSelf"}], "[0].rule", "oldSelf"),
        ([{"rule": "true"}, {"message": "x"}], "[1].rule", "is not specified"),
        ([{"rule": "true", "reason": "Why"}], "[0].reason", "use one of"),
        ([{"rule": "true", "messageExpression": "("}], "[0].messageExp", "compilation"),
        ("true", "", "must be a list"),
    ],
)
def test_rule_that_is_none_is_refused_with_its_place(
    rules: object, place: str, reason: str
) -> None:
    node = {"properties": {"spec": {"x-kubernetes-validations": rules}}}
    with pytest.raises(RuleError, match=reason) as refusal:
        compile_rules(node)

    prefix = f".properties[spec].x-kubernetes-validations{place}"
    assert refusal.value.path.startswith(prefix)


PLAIN = WriteOptions(manager="test")
NEEDS_A = {"spec": {"type": "object", "properties": {"item": ITEM}}}


def crd_of(properties: JsonObject) -> JsonObject:
    return {
        "metadata": {"name": "things.example.test"},
        "spec": {
            "group": "example.test",
            "scope": "Cluster",
            "names": {"kind": "Thing", "plural": "things"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {"type": "object", "properties": properties}
                    },
                }
            ],
        },
    }


def define(objects: Objects, properties: JsonObject) -> Resource | None:
    crds = objects.catalogue.built_in("CustomResourceDefinition")
    create(objects, crds, ("", ""), crd_of(properties), PLAIN)
    return objects.catalogue.find("example.test", "v1", "things")


def test_no_way_to_write_goes_past_the_rules(objects: Objects) -> None:
    things = define(objects, NEEDS_A)
    assert things is not None
    good = {"metadata": {"name": "t"}, "spec": {"item": {"a": "x"}}}
    bad = {"metadata": {"name": "t"}, "spec": {"item": {}}}
    said = (
        'Thing.example.test "t" is invalid: spec.item: Invalid value: "object": needs'
    )

    with pytest.raises(ApiError, match=said):
        create(objects, things, ("", ""), bad, PLAIN)
    stored = create(objects, things, ("", ""), good, PLAIN).obj
    with pytest.raises(ApiError, match=said):
        replace(objects, things, ("", "t"), stored | {"spec": bad["spec"]}, PLAIN)
    change = Patch(MERGE_PATCH, {"spec": {"item": {"a": None}}})
    with pytest.raises(ApiError, match=said):
        patch(objects, things, ("", "t"), change, PLAIN)


def test_crd_with_a_transition_rule_is_refused_with_its_place(objects: Objects) -> None:
    spec = {"type": "object", **must("self == oldSelf")}
    place = (
        r"spec\.versions\[0\]\.schema\.openAPIV3Schema\.properties\[spec\]"
        r"\.x-kubernetes-validations\[0\]\.rule: Invalid value: \"self == oldSelf\""
    )
    with pytest.raises(ApiError, match=place):
        define(objects, {"spec": spec})
