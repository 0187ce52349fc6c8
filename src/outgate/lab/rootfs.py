"""
Root file systems: the machine's own files, with writes of one's own.

What this is: what a node or a pod sees under ``/``.  Lower layer is the machine's
root, upper layer a tmpfs that ends with the namespace; ``/proc``, ``/sys``, ``/run``
are new ones.  Nothing that a node or pod writes reaches the machine.
What this is not: an image.  Every program of the machine is there.

Runs inside a new mount (and network) namespace, called by ``sandbox``.  Other disks
of the machine are shown read-only at their places.
"""

import os
import sys
from pathlib import Path

from outgate.lab.syscalls import Mount, change_root, make_mounts_private, mount

MADE_HERE = ("/proc/", "/sys/", "/dev/", "/run/")
RESOLVER = "# The lab has no name server; names are in /etc/hosts.\n"


def enter_new_root(
    scratch: Path, *, keep: Path | None = None, bpffs: bool = False
) -> None:
    """
    Build a root file system on *scratch* and make it ours.

    *keep* is a folder under ``/run`` that stays visible at its place, writable.
    *bpffs* mounts a private BPF file system on ``/sys/fs/bpf``.
    """
    make_mounts_private()
    mount("tmpfs", scratch, "tmpfs", options="mode=0755")
    upper, work, root = (scratch / name for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir()
    mount(
        "overlay",
        root,
        "overlay",
        options=f"lowerdir=/,upperdir={upper},workdir={work}",
    )
    _show_other_disks(root)
    mount("proc", root / "proc", "proc")
    mount("sysfs", root / "sys", "sysfs")
    if bpffs:
        mount("bpf", root / "sys/fs/bpf", "bpf", options="mode=0700")
    mount("/dev", root / "dev", flags=Mount.BIND | Mount.RECURSIVE)
    mount("tmpfs", root / "run", "tmpfs", options="mode=0755")
    if keep is not None:
        _bind(keep, root, Mount.NONE)
    _show_own_program(root)
    _write_resolver(root)
    change_root(root)


def _show_other_disks(root: Path) -> None:
    """Bind, read-only, each disk of the machine that the overlay's layer lacks."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == "/" or f"{point}/".startswith(MADE_HERE):
            continue
        _bind(Path(point), root, Mount.READ_ONLY)


def _show_own_program(root: Path) -> None:
    """Bind the folders that this program runs from, if they lie where we are new."""
    package = Path(__file__).resolve().parents[2]
    for folder in {Path(sys.prefix), Path(sys.base_prefix), package}:
        if not (root / folder.relative_to("/")).exists():
            _bind(folder, root, Mount.READ_ONLY)


def _bind(folder: Path, root: Path, flags: Mount) -> None:
    target = root / folder.relative_to("/")
    if not folder.exists():
        return
    if folder.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.touch()
    mount(folder, target, flags=Mount.BIND)
    if flags:
        mount("none", target, flags=Mount.BIND | Mount.REMOUNT | flags)


def _write_resolver(root: Path) -> None:
    resolver = root / "etc/resolv.conf"
    if os.path.lexists(resolver):
        resolver.unlink()
    resolver.write_text(RESOLVER)
