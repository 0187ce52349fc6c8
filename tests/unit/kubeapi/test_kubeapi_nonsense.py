"""Whatever a client sends, it gets an answer or a Status, never a crash."""

from __future__ import annotations

import copy
import itertools
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from outgate.kubeapi.admission import WriteOptions
from outgate.kubeapi.catalogue import Catalogue
from outgate.kubeapi.deletion import delete
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
from outgate.kubeapi.protocol import parse_delete_options
from outgate.kubeapi.status import ApiError
from outgate.kubeapi.storage import Storage
from outgate.kubeapi.wire import JsonObject

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "key", "a"]), inner, max_size=3)
    ),
    max_leaves=5,
)
POD: JsonObject = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "p",
        "namespace": "default",
        "labels": {"a": "b"},
        "finalizers": ["x.test/y"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "1"}],
        "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {"f:x": {}}}}],
    },
    "spec": {
        "nodeName": "n",
        "containers": [
            {"name": "c", "image": "x", "ports": [{"containerPort": 80}], "env": []}
        ],
    },
}
SERVICE: JsonObject = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "s", "namespace": "default"},
    "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}, "type": "ClusterIP"},
}
SECRET: JsonObject = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "s", "namespace": "default"},
    "stringData": {"a": "b"},
}
CRD: JsonObject = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "xs.example.test"},
    "spec": {
        "group": "example.test",
        "scope": "Cluster",
        "names": {"kind": "X", "plural": "xs", "shortNames": ["x"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "A", "type": "string", "jsonPath": ".spec.a"}
                ],
                "selectableFields": [{"jsonPath": ".spec.a"}],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object"}},
                    }
                },
            }
        ],
    },
}


def paths(value: Any) -> list[tuple[Any, ...]]:
    """Every place in *value*."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [(key, *rest) for key, item in inner for rest in [(), *paths(item)]]


@st.composite
def nearly_right(draw: st.DrawFn) -> tuple[JsonObject, JsonObject]:
    """A good object, and the same with one place replaced by anything."""
    good = draw(st.sampled_from([POD, SERVICE, SECRET, CRD]))
    bad = copy.deepcopy(good)
    *way, last = draw(st.sampled_from(paths(good)))
    place: Any = bad
    for step in way:
        place = place[step]
    place[last] = draw(VALUES)
    return good, bad


def world() -> Objects:
    uids = itertools.count(1)
    made = Objects(
        Storage(history=20),
        Catalogue(),
        clock=lambda: datetime(2024, 5, 1, tzinfo=UTC),
        new_uid=lambda: f"uid-{next(uids)}",
    )
    namespaces = made.catalogue.built_in("Namespace")
    create(made, namespaces, ("", "default"), {}, WriteOptions())
    return made


@settings(max_examples=60, deadline=None)
@given(nearly_right())
def test_create_of_nonsense_is_refused(pair: tuple[JsonObject, JsonObject]) -> None:
    good, bad = pair
    objects = world()
    resource = objects.catalogue.built_in(good["kind"])
    key = (good["metadata"].get("namespace", ""), "")
    with suppress(ApiError):
        create(objects, resource, key, bad, WriteOptions())


@settings(max_examples=120, deadline=None)
@given(
    nearly_right(),
    st.sampled_from([JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH, ""]),
    st.sampled_from(["", "status"]),
)
def test_change_to_nonsense_is_refused(
    pair: tuple[JsonObject, JsonObject], media_type: str, subresource: str
) -> None:
    good, bad = pair
    objects = world()
    resource = objects.catalogue.built_in(good["kind"])
    key = (good["metadata"].get("namespace", ""), good["metadata"]["name"])
    create(objects, resource, (key[0], ""), good, WriteOptions())
    options = WriteOptions(subresource=subresource)
    body: Any = bad
    if media_type == JSON_PATCH:
        body = [
            {"op": "replace", "path": f"/{name}", "value": value}
            for name, value in bad.items()
        ]
    with suppress(ApiError):
        if media_type:
            patch(objects, resource, key, Patch(media_type, body), options)
        else:
            replace(objects, resource, key, bad, options)


@settings(max_examples=40, deadline=None)
@given(
    VALUES,
    st.sampled_from(["$patch", "$setElementOrder/containers", "$retainKeys"]),
    st.sampled_from(["containers", "$deleteFromPrimitiveList/tolerations"]),
)
def test_directives_made_of_nonsense_are_refused(
    value: Any, directive: str, other: str
) -> None:
    objects = world()
    pods = objects.catalogue.built_in("Pod")
    create(objects, pods, ("default", ""), POD, WriteOptions())
    for body in ({"spec": {directive: value}}, {"spec": {other: value}}):
        change = Patch(STRATEGIC_PATCH, body)
        with suppress(ApiError):
            patch(objects, pods, ("default", "p"), change, WriteOptions())


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["gracePeriodSeconds", "preconditions", "dryRun"]),
        VALUES,
    )
)
def test_delete_options_made_of_nonsense_are_refused(body: Any) -> None:
    objects = world()
    pods = objects.catalogue.built_in("Pod")
    create(objects, pods, ("default", ""), POD, WriteOptions())
    with suppress(ApiError):
        delete(objects, pods, ("default", "p"), parse_delete_options({}, body))
