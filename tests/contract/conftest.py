import os
import shutil
from pathlib import Path

import pytest

from contract.isolation import skip_without, skip_without_root
from contract.kernel_sides import FakeSide, LinuxSide, Side, compile_tiny
from outgate.kernel.hooks import AttachWay


@pytest.fixture(scope="session")
def tiny_objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skip_without_root()
    if folder := os.environ.get(TINY_OBJECTS):
        return Path(folder)
    if not shutil.which("clang"):
        pytest.skip("needs clang: compiles small programs")
    return compile_tiny(tmp_path_factory.mktemp("objects"))


TINY_OBJECTS = "OUTGATE_TINY_OBJECTS"
"""Where they are compiled already: a slow guest need not do it (tests/kernels)."""

WAYS = [
    pytest.param(way, marks=pytest.mark.kernel, id=f"linux-{way}")
    for way in (AttachWay.TCX, AttachWay.CLSACT)
]


@pytest.fixture(params=[pytest.param(None, id="fake"), *WAYS])
def side(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Side:
    if request.param is None:
        return FakeSide()
    skip_without(request.param)
    objects: Path = request.getfixturevalue("tiny_objects")
    monkeypatch.setenv("OUTGATE_BPF_OBJECTS", str(objects))
    return LinuxSide(request.param)


@pytest.fixture
def tiny_datapath(tiny_objects: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTGATE_BPF_OBJECTS", str(tiny_objects))
