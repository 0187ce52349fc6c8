"""
The chart of what large clusters cost, an SVG beside the page that shows it.

What it is: with ``speedchart`` the only user of matplotlib (extra ``bench``).  Bars
that have a target are drawn against it: 1 is what was promised, shorter is better.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

from bench.results import SCALE, Result

matplotlib.use("svg")
from matplotlib import pyplot  # after its backend
from matplotlib.figure import Figure

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
GREEN, RED = "#2a7f62", "#c0392b"


def draw(results: Sequence[Result], folder: Path = REFERENCE) -> list[Path]:
    """Draw what large clusters cost; nothing where that was not measured."""
    promised = [
        result
        for result in results
        if result.group == SCALE and result.ratio_to.startswith("target")
    ]
    return [_draw(promised, folder / f"{SCALE}.svg")] if promised else []


def _draw(promised: Sequence[Result], path: Path) -> Path:
    """Draw how much of its target each result used."""
    shown = list(reversed(promised))
    ratios = [result.ratio or 0.0 for result in shown]
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.34 * len(shown)))
    colors = [GREEN if ratio <= 1 else RED for ratio in ratios]
    bars = axes.barh([r.name for r in shown], ratios, color=colors)
    texts = [f"{r.value:.3g} {r.unit} ({r.ratio_to})" for r in shown]
    axes.axvline(1, color="black", linewidth=1, linestyle="--", zorder=0)
    background = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    axes.bar_label(bars, texts, padding=4, fontsize=8, bbox=background)
    axes.set_xlim(0, max(*ratios, 1.0) * 1.5)
    axes.set_xlabel("share of the target that was used (1 = all)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return save(figure, path)


def save(figure: Figure, path: Path) -> Path:
    """Write *figure*: the same numbers give the same file, with text to be searched."""
    matplotlib.rcParams |= {"svg.hashsalt": "outgate", "svg.fonttype": "none"}
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
