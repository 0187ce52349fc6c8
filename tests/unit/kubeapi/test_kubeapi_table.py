"""Rows and columns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from outgate.kubeapi.catalogue import Catalogue
from outgate.kubeapi.jsonpath import find_all
from outgate.kubeapi.kinds import BUILT_IN_KINDS
from outgate.kubeapi.printers import human_duration, pod_state
from outgate.kubeapi.table import cells_of, columns_of, make_table
from outgate.kubeapi.wire import JsonObject

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
RUNNING = {"name": "c", "ready": True, "restartCount": 0, "state": {"running": {}}}


def pod(**status: Any) -> JsonObject:
    meta = {"name": "p", "creationTimestamp": "2024-05-01T11:55:00Z"}
    return {"metadata": meta, "spec": {"containers": [{}]}, "status": status}


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(seconds=119), "119s"),
        (timedelta(minutes=2), "2m"),
        (timedelta(minutes=3, seconds=7), "3m7s"),
        (timedelta(minutes=179), "179m"),
        (timedelta(hours=3, minutes=5), "3h5m"),
        (timedelta(hours=47), "47h"),
        (timedelta(days=2, hours=3), "2d3h"),
        (timedelta(days=100), "100d"),
        (timedelta(days=800), "2y70d"),
        (timedelta(days=4000), "10y"),
        (timedelta(seconds=-5), "<invalid>"),
    ],
)
def test_durations_read_as_kubectls(span: timedelta, text: str) -> None:
    assert human_duration(span) == text


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({"phase": "Pending"}, "Pending"),
        ({"phase": "Running", "containerStatuses": [RUNNING]}, "Running"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}
                ],
            },
            "CrashLoopBackOff",
        ),
        (
            {
                "phase": "Succeeded",
                "containerStatuses": [
                    {"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}
                ],
            },
            "Completed",
        ),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [{"state": {"running": {}}}],
            },
            "Init:0/0",
        ),
    ],
)
def test_pod_state_is_what_keeps_it_from_running(
    status: dict[str, Any], state: str
) -> None:
    assert pod_state(pod(**status)) == state


def test_pod_being_deleted_is_terminating() -> None:
    leaving = pod(phase="Running", containerStatuses=[RUNNING])
    leaving["metadata"]["deletionTimestamp"] = "2024-05-01T12:00:00Z"

    assert pod_state(leaving) == "Terminating"


def test_pod_row_has_all_columns() -> None:
    row = cells_of(
        next(r for r in Catalogue() if r.kind.kind == "Pod"),
        pod(phase="Running", podIP="10.0.1.2", containerStatuses=[RUNNING]),
        NOW,
    )

    assert row[:6] == ["p", "1/1", "Running", "0", "5m", "10.0.1.2"]


@pytest.mark.parametrize("kind", [kind.kind for kind in BUILT_IN_KINDS])
def test_a_bare_object_of_every_kind_has_a_full_row(kind: str) -> None:
    resource = next(r for r in Catalogue() if r.kind.kind == kind)
    bare: JsonObject = {
        "metadata": {"name": "x"},
        "spec": {"containers": []},
        "involvedObject": {},
    }

    assert len(cells_of(resource, bare, NOW)) == len(columns_of(resource))


def test_table_rows_carry_what_was_asked() -> None:
    resource = next(r for r in Catalogue() if r.kind.kind == "Pod")
    kinds = [
        make_table(resource, [pod()], NOW, include=include)["rows"][0]
        .get("object", {})
        .get("kind")
        for include in ("None", "Metadata")
    ]

    assert kinds == [None, "PartialObjectMetadata"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.a", [1]),
        ("spec.a", [1]),
        (".spec.list[1]", [3]),
        (".spec.list[*]", [2, 3]),
        ('.spec.items[?(@.type=="Ready")].status', ["True"]),
        (".spec['x.y']", [9]),
        (r".spec.x\.y", [9]),
        (".spec.missing.deeper", []),
        (".spec[", []),
    ],
)
def test_jsonpath_of_a_column_finds(path: str, found: list[Any]) -> None:
    items = [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]
    spec = {"a": 1, "list": [2, 3], "items": items, "x.y": 9}

    assert find_all({"spec": spec}, path) == found
