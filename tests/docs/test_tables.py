"""Tables in the documentation say what the source says."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BPF = ROOT / "bpf"

REASON = re.compile(r"^\t([A-Z_]+) = (\d+), /\* (.*) \*/$", re.MULTILINE)
MAP = re.compile(r"BPF_MAP_TYPE_(\w+)\).*?\} ([\w()]+) SEC", re.DOTALL)


def rows(path: Path, columns: int) -> list[tuple[str, ...]]:
    """Return the cells of each table row with that many columns, heads left out."""
    cells = [
        tuple(cell.strip(" `") for cell in line.strip("|").split(" | "))
        for line in path.read_text().splitlines()
        if line.startswith("| ") and line.count(" | ") == columns - 1
    ]
    return [row for row in cells if row[0] not in ("number", "program", "map")]


def test_drop_reasons_are_documented_as_the_header_has_them() -> None:
    header = (BPF / "include" / "verdict.h").read_text()
    expected = [(number, name, text) for name, number, text in REASON.findall(header)]

    assert expected == rows(ROOT / "docs/reference/drop-reasons.md", 3)


def test_maps_are_documented_as_the_header_has_them() -> None:
    sources = (BPF / "include" / "maps.h", BPF / "collect.bpf.c")
    header = "".join(path.read_text() for path in sources)
    expected = {
        (re.sub(r"^FAMILY\((\w+)\)$|_v[46]$", r"\1", name), kind)
        for kind, name in MAP.findall(header)
    }
    table = {(row[0].removesuffix("_v*"), row[1]) for row in rows(BPF / "README.md", 3)}

    assert expected <= table
    assert {name for name, kind in table if kind.isupper()} == dict(expected).keys()


def test_every_program_is_documented() -> None:
    programs = {path.name.removesuffix(".bpf.c") for path in BPF.glob("*.bpf.c")}

    assert programs == {row[0] for row in rows(BPF / "README.md", 3)} & programs


def test_decisions_are_numbered_without_gaps() -> None:
    files = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [int(path.name[:4]) for path in files]

    assert list(range(1, len(files) + 1)) == numbers


def test_reasons_of_conditions_are_documented() -> None:
    folder = ROOT / "src/outgate/policy"
    source = "".join(
        (folder / name).read_text()
        for name in ("conditions.py", "health.py", "status.py")
    )
    constants = re.findall(r'^[A-Z_]+ = "([A-Z][a-zA-Z]+)"$', source, re.MULTILINE)
    inline = re.findall(r'Truth\.[A-Z]+, "([A-Z][a-zA-Z]+)"', source)
    page = (ROOT / "docs/reference/status.md").read_text()

    assert {*constants, *inline} == set(re.findall(r"`([A-Z][a-zA-Z]+)`", page))
