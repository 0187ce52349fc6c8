"""Versions, history and pages of the store."""

from __future__ import annotations

import pytest

from outgate.kubeapi.kinds import BUILT_IN_KINDS, Kind
from outgate.kubeapi.status import ApiError
from outgate.kubeapi.storage import Storage
from outgate.kubeapi.wire import JsonObject, decode_json

CONFIG = next(kind for kind in BUILT_IN_KINDS if kind.kind == "ConfigMap")
LEASE = next(kind for kind in BUILT_IN_KINDS if kind.kind == "Lease")


def named(name: str) -> JsonObject:
    return {"metadata": {"name": name, "namespace": "default"}}


def test_put_takes_the_next_version_across_kinds() -> None:
    storage = Storage(history=10)
    first = storage.put(CONFIG, named("a"))
    second = storage.put(LEASE, named("a"))

    assert second.version == first.version + 1
    assert decode_json(second.raw)["metadata"]["resourceVersion"] == str(second.version)


def test_objects_are_sorted() -> None:
    storage = Storage(history=10)
    for name in ("b", "c", "a"):
        storage.put(CONFIG, named(name))

    assert [one.name for one in storage.objects("configmaps")] == ["a", "b", "c"]


def test_changes_since_tells_before_from_after() -> None:
    storage = Storage(history=10)
    start = storage.put(CONFIG, named("a")).version
    storage.put(CONFIG, named("a") | {"data": {"k": "v"}})
    storage.remove(CONFIG, named("a"))
    changed, gone = storage.changes_since("configmaps", start)

    assert (changed.before is None, changed.gone) == (False, False)
    assert gone.gone
    assert gone.after.version == storage.version


def _fill(storage: Storage, kind: Kind, count: int) -> None:
    for number in range(count):
        storage.put(kind, named(f"n{number}"))


def test_changes_since_a_forgotten_version_are_expired() -> None:
    storage = Storage(history=5)
    _fill(storage, CONFIG, 30)

    with pytest.raises(ApiError) as caught:
        storage.changes_since("configmaps", 2)
    assert caught.value.code == 410


def test_history_of_one_kind_survives_traffic_of_another() -> None:
    storage = Storage(history=5)
    start = storage.put(CONFIG, named("a")).version
    _fill(storage, LEASE, 100)

    assert storage.changes_since("configmaps", start) == []


def test_history_is_bounded() -> None:
    storage = Storage(history=5)
    _fill(storage, CONFIG, 1000)

    assert 5 <= len(storage.changes_since("configmaps", storage.version - 5)) <= 10


def test_frozen_list_does_not_move() -> None:
    storage = Storage(history=10)
    storage.put(CONFIG, named("a"))
    version = storage.freeze("configmaps")
    storage.put(CONFIG, named("b"))

    assert [one.name for one in storage.frozen("configmaps", version)] == ["a"]


def test_frozen_list_is_forgotten_in_the_end() -> None:
    storage = Storage(history=10)
    version = storage.freeze("configmaps")
    for number in range(50):
        storage.put(CONFIG, named(f"n{number}"))
        storage.freeze("configmaps")

    with pytest.raises(ApiError) as caught:
        storage.frozen("configmaps", version)
    assert caught.value.code == 410


def test_journal_is_written_before_the_change_is_seen() -> None:
    seen: list[int] = []

    def keep(resource: str, stored: object, gone: bool) -> None:
        seen.append(len(storage.objects("configmaps")))

    storage = Storage(history=10, keep=keep)
    storage.put(CONFIG, named("a"))

    assert seen == [0]
