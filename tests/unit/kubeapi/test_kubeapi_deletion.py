"""Deleting: graceful, with finalizers, and of what holds other objects."""

from __future__ import annotations

import pytest

from outgate.kubeapi.admission import WriteOptions
from outgate.kubeapi.crds import Resource
from outgate.kubeapi.deletion import DeleteOptions, delete
from outgate.kubeapi.objects import Objects
from outgate.kubeapi.operations import MERGE_PATCH, Patch, create, patch
from outgate.kubeapi.status import ApiError
from outgate.kubeapi.wire import JsonObject

PLAIN = WriteOptions(manager="test")
STATUS = WriteOptions(manager="test", subresource="status")
KEY = ("default", "p")


@pytest.fixture
def pods(objects: Objects) -> Resource:
    return objects.catalogue.built_in("Pod")


@pytest.fixture
def configs(objects: Objects) -> Resource:
    return objects.catalogue.built_in("ConfigMap")


def new_pod(node: str = "") -> JsonObject:
    spec: JsonObject = {"containers": [{"name": "c", "image": "x:1"}]}
    if node:
        spec["nodeName"] = node
    return {"metadata": {"name": "p"}, "spec": spec}


def test_delete_of_a_pod_on_a_node_is_graceful(
    objects: Objects, pods: Resource
) -> None:
    create(objects, pods, ("default", ""), new_pod("n1"), PLAIN)
    meta = delete(objects, pods, KEY, DeleteOptions())["metadata"]

    assert meta["deletionTimestamp"] == "2024-05-01T00:00:30Z"
    assert meta["deletionGracePeriodSeconds"] == 30
    delete(objects, pods, KEY, DeleteOptions(grace_seconds=0))
    assert objects.find(pods, KEY) is None


def test_delete_of_a_pod_without_a_node_is_at_once(
    objects: Objects, pods: Resource
) -> None:
    create(objects, pods, ("default", ""), new_pod(), PLAIN)
    delete(objects, pods, KEY, DeleteOptions())

    assert objects.find(pods, KEY) is None


def test_status_of_a_pod_being_deleted_can_still_be_written(
    objects: Objects, pods: Resource
) -> None:
    create(objects, pods, ("default", ""), new_pod("n1"), PLAIN)
    delete(objects, pods, KEY, DeleteOptions())
    change = Patch(MERGE_PATCH, {"status": {"phase": "Succeeded"}})
    patch(objects, pods, KEY, change, STATUS)

    assert objects.require(pods, KEY)["status"]["phase"] == "Succeeded"


def test_delete_waits_for_the_last_finalizer(
    objects: Objects, configs: Resource
) -> None:
    create(objects, configs, KEY, {"metadata": {"finalizers": ["a.test/x"]}}, PLAIN)
    delete(objects, configs, KEY, DeleteOptions())
    assert "deletionTimestamp" in objects.require(configs, KEY)["metadata"]
    change = Patch(MERGE_PATCH, {"metadata": {"finalizers": None}})
    patch(objects, configs, KEY, change, PLAIN)

    assert objects.find(configs, KEY) is None


def test_delete_of_another_uid_conflicts(objects: Objects, configs: Resource) -> None:
    create(objects, configs, KEY, {}, PLAIN)

    with pytest.raises(ApiError) as caught:
        delete(objects, configs, KEY, DeleteOptions(uid="other"))
    assert caught.value.code == 409


def test_namespace_goes_with_the_last_thing_in_it(
    objects: Objects, pods: Resource
) -> None:
    namespaces = objects.catalogue.built_in("Namespace")
    create(objects, namespaces, ("", "n"), {}, PLAIN)
    create(objects, pods, ("n", ""), new_pod("n1"), PLAIN)
    left = delete(objects, namespaces, ("", "n"), DeleteOptions())

    assert left["status"]["phase"] == "Terminating"
    with pytest.raises(ApiError, match="being terminated"):
        create(objects, pods, ("n", ""), new_pod(), PLAIN)
    delete(objects, pods, ("n", "p"), DeleteOptions(grace_seconds=0))
    assert objects.find(namespaces, ("", "n")) is None


def test_default_namespace_may_not_be_deleted(objects: Objects) -> None:
    namespaces = objects.catalogue.built_in("Namespace")

    with pytest.raises(ApiError) as caught:
        delete(objects, namespaces, ("", "default"), DeleteOptions())
    assert caught.value.code == 403
