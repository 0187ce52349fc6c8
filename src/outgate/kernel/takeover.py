"""
Loading the programs where an agent of another version ran: without a gap in cover.

Maps that are laid out alike are taken over with their rows: flows and translations live
on, and so does what a policy covered that is bad now.  A map that is not is set aside,
and a new one begins empty.  The programs that are attached still hold the former map
and go on by it until the new rows are there and new programs take their places, which
is the order of each plan.

``cilium_ipcache`` goes with any such map: an agent that finds this node's addresses
there takes the maps for filled, and attaches programs before its source is listed
(``policy.compile.compile_unlisted``).  Where nothing but the room for rows is another,
the rows that a plan wrote are copied, those of ipcache last.  Sets of rows are made
anew from them, in maps that no program of the former version reads.

Only a pin directory that has a map by which agents know their own is touched: Cilium
has maps of the same names.  Called by ``kernel.linux``; ``outgate datapath load`` never
replaces a map.
"""

from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

from outgate.errors import KernelError
from outgate.kernel.datapath import load_programs
from outgate.kernel.maps import EGRESS, PLANNED_MAPS, SETS, SOURCES, MapName
from outgate.kernel.objects import Pair, UnfitMapError
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.settings import DatapathSettings
from outgate.state.entries import Family, Hook

OURS = MapName.CONFIG
"""Every version of the datapath pins it, and nobody else does."""

TOGETHER = tuple({EGRESS[family], SOURCES[family], SETS[family]} for family in Family)
"""Maps of which all are set aside, or none: numbers of sets mean what they do there."""

ASIDE = "former_"
"""What stands before the name of a map until new programs are loaded."""


def take_over(
    pin_dir: Path, settings: DatapathSettings, hooks: Collection[Hook] = tuple(Hook)
) -> dict[Hook, Pair]:
    """
    Load the programs of *hooks*, as ``load_programs`` does, with maps pinned there.

    Errors: KernelError; then the maps of the other version are back in their places.
    """
    is_ours = (pin_dir / OURS).exists()
    aside: set[str] = set()
    try:
        while True:
            try:
                programs = load_programs(pin_dir, settings, hooks)
                break
            except UnfitMapError as error:
                name = error.path.name
                if name in aside or not is_ours:
                    raise
                also = set().union(*(maps for maps in TOGETHER if name in maps))
                names = {name, MapName.IPCACHE} | also
                aside |= _set_aside(pin_dir, names - aside)
    except KernelError:
        _put_back(pin_dir, aside)
        raise
    _copy_rows(pin_dir, aside)
    _forget(pin_dir)
    return programs


def _set_aside(pin_dir: Path, names: set[str]) -> set[str]:
    found = {name for name in names if (pin_dir / name).exists()}
    for name in found:
        _move(pin_dir, name, ASIDE + name)
    return found


def _copy_rows(pin_dir: Path, aside: set[str]) -> None:
    """Fill new maps from the former ones, unless one of them has another layout."""
    names = sorted(aside & PLANNED_MAPS, key=lambda name: name == MapName.IPCACHE)
    with ExitStack() as stack:
        pairs = [
            (
                stack.enter_context(PinnedMap(pin_dir / f"{ASIDE}{name}")),
                stack.enter_context(PinnedMap(pin_dir / name)),
            )
            for name in names
        ]
        if any(_row_sizes(former) != _row_sizes(new) for former, new in pairs):
            return
        for former, new in pairs:
            for keys, values in former.packed_rows():
                if new.put_packed(keys, values):
                    # No room: what is missing comes with the first plan.
                    return


def _row_sizes(table: PinnedMap) -> tuple[int, int]:
    return table.shape.key_size, table.shape.value_size


def _put_back(pin_dir: Path, names: set[str]) -> None:
    for name in names:
        _move(pin_dir, ASIDE + name, name)


def _move(pin_dir: Path, name: str, new_name: str) -> None:
    try:
        (pin_dir / name).rename(pin_dir / new_name)
    except OSError as error:
        operation = f"rename {pin_dir / name} to {new_name}"
        raise KernelError(operation, error.errno or 0) from error


def _forget(pin_dir: Path) -> None:
    """Unpin what was set aside, now or by an agent that died before it came here."""
    try:
        for path in pin_dir.glob(f"{ASIDE}*"):
            path.unlink()
    except OSError as error:
        raise KernelError(f"unpin maps in {pin_dir}", error.errno or 0) from error
