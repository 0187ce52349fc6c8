"""JSON merge, strategic merge and JSON patch."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from outgate.kubeapi.merge import json_patch, merge_patch, strategic_merge
from outgate.kubeapi.status import ApiError
from outgate.kubeapi.typetable import built_in_schema

POD = built_in_schema("Pod")
TWO = {
    "metadata": {"finalizers": ["a", "b"]},
    "spec": {
        "containers": [
            {"name": "x", "image": "x:1", "env": [{"name": "A", "value": "1"}]},
            {"name": "y", "image": "y:1"},
        ]
    },
}


def strategic(patch: dict[str, Any]) -> Any:
    before = copy.deepcopy(TWO)
    after = strategic_merge(TWO, patch, POD)
    assert before == TWO, "the target was changed"
    return after


@pytest.mark.parametrize(
    ("target", "patch", "after"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_follows_the_rfc(target: Any, patch: Any, after: Any) -> None:
    """Examples of RFC 7386, appendix A."""
    assert merge_patch(target, patch) == after


def test_strategic_merge_finds_list_items_by_name() -> None:
    after = strategic({"spec": {"containers": [{"name": "y", "image": "y:2"}]}})

    images = [container["image"] for container in after["spec"]["containers"]]
    assert images == ["x:1", "y:2"]


def test_strategic_merge_goes_deeper_into_an_item() -> None:
    env = [{"name": "B", "value": "2"}]
    after = strategic({"spec": {"containers": [{"name": "x", "env": env}]}})

    assert [e["name"] for e in after["spec"]["containers"][0]["env"]] == ["A", "B"]


def test_strategic_merge_deletes_an_item_by_directive() -> None:
    gone = {"name": "x", "$patch": "delete"}
    after = strategic({"spec": {"containers": [gone]}})

    assert [c["name"] for c in after["spec"]["containers"]] == ["y"]


def test_strategic_merge_replaces_a_list_by_directive() -> None:
    new = [{"$patch": "replace"}, {"name": "z", "image": "z:1"}]
    after = strategic({"spec": {"containers": new}})

    assert [c["name"] for c in after["spec"]["containers"]] == ["z"]


def test_strategic_merge_adds_to_and_removes_from_sets() -> None:
    after = strategic(
        {
            "metadata": {
                "finalizers": ["c"],
                "$deleteFromPrimitiveList/finalizers": ["a"],
            }
        }
    )

    assert set(after["metadata"]["finalizers"]) == {"b", "c"}


def test_strategic_merge_orders_as_asked() -> None:
    order = [{"name": "z"}, {"name": "y"}, {"name": "x"}]
    after = strategic(
        {
            "spec": {
                "containers": [{"name": "z", "image": "z:1"}],
                "$setElementOrder/containers": order,
            }
        }
    )

    assert [c["name"] for c in after["spec"]["containers"]] == ["z", "y", "x"]


def test_strategic_merge_without_the_merge_key_is_a_bad_request() -> None:
    with pytest.raises(ApiError, match="does not contain declared merge key"):
        strategic({"spec": {"containers": [{"image": "q"}]}})


def test_json_patch_with_a_failed_test_is_unprocessable() -> None:
    with pytest.raises(ApiError) as caught:
        json_patch({"a": 1}, [{"op": "test", "path": "/a", "value": 2}])

    assert caught.value.code == 422


@pytest.mark.parametrize("patch", [{}, [{"op": "jump", "path": "/a"}], [{"path": "/"}]])
def test_json_patch_that_is_none_is_a_bad_request(patch: Any) -> None:
    with pytest.raises(ApiError) as caught:
        json_patch({"a": 1}, patch)

    assert caught.value.code == 400
