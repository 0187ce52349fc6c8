"""Requests, pages and watches, without a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from outgate.kubeapi.admission import WriteOptions
from outgate.kubeapi.deletion import DeleteOptions, delete
from outgate.kubeapi.listing import View, encode_page, read_page
from outgate.kubeapi.objects import Objects
from outgate.kubeapi.operations import MERGE_PATCH, Patch, create, patch
from outgate.kubeapi.protocol import (
    ListOptions,
    Location,
    Shape,
    locate,
    parse_list_options,
    parse_shape,
)
from outgate.kubeapi.status import ApiError
from outgate.kubeapi.watch import Watch

STREAMED = {
    "sendInitialEvents": "true",
    "resourceVersionMatch": "NotOlderThan",
    "allowWatchBookmarks": "true",
}
NOW = datetime(2024, 5, 1, tzinfo=UTC)
CONFIGS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def place(objects: Objects) -> Location:
    found = locate(CONFIGS, objects.catalogue)
    assert found is not None
    return found


def make(objects: Objects, place: Location, name: str, **labels: str) -> None:
    body = {"metadata": {"name": name, "labels": labels}}
    create(objects, place.resource, ("default", name), body, WriteOptions())


def label(objects: Objects, place: Location, name: str, **labels: str | None) -> None:
    change = Patch(MERGE_PATCH, {"metadata": {"labels": labels}})
    patch(objects, place.resource, ("default", name), change, WriteOptions())


def open_watch(
    objects: Objects, place: Location, shape: Shape = Shape.OBJECT, **query: str
) -> Watch:
    wanted = parse_list_options({"watch": "true", **query}, place.resource)
    return Watch(objects.storage, place, wanted, View(shape, NOW), lambda: NOW)


def events(lines: list[bytes]) -> list[tuple[str, Any]]:
    decoded = [json.loads(line) for line in lines]
    return [
        (event["type"], event["object"].get("metadata", {}).get("name"))
        for event in decoded
    ]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/api/v1/pods", ("pods", "", "", "")),
        ("/api/v1/namespaces/a/pods/b", ("pods", "a", "b", "")),
        ("/api/v1/namespaces/a/pods/b/log", ("pods", "a", "b", "log")),
        ("/api/v1/namespaces/a", ("namespaces", "", "a", "")),
        ("/api/v1/namespaces/a/status", ("namespaces", "", "a", "status")),
        ("/apis/coordination.k8s.io/v1/leases", ("leases", "", "", "")),
        ("/api/v1/pods/b", None),
        ("/api/v1/namespaces/a/pods/b/nothing", None),
        ("/api/v1/namespaces/a/deployments", None),
        ("/api/v1", None),
        ("/", None),
    ],
)
def test_locate_reads_paths(objects: Objects, path: str, found: object) -> None:
    place = locate(path, objects.catalogue)
    parts = place and (
        place.resource.kind.plural,
        place.namespace,
        place.name,
        place.subresource,
    )

    assert parts == found


def test_locate_names_what_it_does_not_serve(objects: Objects) -> None:
    with pytest.raises(ApiError, match="pods/portforward is not served") as caught:
        locate("/api/v1/namespaces/a/pods/b/portforward", objects.catalogue)

    assert caught.value.code == 501


@pytest.mark.parametrize(
    ("accept", "shape"),
    [
        ("", Shape.OBJECT),
        ("application/json", Shape.OBJECT),
        ("application/vnd.kubernetes.protobuf,application/json", Shape.OBJECT),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Shape.TABLE),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,*/*", Shape.OBJECT),
        (
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Shape.METADATA,
        ),
    ],
)
def test_accept_header_chooses_the_shape(accept: str, shape: Shape) -> None:
    assert parse_shape(accept)[0] is shape


def test_pages_are_one_list_although_it_changes(
    objects: Objects, place: Location
) -> None:
    for name in ("a", "b", "c", "d", "e"):
        make(objects, place, name)
    names: list[str] = []
    versions = set()
    token = ""
    while True:
        page = read_page(
            objects.storage, place, ListOptions(limit=2, continue_token=token)
        )
        names += [one.name for one in page.items]
        versions.add(page.version)
        make(objects, place, f"late-{len(names)}")
        token = page.token
        if not token:
            break

    assert names == ["a", "b", "c", "d", "e"]
    assert len(versions) == 1


def test_page_says_how_many_remain(objects: Objects, place: Location) -> None:
    for name in ("a", "b", "c"):
        make(objects, place, name)
    page = read_page(objects.storage, place, ListOptions(limit=1))
    body = json.loads(encode_page(place, page, View(Shape.OBJECT, NOW)))

    assert body["metadata"]["remainingItemCount"] == 2
    assert body["kind"] == "ConfigMapList"


def test_list_of_the_future_times_out(objects: Objects, place: Location) -> None:
    with pytest.raises(ApiError) as caught:
        read_page(objects.storage, place, ListOptions(version="99999"))

    assert caught.value.code == 504


def test_watch_without_a_version_starts_with_what_is_there(
    objects: Objects, place: Location
) -> None:
    make(objects, place, "a")
    watch = open_watch(objects, place)

    assert events(watch.start()) == [("ADDED", "a")]
    label(objects, place, "a", x="y")
    delete(objects, place.resource, ("default", "a"), DeleteOptions())
    assert events(watch.take()) == [("MODIFIED", "a"), ("DELETED", "a")]
    assert watch.take() == []


def test_watch_from_a_version_starts_after_it(
    objects: Objects, place: Location
) -> None:
    make(objects, place, "a")
    version = objects.storage.version
    make(objects, place, "b")
    watch = open_watch(objects, place, resourceVersion=str(version))

    assert events(watch.start()) == [("ADDED", "b")]


def test_watch_with_initial_events_marks_their_end(
    objects: Objects, place: Location
) -> None:
    make(objects, place, "a")
    watch = open_watch(objects, place, Shape.OBJECT, **STREAMED)
    lines = [json.loads(line) for line in watch.start()]

    assert [line["type"] for line in lines] == ["ADDED", "BOOKMARK"]
    annotations = lines[1]["object"]["metadata"]["annotations"]
    assert annotations == {"k8s.io/initial-events-end": "true"}


@pytest.mark.parametrize("shape", [Shape.OBJECT, Shape.TABLE])
def test_watch_with_initial_events_goes_on_after_them(
    objects: Objects, place: Location, shape: Shape
) -> None:
    """Also from a version: what is there then comes first, as it is now."""
    make(objects, place, "a")
    since = str(objects.storage.version)
    make(objects, place, "b")
    watch = open_watch(
        objects,
        place,
        shape,
        **STREAMED,
        resourceVersion=since,
    )
    begun = [json.loads(line)["type"] for line in watch.start()]
    make(objects, place, "c")

    assert begun == ["ADDED", "ADDED", "BOOKMARK"]
    assert [json.loads(line)["type"] for line in watch.take()] == ["ADDED"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"watch": "1", "sendInitialEvents": "true"}, "resourceVersionMatch"),
        ({"sendInitialEvents": "true"}, "sendInitialEvents"),
        ({"watch": "1", "resourceVersionMatch": "Exact"}, "resourceVersionMatch"),
        ({"resourceVersionMatch": "Exact"}, "resourceVersionMatch"),
        (
            {"resourceVersionMatch": "Newest", "resourceVersion": "1"},
            "resourceVersionMatch",
        ),
    ],
)
def test_beginnings_that_the_real_api_refuses_are_refused(
    place: Location, query: dict[str, str], field: str
) -> None:
    with pytest.raises(ApiError) as refused:
        parse_list_options(query, place.resource)

    assert refused.value.code == 422
    assert refused.value.message.startswith(
        f'ListOptions.meta.k8s.io "" is invalid: {field}: '
    )


def test_watch_sees_objects_move_in_and_out_of_its_selector(
    objects: Objects, place: Location
) -> None:
    make(objects, place, "a")
    watch = open_watch(objects, place, labelSelector="x=y")
    watch.start()
    label(objects, place, "a", x="y")
    label(objects, place, "a", z="1")
    label(objects, place, "a", x=None)
    label(objects, place, "a", z=None)

    assert events(watch.take()) == [
        ("ADDED", "a"),
        ("MODIFIED", "a"),
        ("DELETED", "a"),
    ]


@pytest.mark.parametrize("version", ["2", "99999"])
def test_watch_that_cannot_go_on_ends_with_410(
    objects: Objects, place: Location, version: str
) -> None:
    for number in range(60):
        make(objects, place, f"n{number}")
    watch = open_watch(objects, place, resourceVersion=version)
    (line,) = watch.start()
    event = json.loads(line)

    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert watch.is_over


def test_bookmark_carries_the_newest_version(objects: Objects, place: Location) -> None:
    watch = open_watch(objects, place)
    watch.start()
    create(
        objects,
        objects.catalogue.built_in("Namespace"),
        ("", "other"),
        {},
        WriteOptions(),
    )
    watch.take()
    mark = json.loads(watch.bookmark())

    assert mark["object"]["metadata"]["resourceVersion"] == str(objects.storage.version)


def test_watch_as_a_table_names_the_columns_once(
    objects: Objects, place: Location
) -> None:
    make(objects, place, "a")
    make(objects, place, "b")
    lines = open_watch(objects, place, Shape.TABLE).start()
    columns = [len(json.loads(line)["object"]["columnDefinitions"]) for line in lines]

    assert columns == [3, 0]
