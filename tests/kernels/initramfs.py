"""
An initramfs in memory: busybox, ``init``, and the modules a guest needs, in order.

Modules are chosen by name; what they depend on is read from the modules themselves, so
that neither depmod nor modprobe is needed anywhere.

Source: Linux ``Documentation/driver-api/early-userspace/buffer-format.rst``.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
FILE, FOLDER = 0o100755, 0o040755


def build(
    files: Path, version: str, modules: Iterable[str], init: Path, script: str
) -> bytes:
    """Return the archive; *files* are unpacked packages, *script* is for the guest."""
    entries: dict[str, bytes | None] = {
        "bin": None,
        "modules": None,
        "bin/busybox": (files / "bin" / "busybox").read_bytes(),
        "init": init.read_bytes(),
        "script": script.encode(),
    }
    folder = files / "lib" / "modules" / version
    for number, path in enumerate(_in_order(folder, modules)):
        entries[f"modules/{number:03}-{path.name}"] = path.read_bytes()
    return _archive(entries)


def _in_order(folder: Path, modules: Iterable[str]) -> list[Path]:
    """Return the modules and what they depend on, each after what it needs."""
    paths = {path.stem.replace("-", "_"): path for path in folder.rglob("*.ko")}
    builtin = (folder / "modules.builtin").read_text().split()
    present = {Path(line).stem.replace("-", "_") for line in builtin}
    ordered: dict[str, Path] = {}

    def add(name: str) -> None:
        name = name.replace("-", "_")
        if name in ordered or name in present:
            return
        found = DEPENDS.search(paths[name].read_bytes())
        for needed in found[1].decode().split(",") if found else ():
            if needed:
                add(needed)
        ordered[name] = paths[name]

    for module in modules:
        add(module)
    return list(ordered.values())


def _archive(entries: dict[str, bytes | None]) -> bytes:
    return b"".join(_parts(entries))


def _parts(entries: dict[str, bytes | None]) -> Iterator[bytes]:
    for number, (name, content) in enumerate(entries.items(), start=1):
        yield _entry(name, number, FOLDER if content is None else FILE, content or b"")
    yield _entry("TRAILER!!!", 0, 0, b"")


def _entry(name: str, number: int, mode: int, content: bytes) -> bytes:
    """Return one file as cpio's "newc" format has it."""
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + path
    return _padded(header) + _padded(content)


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 4)
