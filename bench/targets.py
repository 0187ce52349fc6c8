"""What the datapath's figures are meant to reach: the design's tables.  Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.results import PROGRAM, Result

MANY_FLOWS = 20_000

SET_AT = 20.0
"""Nanoseconds of the empty program where the targets were set."""

STATISTICS = "kernel_statistics"
"""The case that is there when the kernel took the time of each program itself."""


@dataclass(frozen=True, slots=True)
class HookTarget:
    """A hook's packet costs at most *times* the empty program, with hot tables."""

    case: str
    times: float


@dataclass(frozen=True, slots=True)
class PathTarget:
    """
    A path's figure against another path's.

    With *at_most* it is a cost in the figure's unit beyond the other's, else it is a
    rate: at least *times* the other's.
    """

    case: str
    other: str
    times: float = 1.0
    at_most: float | None = None
    flows: int = 0


@dataclass(frozen=True, slots=True)
class RowsTarget:
    """A hook's packet costs at most *times* as much with most rows as with fewest."""

    case: str
    times: float = 1.2


HOOKS = (
    HookTarget("from_container/existing", 4),
    HookTarget("from_overlay/gateway/existing", 5),
    HookTarget("from_netdev/reply", 5.5),
    HookTarget("from_overlay/pod/reply", 4),
    HookTarget("from_container/uncovered", 1.5),
    HookTarget("xdp/gateway/existing", 3.5),
    HookTarget("xdp/gateway/reply", 4.5),
    HookTarget("from_overlay/gateway/new", 55),
    HookTarget("from_overlay/gateway/port_search_99", 200),
)

FLAT = (
    RowsTarget("from_container/existing"),
    RowsTarget("from_overlay/gateway/existing"),
    RowsTarget("from_netdev/reply"),
    RowsTarget("xdp/gateway/existing"),
    RowsTarget("xdp/gateway/reply"),
)

PATHS = (
    PathTarget("gateway/tc", "gateway/nftables", 2, flows=MANY_FLOWS),
    PathTarget("gateway/xdp", "gateway/nftables", 6, flows=MANY_FLOWS),
    PathTarget("chain/tc", "chain/nftables", 3, flows=MANY_FLOWS),
    PathTarget("chain/tc", "chain/plain", 0.8, flows=MANY_FLOWS),
    PathTarget("tcp/connections/tc", "tcp/connections/nftables", 1.7),
    PathTarget("tcp/connections/tc", "tcp/connections/plain", 0.95),
    PathTarget("tcp/ask_1/tc/p50", "tcp/ask_1/plain/p50", at_most=0.5),
    PathTarget("tcp/stream_4/tc", "tcp/stream_4/plain", 0.8),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure beside its target; *is_met* says how that ended."""

    case: str
    found: str
    wanted: str
    is_met: bool


def verdicts(results: Iterable[Result]) -> list[Verdict]:
    """Return each target that was measured, and whether it is met."""
    known = list(results)
    hooks = (_of_hook(target, known) for target in HOOKS)
    flat = (_of_rows(target, known) for target in FLAT)
    paths = (_of_path(target, known) for target in PATHS)
    tables = (_of_table(result) for result in known if result.part == PROGRAM)
    return [verdict for verdict in (*hooks, *flat, *paths, *tables) if verdict]


def _of_table(result: Result) -> Verdict | None:
    """Judge by the target that the result names; seconds a row, or rows a second."""
    if not result.ratio_to.startswith("target ") or result.ratio is None:
        return None
    is_rate = result.unit.endswith("/s")
    wanted = result.ratio_to.removeprefix("target ")
    return Verdict(
        *(result.case, f"{_number(result.value)} {result.unit}"),
        f"{'≥' if is_rate else '≤'} {wanted}",
        is_met=result.ratio >= 1 if is_rate else result.ratio <= 1,
    )


def _of_hook(target: HookTarget, results: list[Result]) -> Verdict | None:
    """Judge by one flow and the most rows: what it costs may not grow with them."""
    found = [r for r in results if r.case == target.case and r.flows <= 1]
    if not found:
        return None
    empty, unit = next(r.value for r in results if r.case == "empty"), "empty"
    if any(result.case == STATISTICS for result in results):
        # The kernel's clock makes the empty program three times as dear, no other.
        empty, unit = SET_AT, f"{SET_AT:g} ns"
    worst = max(result.value for result in found) / empty
    return Verdict(
        *(target.case, f"{worst:.1f} × {unit}", f"≤ {target.times:g} ×"),
        is_met=worst <= target.times,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _of_rows(target: RowsTarget, results: list[Result]) -> Verdict | None:
    """Judge by one flow."""
    found = {r.rows: r.value for r in results if r.case == target.case and r.flows == 1}
    if len(found) < 2:
        return None
    fewest, most = min(found), max(found)
    times = found[most] / found[fewest]
    return Verdict(
        *(f"{target.case}, {most:,} rows", f"{times:.2f} × with {fewest:,} rows"),
        *(f"≤ {target.times:g} ×", times <= target.times),
    )


def _of_path(target: PathTarget, results: list[Result]) -> Verdict | None:
    at = {r.case: r.value for r in results if r.flows == target.flows}
    if target.case not in at or target.other not in at:
        return None
    value, other = at[target.case], at[target.other]
    if target.at_most is not None:
        more = value - other
        return Verdict(
            *(target.case, f"{more:+.2f} to {target.other}", f"≤ {target.at_most:g}"),
            is_met=more <= target.at_most,
        )
    times = value / other
    return Verdict(
        *(target.case, f"{times:.2f} × {target.other}", f"≥ {target.times:g} ×"),
        is_met=times >= target.times,
    )
