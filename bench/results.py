"""Numbers of one run: their shape, their file, their table.  Pure but for the file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

SCALE, SPEED = "scale", "speed"
"""Pages."""

HOOKS, PATHS, TCP, COLLECTOR, PROGRAM = "hooks", "paths", "tcp", "collector", "program"
"""What is measured together, with ``scale``."""

PARTS = {
    "scale": SCALE,
    "node": PATHS,
    "gateway": PATHS,
    "chain": PATHS,
    "tcp": TCP,
    "snat": COLLECTOR,
    "program": PROGRAM,
}
"""By the first word of a case; all others are hooks'."""

LATEST = Path(__file__).parent / "results" / "latest.json"


@dataclass(frozen=True, slots=True)
class Result:
    """
    One number.

    Shape: *case* is ``scale/name``, or begins with a hook's, a path's or a table's
    name; *flows* and *rows* are what tables held meanwhile; *ratio* is *value* divided
    by what *ratio_to* names: a target of the same unit, or another case.  In the file
    what has no meaning for a case (0, "", None here) is null.
    """

    case: str
    value: float
    unit: str
    flows: int = 0
    rows: int = 0
    ratio_to: str = ""
    ratio: float | None = None

    @property
    def group(self) -> str:
        """The page that tells of it."""
        return SCALE if self.part == SCALE else SPEED

    @property
    def part(self) -> str:
        """What it is measured with."""
        return PARTS.get(self.case.partition("/")[0], HOOKS)

    @property
    def name(self) -> str:
        """What it is called on that page."""
        return self.case.removeprefix(f"{SCALE}/")


def against_target(result: Result, target: float) -> Result:
    """Return *result* compared with what was promised."""
    fields = asdict(result) | {
        "ratio_to": f"target {target:g} {result.unit}",
        "ratio": round(result.value / target, 3),
    }
    return Result(**fields)


def write_results(results: list[Result], path: Path = LATEST) -> None:
    """Replace the parts that were measured; others stay from their last run."""
    measured = {result.part for result in results}
    kept = [r for r in read_results(path) if r.part not in measured]
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [_row(result) for result in (*kept, *results)]
    path.write_text(json.dumps(rows, indent=1) + "\n")


def read_results(path: Path = LATEST) -> list[Result]:
    """Return what was measured last; nothing if there is no file."""
    if not path.exists():
        return []
    return [
        Result(**{name: value for name, value in row.items() if value is not None})
        for row in json.loads(path.read_text())
    ]


def _row(result: Result) -> dict[str, object]:
    """Return what the file says of it: each of seven keys, null without a meaning."""
    row = asdict(result)
    order = ("case", "flows", "rows", "value", "unit", "ratio_to", "ratio")
    no_meaning = {name: row[name] or None for name in ("flows", "rows", "ratio_to")}
    return {name: (row | no_meaning)[name] for name in order}


def table(results: list[Result]) -> str:
    """
    Return the results for a terminal.

    >>> print(table([Result("scale/x", 1.5, "s", rows=200)]))
    CASE     FLOWS  ROWS  VALUE  UNIT  RATIO
    scale/x          200    1.5  s
    """
    head = ("CASE", "FLOWS", "ROWS", "VALUE", "UNIT", "RATIO")
    lines = [head, *(_cells(result) for result in results)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _cells(result: Result) -> tuple[str, ...]:
    held = (f"{count:,}" if count else "" for count in (result.flows, result.rows))
    ratio = "" if result.ratio is None else f"{result.ratio:g} of {result.ratio_to}"
    return result.case, *held, f"{result.value:,.5g}", result.unit, ratio


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    padded = (
        cell.rjust(width) if place in (1, 2, 3) else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(line, widths, strict=True))
    )
    return "  ".join(padded).rstrip()
