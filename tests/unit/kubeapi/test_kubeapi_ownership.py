"""Field sets and server-side apply."""

from __future__ import annotations

from typing import Any

import pytest

from outgate.kubeapi.fieldsets import decode_fields, encode_fields, leaves
from outgate.kubeapi.ownership import (
    Application,
    Manager,
    apply,
    own_update,
    read_owners,
)
from outgate.kubeapi.status import ApiError
from outgate.kubeapi.typetable import built_in_schema
from outgate.kubeapi.wire import JsonObject

POD = built_in_schema("Pod")


def pod(image: str = "x:1", **labels: str) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": labels},
        "spec": {"containers": [{"name": "c", "image": image}]},
    }


def applied(
    live: JsonObject | None, config: JsonObject, who: str, *, force: bool = False
) -> JsonObject:
    manager = Manager(who, "Apply", "v1")
    return apply(live, Application(config, manager, force, "now"), POD)


def owners(obj: JsonObject) -> dict[str, set[str]]:
    """Manager to the last elements of what it owns."""
    return {
        manager.name: {path[-1] for path in owned.fields}
        for manager, owned in read_owners(obj).items()
    }


def test_leaves_name_list_items_by_their_keys() -> None:
    paths = {"/".join(path) for path in leaves(pod(a="1"), POD)}

    assert paths == {
        "f:metadata/f:labels/f:a",
        'f:spec/f:containers/k:{"name":"c"}',
        'f:spec/f:containers/k:{"name":"c"}/f:name',
        'f:spec/f:containers/k:{"name":"c"}/f:image',
    }


def test_leaves_take_missing_keys_from_the_defaults() -> None:
    obj = pod()
    obj["spec"]["containers"][0]["ports"] = [{"containerPort": 80}]
    elements = {path[-1] for path in leaves(obj, POD)}

    assert 'k:{"containerPort":80,"protocol":"TCP"}' in elements


def test_field_sets_survive_managed_fields() -> None:
    fields = frozenset(leaves(pod(a="1"), POD))

    assert decode_fields(encode_fields(fields)) == fields


def test_update_takes_what_it_changes() -> None:
    before = applied(None, pod(a="1"), "one")
    after: Any = {**before, "metadata": {**before["metadata"], "labels": {"a": "2"}}}
    own_update(before, after, Manager("two", "Update", "v1"), POD, "now")

    assert owners(after)["two"] == {"f:a"}
    assert "f:a" not in owners(after)["one"]


def test_update_ends_the_ownership_of_what_it_removes() -> None:
    before = applied(None, pod(a="1"), "one")
    after: Any = {**before, "metadata": {**before["metadata"], "labels": {}}}
    own_update(before, after, Manager("two", "Update", "v1"), POD, "now")

    assert "f:a" not in owners(after)["one"]


def test_apply_of_another_value_conflicts() -> None:
    live = applied(None, pod("x:1"), "one")

    with pytest.raises(ApiError) as caught:
        applied(live, pod("x:2"), "two")
    assert caught.value.code == 409
    assert '.spec.containers[name="c"].image' in caught.value.message


def test_apply_of_the_same_value_shares_it() -> None:
    both = applied(applied(None, pod("x:1"), "one"), pod("x:1"), "two")

    assert "f:image" in owners(both)["one"] & owners(both)["two"]


def test_forced_apply_takes_the_field_away() -> None:
    live = applied(None, pod("x:1"), "one")
    after = applied(live, pod("x:2"), "two", force=True)

    assert after["spec"]["containers"][0]["image"] == "x:2"
    assert "f:image" not in owners(after)["one"]


def test_apply_removes_what_it_names_no_more() -> None:
    live = applied(None, pod(a="1", b="2"), "one")
    after = applied(live, pod(a="1"), "one")

    assert after["metadata"]["labels"] == {"a": "1"}


def test_apply_leaves_what_another_still_names() -> None:
    live = applied(None, pod(a="1", b="2"), "one")
    live = applied(live, pod(b="2"), "two")
    after = applied(live, pod(a="1"), "one")

    assert after["metadata"]["labels"] == {"a": "1", "b": "2"}


def test_apply_removes_a_list_item_it_named() -> None:
    two = pod()
    two["spec"]["containers"].append({"name": "d", "image": "d:1"})
    after = applied(applied(None, two, "one"), pod(), "one")

    assert [c["name"] for c in after["spec"]["containers"]] == ["c"]


def test_apply_does_not_change_the_live_object() -> None:
    live = applied(None, pod(a="1", b="2"), "one")
    applied(live, pod(a="1"), "one")

    assert live["metadata"]["labels"] == {"a": "1", "b": "2"}


def test_apply_twice_keeps_the_time() -> None:
    live = applied(None, pod(), "one")
    again = apply(
        live, Application(pod(), Manager("one", "Apply", "v1"), False, "later"), POD
    )

    assert again == live
