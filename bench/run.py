"""
``make bench``: measure, print one table, keep the numbers, fill pages and charts.

All parts, or those that are named (``make bench CASES="paths tcp"``); numbers of the
others stay from their last run.  Needs root: each part makes namespaces of its own,
which end with it.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence

from bench import datapath, scale
from bench.needs import refusal
from bench.page import fill
from bench.results import (
    LATEST,
    SCALE,
    Result,
    read_results,
    table,
    write_results,
)

DATAPATH = "datapath"
CASES = (*datapath.PARTS, SCALE)
"""By how much a run tells of a packet; what takes longest comes last."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    names = f"of {', '.join(CASES)}; {DATAPATH} is all but {SCALE}"
    parser.add_argument("cases", nargs="*", metavar="CASE", help=names)
    parser.add_argument("--quick", action="store_true", help="small; keep no numbers")
    given = parser.parse_args()
    unknown = [name for name in given.cases if name not in (*CASES, DATAPATH)]
    if unknown:
        parser.error(f"no case {unknown[0]!r}; there are: {', '.join(CASES)}")
    if why_not := refusal(is_chart_wanted=not given.quick):
        sys.exit(why_not)
    try:
        results = measure(wanted(given.cases), given.quick)
    except subprocess.CalledProcessError as error:
        sys.exit(f"bench: ended with {error.returncode}, see above; nothing is kept")
    print(table(results))
    if not given.quick:
        keep(results)
    return 0


def wanted(names: Sequence[str]) -> tuple[str, ...]:
    """
    Return the parts to measure.

    >>> wanted(["scale", "datapath"]) == wanted([])
    True
    >>> wanted(["scale", "tcp"])
    ('tcp', 'scale')
    """
    chosen = {*names, *(datapath.PARTS if DATAPATH in names else ())} or {*CASES}
    return tuple(name for name in CASES if name in chosen)


def measure(parts: Sequence[str], is_quick: bool) -> list[Result]:
    """Measure *parts*, names in ``CASES``."""
    of_datapath = [part for part in parts if part in datapath.PARTS]
    results = datapath.run(of_datapath, is_quick) if of_datapath else []
    if SCALE in parts:
        print(f"bench: {SCALE}", file=sys.stderr)
        results += scale.run(is_quick)
    return results


def keep(results: list[Result]) -> None:
    """Write numbers, pages and charts."""
    # Here, because a quick run needs no library for charts.
    from bench.chart import draw
    from bench.speedchart import draw_speed

    write_results(results)
    known = read_results()
    for path in (LATEST, *fill(known), *draw(known), *draw_speed(known)):
        print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
