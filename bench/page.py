"""
The table of numbers on a group's page in ``docs/reference``, between two marks.

A page tells what is measured and what is not; its numbers are those of the last run,
written here and compared by a test, so that neither is older than the other.  README
has three of them.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.results import SPEED, Result
from bench.speedpage import readme_lines, speed_lines

README = Path(__file__).parents[1] / "README.md"
REFERENCE = README.parent / "docs" / "reference"
BEGIN, END = "<!-- numbers: begin -->", "<!-- numbers: end -->"


def fill(
    results: Sequence[Result], folder: Path = REFERENCE, readme: Path = README
) -> list[Path]:
    """Write each group's numbers into its page, if it has one; return the pages."""
    readme.write_text(readme_filled_in(readme.read_text(), results))
    filled = [readme]
    for group in sorted({result.group for result in results}):
        page = folder / f"{group}.md"
        if page.exists():
            page.write_text(filled_in(page.read_text(), group, results))
            filled.append(page)
    return filled


def filled_in(text: str, group: str, results: Sequence[Result]) -> str:
    """
    Return the page *text* with the numbers of *group* between the marks.

    Errors: ValueError for a page without marks.
    """
    of_group = [result for result in results if result.group == group]
    lines = speed_lines(of_group) if group == SPEED else _lines(of_group)
    return _between(text, f"the page of {group}", lines)


def readme_filled_in(text: str, results: Sequence[Result]) -> str:
    """Return README's *text* with the figures that matter; ValueError likewise."""
    return _between(text, "README", readme_lines(results))


def _between(text: str, name: str, lines: Sequence[str]) -> str:
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} and {END} in {name}")
    return "\n".join((head + BEGIN, *lines, END + tail))


def _lines(results: Sequence[Result]) -> list[str]:
    head = "| case | rows | value | of its target, or of another case |"
    return [head, "|---|---:|---:|---|", *(_line(result) for result in results)]


def _line(result: Result) -> str:
    rows = f"{result.rows:,}" if result.rows else ""
    ratio = ""
    if result.ratio is not None:
        ratio = f"{result.ratio:.2f} of {result.ratio_to}"
    value = f"{result.value:,.4g} {result.unit}"
    return f"| {result.name} | {rows} | {value} | {ratio} |"
