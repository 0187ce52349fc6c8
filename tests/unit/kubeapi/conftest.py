"""An empty API without a server: fixed time, counted uids, one namespace."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest

from outgate.kubeapi.admission import WriteOptions
from outgate.kubeapi.catalogue import Catalogue
from outgate.kubeapi.objects import Objects
from outgate.kubeapi.operations import create
from outgate.kubeapi.storage import Storage


@pytest.fixture
def objects() -> Objects:
    uids = itertools.count(1)
    world = Objects(
        Storage(history=20),
        Catalogue(),
        clock=lambda: datetime(2024, 5, 1, tzinfo=UTC),
        new_uid=lambda: f"uid-{next(uids)}",
    )
    namespaces = world.catalogue.built_in("Namespace")
    create(world, namespaces, ("", "default"), {}, WriteOptions())
    return world
