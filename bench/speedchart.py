"""The chart of ``docs/reference/speed.md``: what hooks cost, how fast paths are."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot
from matplotlib.axes import Axes

from bench.chart import GREEN, REFERENCE, save
from bench.results import SPEED, Result
from bench.targets import HOOKS

GREY, DARK, LIGHT = "#888888", "#1f5f8b", "#9cc5a1"
COLORS = {"xdp": DARK, "tc": GREEN, "nftables": GREY, "plain": LIGHT}
RATES = ("gateway", "chain")


def draw_speed(results: Sequence[Result], folder: Path = REFERENCE) -> list[Path]:
    """Draw both halves into one file; nothing where the datapath was not measured."""
    known = [result for result in results if result.group == SPEED]
    if not known:
        return []
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.6))
    _draw_hooks(left, known)
    _draw_paths(right, known)
    figure.tight_layout()
    return [save(figure, folder / f"{SPEED}.svg")]


def _draw_hooks(axes: Axes, known: list[Result]) -> None:
    """Draw the hooks that have targets and see packets of known flows."""
    targets = [t for t in HOOKS if t.times < 10][::-1]
    for shift, flows, color in (
        (0.27, 1, GREEN),
        (0, 1000, DARK),
        (-0.27, 10**5, GREY),
    ):
        at = {r.case: r.ratio or 0 for r in known if r.flows == flows}
        places = [place + shift for place in range(len(targets))]
        widths = [at.get(target.case, 0) for target in targets]
        label = f"{flows:,} flow{'s' if flows > 1 else ''}"
        axes.barh(places, widths, height=0.25, color=color, label=label)
    for place, target in enumerate(targets):
        axes.vlines(target.times, place - 0.42, place + 0.42, color="black")
    axes.set_yticks(
        range(len(targets)), [target.case for target in targets], fontsize=8
    )
    axes.set_xlabel("cost in units of the empty program (black: target at 1 flow)")
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_paths(axes: Axes, known: list[Result]) -> None:
    """Draw packets per second of gateway and chain, by path, at most flows."""
    most = max((r.flows for r in known if r.case.startswith("gateway/")), default=0)
    rates = {r.case: r.value for r in known if r.flows == most}
    cases = [f"{part}{way}" for part in RATES for way in ("", "/reply")]
    for number, (path, color) in enumerate(COLORS.items()):
        names = [case.replace("/", f"/{path}/") for case in cases]
        values = [rates.get(n if "/" in n else f"{n}/{path}", 0) for n in names]
        places = [place + (number - 1.5) * 0.21 for place in range(len(cases))]
        bars = axes.bar(places, values, width=0.2, color=color, label=path)
        axes.bar_label(bars, [f"{value:.0f}" for value in values], fontsize=6)
    labels = [case.replace("/reply", ",\nreplies") for case in cases]
    axes.set_xticks(range(len(cases)), labels, fontsize=8)
    axes.set_ylabel(f"thousand packets per second and core, {most:,} flows")
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
