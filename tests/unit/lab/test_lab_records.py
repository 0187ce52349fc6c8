"""Records on disk: settings, runs, logs."""

from pathlib import Path

import pytest

from outgate.kubeapi.backend import LogRequest
from outgate.lab.errors import LabError
from outgate.lab.logs import select_lines
from outgate.lab.records import find_record, read_record, write_record
from outgate.lab.runs import PodFolder
from outgate.lab.settings import LabSettings, PodNetwork
from outgate.lab.shim import Log

LINES = [
    b"2026-01-01T00:00:01.000000Z stdout F one",
    b"2026-01-01T00:00:02.000000Z stderr F two",
    b"2026-01-01T00:00:03.000000Z stdout P thr",
    b"2026-01-01T00:00:03.000000Z stdout F ee",
]
NOW = 1767225604.0


def request(**changes: object) -> LogRequest:
    values: dict[str, object] = dict.fromkeys(LogRequest.__dataclass_fields__)
    return LogRequest(**{**values, "timestamps": False, **changes})  # type: ignore[arg-type]


def test_record_comes_back_as_it_was(tmp_path: Path) -> None:
    settings = LabSettings(name="two", network=PodNetwork.BRIDGE, port=7)
    write_record(tmp_path / "deep/settings.json", settings)

    assert read_record(tmp_path / "deep/settings.json", LabSettings) == settings
    assert (tmp_path / "deep/settings.json").stat().st_mode & 0o777 == 0o600


def test_record_of_another_shape_is_refused(tmp_path: Path) -> None:
    write_record(tmp_path / "x.json", [1])

    with pytest.raises(LabError, match="is not a LabSettings"):
        read_record(tmp_path / "x.json", LabSettings)


def test_record_that_was_never_written_is_none(tmp_path: Path) -> None:
    assert find_record(tmp_path / "x.json", LabSettings) is None


@pytest.mark.parametrize("name", ["", "UP", "a/b", "-a", "a" * 41])
def test_lab_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="--name"):
        LabSettings(name=name)


def test_old_runs_are_forgotten_but_the_last_two(tmp_path: Path) -> None:
    pod = PodFolder(tmp_path)
    for attempt in (0, 1, 2, 10):
        pod.run("main", attempt).root.mkdir(parents=True)
    pod.forget_old_runs("main")

    assert pod.attempts("main") == [2, 10]


def test_select_lines_joins_parts() -> None:
    assert b"".join(select_lines(LINES, request(), NOW)) == b"one\ntwo\nthree\n"


def test_select_lines_takes_the_tail() -> None:
    chosen = select_lines(LINES[:2], request(tail_lines=1), NOW)

    assert list(chosen) == [b"two\n"]


def test_select_lines_since_leaves_older_ones_out() -> None:
    chosen = select_lines(LINES[:2], request(since_seconds=2), NOW)

    assert list(chosen) == [b"two\n"]


def test_select_lines_puts_the_time_before_the_text() -> None:
    chosen = select_lines(LINES[:1], request(timestamps=True), NOW)

    assert list(chosen) == [b"2026-01-01T00:00:01.000000Z one\n"]


def test_log_writes_whole_lines_of_both_streams(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.write("stdout", b"hel")
    log.write("stderr", b"bad\n")
    log.write("stdout", b"lo\nrest")
    log.finish()

    lines = (tmp_path / "log").read_bytes().splitlines()
    assert [line.split(b" ", 1)[1] for line in lines] == [
        b"stderr F bad",
        b"stdout F hello",
        b"stdout F rest",
    ]
