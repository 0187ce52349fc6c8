"""The tables of ``docs/reference/speed.md``: hundreds of numbers side by side. Pure."""

from collections.abc import Iterable, Sequence

from bench.results import COLLECTOR, HOOKS, PATHS, PROGRAM, TCP, Result
from bench.targets import MANY_FLOWS, STATISTICS, verdicts

BASE, NOTHING = "nftables", "gateway/nothing"

SHOWN = ("xdp", "tc", "tc-device", "nftables", "plain")


def speed_lines(results: Sequence[Result]) -> list[str]:
    """Return the lines of all tables."""
    hooks = [r for r in results if r.part == HOOKS and r.ratio_to == "empty"]
    empty = [r.value for r in results if r.case == "empty"]
    is_timed = any(result.case == STATISTICS for result in results)
    clock = " The kernel's own clock is in it (see Traps)." if is_timed else ""
    paths = [r for r in results if r.part in (PATHS, TCP)]
    return [
        *("### Against the targets", "", *_target_lines(results), ""),
        *("### Hooks: nanoseconds per packet, net of the empty program", ""),
        *(f"The empty program itself: {value:g} ns.{clock}" for value in empty),
        *("", *_hook_lines(hooks), ""),
        *("### Paths", "", *_path_lines(paths), ""),
        *("### Tables", "", *_table_lines(results)),
    ]


README_PATHS = {
    "xdp": "Outgate, XDP gateway",
    "tc": "Outgate, tc",
    "nftables": "nftables",
    "plain": "plain routing",
}

README_FIGURES = (
    ("gateway", MANY_FLOWS, 1000, "through a gateway, million packets/s and core"),
    ("chain", MANY_FLOWS, 1000, "pod to server, million packets/s and core"),
    ("tcp/connections", 0, 1000, "new TCP connections, thousand/s"),
)
"""Case, flows, what its figure is divided by, and what it is called."""


def readme_lines(results: Sequence[Result]) -> list[str]:
    """Return the lines of the figures that matter."""
    at = {(r.case, r.flows): r.value for r in results}
    lines = [f"| |{''.join(f' {name} |' for name in README_PATHS.values())}"]
    lines.append("|---|" + "---:|" * len(README_PATHS))
    for case, flows, divisor, name in README_FIGURES:
        found = [at.get((f"{case}/{path}", flows)) for path in README_PATHS]
        cells = "".join(
            f" {'' if value is None else f'{value / divisor:.3g}'} |" for value in found
        )
        lines.append(f"| {name} |{cells}")
    return lines


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
    yield f"| case | flows | unit |{''.join(f' {path} |' for path in SHOWN)}"
    yield "|---|---:|---|" + "---:|" * len(SHOWN)
    at = {(r.case, r.flows): r.value for r in paths}
    for result in paths:
        words = result.case.split("/")
        if BASE not in words:
            continue
        place = words.index(BASE)
        names = ["/".join((*words[:place], p, *words[place + 1 :])) for p in SHOWN]
        cells = "".join(f" {_number(at.get((n, result.flows)))} |" for n in names)
        case = "/".join((*words[:place], *words[place + 1 :]))
        flows = f"{result.flows:,}" if result.flows else ""
        yield f"| {case} | {flows} | {result.unit} |{cells}"
    for result in paths:
        if result.case.startswith(NOTHING):
            at_once = "xdp" if result.case.endswith("xdp") else "tc"
            cells = "".join(
                f" {_number(result.value) if path == at_once else ''} |"
                for path in SHOWN
            )
            yield f"| gateway/nothing | {result.flows:,} | {result.unit} |{cells}"


def _table_lines(results: Sequence[Result]) -> Iterable[str]:
    yield "| case | flows | rows | value | of its target |"
    yield "|---|---:|---:|---:|---:|"
    for r in results:
        if r.part in (COLLECTOR, PROGRAM):
            flows, rows = (f"{count:,}" if count else "" for count in (r.flows, r.rows))
            ratio = "" if r.ratio is None else f"{r.ratio:.2f}"
            value = f"{_number(r.value)} {r.unit}"
            yield f"| {r.case} | {flows} | {rows} | {value} | {ratio} |"


def _flows(count: int) -> str:
    return f"{count:,} flow{'s' if count > 1 else ''}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
