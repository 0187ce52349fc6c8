"""What a killed server finds again."""

from __future__ import annotations

from pathlib import Path

from outgate.kubeapi.journal import Journal
from outgate.kubeapi.kinds import BUILT_IN_KINDS
from outgate.kubeapi.server import ApiServer
from outgate.kubeapi.storage import Storage

CONFIG = next(kind for kind in BUILT_IN_KINDS if kind.kind == "ConfigMap")


def test_journal_keeps_what_was_put_and_not_removed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    storage = Storage(history=10, keep=journal.keep)
    for name in ("a", "b"):
        storage.put(CONFIG, {"metadata": {"name": name, "namespace": "n"}})
    storage.remove(CONFIG, {"metadata": {"name": "a", "namespace": "n"}})
    again = Journal(tmp_path / "j.db")

    kept = [obj["metadata"]["name"] for _, obj in again.objects("configmaps")]
    assert (kept, again.version()) == (["b"], storage.version)


def test_server_started_twice_makes_nothing_twice(tmp_path: Path) -> None:
    ApiServer(journal=tmp_path / "j.db")
    first = Journal(tmp_path / "j.db").version()
    ApiServer(journal=tmp_path / "j.db")

    assert Journal(tmp_path / "j.db").version() == first
