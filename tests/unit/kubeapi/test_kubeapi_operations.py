"""What writes and deletes do to the store."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from outgate.kubeapi.admission import WriteOptions
from outgate.kubeapi.crds import Resource
from outgate.kubeapi.deletion import DeleteOptions, delete
from outgate.kubeapi.objects import Objects
from outgate.kubeapi.operations import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    Patch,
    create,
    patch,
    replace,
)
from outgate.kubeapi.status import ApiError
from outgate.kubeapi.wire import JsonObject

PLAIN = WriteOptions(manager="test")
STRICT = WriteOptions(manager="test", validation="Strict")
STATUS = WriteOptions(manager="test", subresource="status")
KEY = ("default", "p")
CRD: JsonObject = {
    "metadata": {"name": "routes.example.test"},
    "spec": {
        "group": "example.test",
        "scope": "Cluster",
        "names": {"kind": "Route", "plural": "routes"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {"via": {"type": "string"}},
                            },
                            "status": {
                                "type": "object",
                                "x-kubernetes-preserve-unknown-fields": True,
                            },
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture
def pods(objects: Objects) -> Resource:
    return objects.catalogue.built_in("Pod")


@pytest.fixture
def configs(objects: Objects) -> Resource:
    return objects.catalogue.built_in("ConfigMap")


@pytest.fixture
def routes(objects: Objects) -> Resource:
    crds = objects.catalogue.built_in("CustomResourceDefinition")
    create(objects, crds, ("", ""), CRD, PLAIN)
    found = objects.catalogue.find("example.test", "v1", "routes")
    assert found is not None
    return found


def new_pod() -> JsonObject:
    spec: JsonObject = {"containers": [{"name": "c", "image": "x:1"}]}
    return {"metadata": {"name": "p"}, "spec": spec}


def refused(code: int, call: Any, *args: Any) -> str:
    """The message of a refusal with *code*."""
    with pytest.raises(ApiError) as caught:
        call(*args)
    assert caught.value.code == code, caught.value.message
    return caught.value.message


def test_create_gives_identity(objects: Objects, pods: Resource) -> None:
    meta = create(objects, pods, ("default", ""), new_pod(), PLAIN).obj["metadata"]

    assert meta["creationTimestamp"] == "2024-05-01T00:00:00Z"
    assert (meta["generation"], meta["namespace"]) == (1, "default")
    assert meta["uid"].startswith("uid-")


def test_create_ignores_a_status(objects: Objects, pods: Resource) -> None:
    given = new_pod() | {"status": {"phase": "Running"}}

    made = create(objects, pods, ("default", ""), given, PLAIN)
    assert made.obj["status"]["phase"] == "Pending"


def test_create_twice_is_refused(objects: Objects, pods: Resource) -> None:
    create(objects, pods, ("default", ""), new_pod(), PLAIN)

    said = refused(409, create, objects, pods, ("default", ""), new_pod(), PLAIN)
    assert said == 'pods "p" already exists'


def test_create_makes_a_name_from_its_prefix(
    objects: Objects, configs: Resource
) -> None:
    body = {"metadata": {"generateName": "c-"}}
    name = create(objects, configs, ("default", ""), body, PLAIN).obj["metadata"][
        "name"
    ]

    assert name.startswith("c-")
    assert len(name) > 2


def test_create_in_a_missing_namespace_is_refused(
    objects: Objects, pods: Resource
) -> None:
    said = refused(404, create, objects, pods, ("nowhere", ""), new_pod(), PLAIN)

    assert said == 'namespaces "nowhere" not found'


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "-a", "a" * 254])
def test_create_with_a_bad_name_is_refused(
    objects: Objects, configs: Resource, name: str
) -> None:
    body = {"metadata": {"name": name}}

    assert "metadata.name" in refused(
        422, create, objects, configs, ("default", ""), body, PLAIN
    )


def test_create_with_an_unknown_field_is_refused_when_strict(
    objects: Objects, pods: Resource
) -> None:
    body = new_pod()
    body["spec"]["nodeNaem"] = "n"

    said = refused(400, create, objects, pods, ("default", ""), body, STRICT)
    assert 'unknown field "spec.nodeNaem"' in said
    made = create(objects, pods, ("default", ""), body, PLAIN)
    assert made.warnings == ('unknown field "spec.nodeNaem"',)


def test_dry_run_stores_nothing(objects: Objects, pods: Resource) -> None:
    version = objects.storage.version
    create(objects, pods, ("default", ""), new_pod(), WriteOptions(dry_run=True))

    assert objects.storage.version == version


def test_replace_with_an_old_version_conflicts(
    objects: Objects, configs: Resource
) -> None:
    body = {"metadata": {"name": "p"}, "data": {"a": "1"}}
    old = create(objects, configs, ("default", ""), body, PLAIN).obj
    replace(objects, configs, KEY, old | {"data": {"a": "2"}}, PLAIN)

    said = refused(409, replace, objects, configs, KEY, old, PLAIN)
    assert "the object has been modified" in said


def test_replace_that_changes_nothing_keeps_the_version(
    objects: Objects, configs: Resource
) -> None:
    body = {"metadata": {"name": "p"}, "data": {"a": "1"}}
    old = create(objects, configs, ("default", ""), body, PLAIN).obj

    assert replace(objects, configs, KEY, old, PLAIN).obj == old


def test_generation_follows_the_spec_alone(objects: Objects, routes: Resource) -> None:
    key = ("", "r")
    create(objects, routes, key, {"spec": {"via": "a"}}, PLAIN)
    steps = [
        ({"spec": {"via": "b"}}, PLAIN),
        ({"metadata": {"labels": {"x": "y"}}}, PLAIN),
        ({"status": {"ok": True}}, STATUS),
    ]
    generations = [
        patch(objects, routes, key, Patch(MERGE_PATCH, body), options).obj["metadata"][
            "generation"
        ]
        for body, options in steps
    ]

    assert generations == [2, 2, 2]


def test_status_patch_changes_only_the_status(objects: Objects, pods: Resource) -> None:
    create(objects, pods, ("default", ""), new_pod(), PLAIN)
    both = {"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Running"}}
    after = patch(objects, pods, KEY, Patch(STRATEGIC_PATCH, both), STATUS).obj

    assert after["status"]["phase"] == "Running"
    assert "labels" not in after["metadata"]


def test_main_patch_leaves_the_status_alone(objects: Objects, pods: Resource) -> None:
    create(objects, pods, ("default", ""), new_pod(), PLAIN)
    both = {"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Running"}}
    after = patch(objects, pods, KEY, Patch(MERGE_PATCH, both), PLAIN).obj

    assert after["status"]["phase"] == "Pending"
    assert after["metadata"]["labels"] == {"a": "b"}


def test_pod_spec_may_not_change(objects: Objects, pods: Resource) -> None:
    create(objects, pods, ("default", ""), new_pod(), PLAIN)
    change = Patch(MERGE_PATCH, {"spec": {"hostNetwork": True}})

    said = refused(422, patch, objects, pods, KEY, change, PLAIN)
    assert "pod updates may not change fields" in said


def test_patch_may_not_rename(objects: Objects, configs: Resource) -> None:
    create(objects, configs, KEY, {}, PLAIN)
    change = Patch(MERGE_PATCH, {"metadata": {"name": "q"}})

    assert "does not match the name" in refused(
        400, patch, objects, configs, KEY, change, PLAIN
    )


def test_patch_of_identity_is_without_effect(
    objects: Objects, configs: Resource
) -> None:
    create(objects, configs, KEY, {}, PLAIN)
    path, value = "/metadata/creationTimestamp", "2020-01-01T00:00:00Z"
    change = [{"op": "replace", "path": path, "value": value}]
    after = patch(objects, configs, KEY, Patch(JSON_PATCH, change), PLAIN).obj

    assert after["metadata"]["creationTimestamp"] == "2024-05-01T00:00:00Z"


def test_strategic_patch_of_a_custom_object_is_unsupported(
    objects: Objects, routes: Resource
) -> None:
    create(objects, routes, ("", "r"), {}, PLAIN)
    change = Patch(STRATEGIC_PATCH, {})

    refused(415, patch, objects, routes, ("", "r"), change, PLAIN)


def test_apply_creates_what_is_not_there(objects: Objects, routes: Resource) -> None:
    body = {
        "apiVersion": "example.test/v1",
        "kind": "Route",
        "metadata": {"name": "r"},
        "spec": {"via": "a"},
    }
    done = patch(objects, routes, ("", "r"), Patch(APPLY_PATCH, body), PLAIN)

    assert done.created
    assert done.obj["metadata"]["managedFields"][0]["operation"] == "Apply"


def test_crd_is_established_at_once(objects: Objects, routes: Resource) -> None:
    crds = objects.catalogue.built_in("CustomResourceDefinition")
    status = objects.require(crds, ("", "routes.example.test"))["status"]

    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "NamesAccepted": "True",
        "Established": "True",
    }
    assert status["acceptedNames"]["singular"] == "route"


def test_crd_with_a_wrong_name_is_refused(objects: Objects) -> None:
    crds = objects.catalogue.built_in("CustomResourceDefinition")
    body = CRD | {"metadata": {"name": "ways.example.test"}}

    said = refused(422, create, objects, crds, ("", ""), body, PLAIN)
    assert 'which is "routes.example.test"' in said


@pytest.mark.parametrize(
    ("node", "field"),
    [
        ({"type": "string"}, "openAPIV3Schema.type"),
        ({"type": "object", "properties": {"a": {"type": "text"}}}, "openAPIV3Schema"),
        ({"type": "object", "properties": 5}, "openAPIV3Schema.properties"),
        (
            {"type": "object", "properties": {"a": {"pattern": "("}}},
            "openAPIV3Schema",
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"x-kubernetes-list-map-keys": "name"}},
            },
            "openAPIV3Schema.properties.a.x-kubernetes-list-map-keys",
        ),
    ],
)
def test_crd_whose_schema_is_none_is_refused(
    objects: Objects, node: JsonObject, field: str
) -> None:
    crds = objects.catalogue.built_in("CustomResourceDefinition")
    body = copy.deepcopy(CRD)
    body["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = node

    said = refused(422, create, objects, crds, ("", ""), body, PLAIN)
    assert f"spec.versions[0].schema.{field}: Invalid value" in said


def test_crd_takes_its_objects_along(objects: Objects, routes: Resource) -> None:
    create(objects, routes, ("", "r"), {}, PLAIN)
    crds = objects.catalogue.built_in("CustomResourceDefinition")
    delete(objects, crds, ("", "routes.example.test"), DeleteOptions())

    assert objects.storage.objects("routes.example.test") == ()
    assert objects.catalogue.find("example.test", "v1", "routes") is None
