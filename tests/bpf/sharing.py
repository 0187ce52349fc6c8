"""Sets of rows for whatever rows pods have: as an agent makes them when it starts."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

from outgate.kernel.held import Held
from outgate.kernel.maps import EGRESS, SETS, SOURCES
from outgate.kernel.pinned import PinnedMap
from outgate.kernel.policysets import policy_sets
from outgate.kernel.rowtable import RowTable


def share_rows(pins: Path) -> None:
    """Bring the sets of the maps pinned in *pins* to the rows of pods."""
    with ExitStack() as stack:
        names = (*EGRESS.values(), *SOURCES.values(), *SETS.values())
        maps = {name: stack.enter_context(PinnedMap(pins / name)) for name in names}
        egress = {family: maps[name] for family, name in EGRESS.items()}
        asyncio.run(RowTable(egress, policy_sets(maps), Held()).read())
