"""The page on lifetimes has the numbers of the source, and names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "reference" / "lifetimes.md").read_text()


def test_lifetimes_are_those_of_the_source() -> None:
    source = (ROOT / "bpf" / "include" / "lifetime.h").read_text()
    found = re.findall(r"^#define (LIFETIME_\w+) (\d+)", source, re.MULTILINE)

    assert dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE, re.MULTILINE)) == dict(
        found
    )


def test_every_test_that_shows_a_requirement_exists() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)
    missing = [
        f"{file}::{name}"
        for file, name in named
        if f"def {name}(" not in (ROOT / "tests" / "bpf" / file).read_text()
    ]

    assert len(named) > 20
    assert [] == missing
