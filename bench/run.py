"""
``make bench``: measure, print one table, keep the numbers, fill pages and charts.

Cases are modules of this package with a function ``run(is_quick)`` that returns
``Result``; they are chosen by name.  Needs root: each makes namespaces of its own.
"""

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module

from bench.page import fill
from bench.results import LATEST, Result, read_results, table, write_results

CASES = ("scale", "datapath")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {CASES}")
    parser.add_argument("--quick", action="store_true", help="small; keep no numbers")
    given = parser.parse_args()
    unknown = [name for name in given.cases if name not in CASES]
    if unknown:
        parser.error(f"no case {unknown[0]!r}; there are: {', '.join(CASES)}")
    if os.geteuid() != 0:
        sys.exit("bench: needs root, to make namespaces and load programs")
    results = []
    for name in given.cases or CASES:
        run: Callable[[bool], list[Result]] = import_module(f"bench.{name}").run
        results += run(given.quick)
    print(table(results))
    if not given.quick:
        # Here, because a quick run needs no library for charts.
        from bench.chart import draw
        from bench.speedchart import draw_speed

        write_results(results)
        known = read_results()
        for path in (LATEST, *fill(known), *draw(known), *draw_speed(known)):
            print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
