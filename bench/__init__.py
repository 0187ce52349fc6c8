"""Measurements: what the project costs, as numbers that can be compared."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Programs are driven, and packets made, as the tests do it.
sys.path.append(str(ROOT / "tests"))
