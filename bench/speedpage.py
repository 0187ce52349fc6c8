"""The tables of ``docs/reference/speed.md``: hundreds of numbers side by side. Pure."""

from collections.abc import Iterable, Sequence

from bench.results import Result
from bench.targets import STATISTICS, verdicts

PATHS = ("tc", "nftables", "plain")


def speed_lines(results: Sequence[Result]) -> list[str]:
    """Return the lines of all tables."""
    hooks = [r for r in results if r.ratio_to == "empty"]
    empty = [r.value for r in results if r.case == "empty"]
    is_timed = any(result.case == STATISTICS for result in results)
    clock = " The kernel's own clock is in it (see Traps)." if is_timed else ""
    paths = [r for r in results if set(PATHS) & set(r.case.split("/"))]
    return [
        *("### Against the targets", "", *_target_lines(results), ""),
        *("### Hooks: nanoseconds per packet, net of the empty program", ""),
        *(f"The empty program itself: {value:g} ns.{clock}" for value in empty),
        *("", *_hook_lines(hooks), ""),
        *("### Paths", "", *_path_lines(paths)),
    ]


def _target_lines(results: Sequence[Result]) -> Iterable[str]:
    yield "| case | found | target | |"
    yield "|---|---|---|---|"
    for verdict in verdicts(results):
        met = "met" if verdict.is_met else "**not met**"
        yield f"| {verdict.case} | {verdict.found} | {verdict.wanted} | {met} |"


def _hook_lines(hooks: Sequence[Result]) -> Iterable[str]:
    counts = sorted({result.flows for result in hooks if result.flows})
    yield "| case | rows |" + "".join(f" {_flows(count)} |" for count in counts)
    yield "|---|---:|" + "---:|" * len(counts)
    at = {(r.case, r.rows, r.flows): r.value for r in hooks}
    for case, rows in dict.fromkeys((r.case, r.rows) for r in hooks):
        # A search for ports has no flows but those that look for one.
        values = [at.get((case, rows, flows)) for flows in counts]
        if (case, rows, 0) in at:
            values = [at[case, rows, 0], *values[1:]]
        cells = "".join(f" {_number(value)} |" for value in values)
        yield f"| {case} | {rows:,} |{cells}"


def _path_lines(paths: Sequence[Result]) -> Iterable[str]:
    yield f"| case | flows | unit |{''.join(f' {path} |' for path in PATHS)}"
    yield "|---|---:|---|" + "---:|" * len(PATHS)
    at = {(r.case, r.flows): r.value for r in paths}
    for result in paths:
        words = result.case.split("/")
        if PATHS[0] not in words:
            continue
        place = words.index(PATHS[0])
        names = ["/".join((*words[:place], p, *words[place + 1 :])) for p in PATHS]
        cells = "".join(f" {_number(at.get((n, result.flows)))} |" for n in names)
        case = "/".join((*words[:place], *words[place + 1 :]))
        flows = f"{result.flows:,}" if result.flows else ""
        yield f"| {case} | {flows} | {result.unit} |{cells}"


def _flows(count: int) -> str:
    return f"{count:,} flow{'s' if count > 1 else ''}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"
