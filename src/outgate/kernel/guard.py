"""
Which pods may be known: only those whose policy rows are all in the kernel.

The datapath drops what an unknown pod sends to a covered network; a known pod
without a row is let through as uncovered.  So a row that could not be written must
keep its pod unknown, or make it so again.  Pure; both kernels follow it.
"""

from collections.abc import Iterable, Mapping

from outgate.errors import KernelError
from outgate.state.entries import (
    Address,
    CoveredKey,
    EndpointKey,
    Key,
    Network,
    RowsKey,
)
from outgate.state.plan import Operation, Put, Remove


def guard(
    operations: Iterable[Operation], failed: Iterable[Key]
) -> tuple[list[EndpointKey], list[Remove]]:
    """
    Return the endpoints to withhold, and the ones to take back first.

    *failed* are keys whose Put was refused before the endpoints' turn.  A covered
    network that is missing hides every pod that would become known now.
    """
    failed = tuple(failed)
    incomplete = {key.source for key in failed if isinstance(key, RowsKey)}
    is_blind = any(isinstance(key, CoveredKey) for key in failed)
    withheld = [
        operation.key
        for operation in operations
        if isinstance(operation, Put)
        and isinstance(operation.key, EndpointKey)
        and (is_blind or operation.key.address in incomplete)
    ]
    return withheld, [
        Remove(EndpointKey(source)) for source in sorted(incomplete, key=_order)
    ]


def _order(address: Address) -> tuple[int, Address]:
    return address.version, address


def withheld_error(key: EndpointKey) -> KernelError:
    """Return why a pod is kept unknown."""
    return KernelError(f"make pod {key.address} known", 0, "rows of it are missing")


def refused_rows(refused: Mapping[Network, KernelError], of: int) -> KernelError:
    """Return one error for the rows of a pod that were *refused*, of so many."""
    first, error = next(iter(refused.items()))
    told = f"{len(refused)} of {of} rows, {first} first"
    return KernelError(error.operation, error.errno, told, len(refused))
