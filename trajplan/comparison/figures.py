"""The report's pictures, as SVG to put into HTML: lines and text take the page's colour and so suit any theme."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from trajplan.comparison import statistics
from trajplan.comparison.statistics import Estimate

# Told apart by people of any colour vision on light and on dark ground (Okabe and Ito 2008, and four more);
# dashes and markers differ besides.
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#999999"),
    *("#b15928", "#e7298a"),
)
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX*"
# Stands for the page's own text colour until the SVG is written.
_INK = "#010203"
_INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "trajplan",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.15,
    "grid.color": _INK,
    **dict.fromkeys(_INKED, _INK),
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn, the same in every picture."""

    colour: str
    dash: str
    marker: str


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """A look for each method."""
    count = len(COLOURS)
    return {
        label: Look(COLOURS[i % count], DASHES[(i + i // count) % len(DASHES)], MARKERS[i % len(MARKERS)])
        for i, label in enumerate(labels)
    }


def intervals(
    estimates: dict[str, tuple[Estimate, Estimate]], runs: dict[str, np.ndarray], axis: str, data: float
) -> str:
    """Mean and interquartile mean of every method with their intervals, side by side on one scale.

    Args:
        estimates: by method: mean, interquartile mean.
        runs: (R,) scores by method, drawn as ticks.
        axis: what the scores are.
        data: the mean of the data's own episodes, drawn as a line.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 1.3 + 0.42 * len(estimates)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True, sharex=True)
        style = looks(list(estimates))
        for number, (axes, title) in enumerate(zip(panels, ("mean", "interquartile mean"), strict=True)):
            for place, (label, pair) in enumerate(estimates.items()):
                estimate = pair[number]
                low, high = estimate.interval or (estimate.value, estimate.value)
                axes.plot([low, high], [place, place], color=style[label].colour, linewidth=5, alpha=0.45)
                axes.plot(estimate.value, place, style[label].marker, color=style[label].colour, markersize=8)
                axes.plot(runs[label], np.full(len(runs[label]), place), "|", color=style[label].colour, markersize=12)
            axes.axvline(data, color=_INK, linewidth=1, linestyle=":", alpha=0.6)
            axes.set(title=title, xlabel=axis, yticks=range(len(estimates)), yticklabels=list(estimates))
            axes.set_ylim(len(estimates) - 0.5, -0.5)
            axes.grid(axis="x")
            axes.tick_params(left=False)
        return _svg(figure, "Mean and interquartile mean of every method with 95 % intervals")


def profiles(scores: dict[str, np.ndarray], axis: str) -> str:
    """Share of runs above every score, a line with its band for each method, and beside it the share of episodes.

    Args:
        scores: (R, E) by method; a run's score is the mean over its episodes.
        axis: what the scores are.
    """
    runs = {label: values.mean(1) for label, values in scores.items()}
    episodes = {label: values.ravel() for label, values in scores.items()}
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 4), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (name, values) in zip(panels, (("runs", runs), ("episodes", episodes)), strict=True):
            thresholds = _thresholds(values)
            for label, look in looks(list(scores)).items():
                shares, band = (values[label][:, None] > thresholds).mean(0), None
                if values is runs:  # of episodes there is no interval: those of one run are not independent
                    shares, band = statistics.profile(runs[label], thresholds)
                axes.step(thresholds, shares, look.dash, color=look.colour, label=label, where="post", linewidth=2)
                if band is not None:
                    axes.fill_between(
                        thresholds, band[0], band[1], color=look.colour, alpha=0.15, linewidth=0, step="post"
                    )
            axes.set(xlabel=f"τ, {axis}", title=f"share of {name} above τ", ylim=(-0.02, 1.02))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
            axes.grid()
        _legend(figure, panels[0])
        return _svg(figure, "Performance profiles: share of runs, and of episodes, above every score")


def _thresholds(values: dict[str, np.ndarray]) -> np.ndarray:
    """(T,) scores from just below the least to just above the greatest."""
    everything = np.concatenate(list(values.values()))
    margin = 0.03 * max(1e-9, np.ptp(everything))
    return np.linspace(everything.min() - margin, everything.max() + margin, 201)


def curves(
    lines: dict[str, list[tuple[np.ndarray, np.ndarray]]],
    ends: dict[str, float],
    axis: str,
    title: str,
    everyone: Sequence[str],
) -> str:
    """Something measured during the trainings: the runs' mean and, between the least and the greatest run, a band.

    Args:
        lines: (updates (T,), values (T,)) of each run, by method; only updates that all its runs have are drawn.
        ends: final scores, by method, of methods that were not measured on the way: drawn as level lines.
        axis: what the values are.
        title: what the picture shows.
        everyone: all methods of the report, which settles the colours.
    """
    style = looks(everyone)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.subplots()
        for label, runs in lines.items():
            updates = sorted(set.intersection(*(set(updates.tolist()) for updates, _ in runs)))
            values = np.array([[dict(zip(*map(list, run), strict=True))[update] for update in updates] for run in runs])
            look = style[label]
            axes.plot(updates, values.mean(0), look.dash, color=look.colour, label=label, linewidth=2)
            if len(updates) == 1:
                axes.plot(updates, values.mean(0), look.marker, color=look.colour)
            axes.fill_between(updates, values.min(0), values.max(0), color=look.colour, alpha=0.15, linewidth=0)
        for label, value in ends.items():
            axes.axhline(value, color=style[label].colour, linestyle=":", label=f"{label}, when trained", linewidth=2)
        axes.set(xlabel="updates", ylabel=axis)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda update, _: f"{update:,.0f}"))
        axes.grid()
        _legend(figure, axes)
        return _svg(figure, title)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, handlelength=3)


def _svg(figure: Figure, title: str) -> str:
    """The figure as an `<svg>` element that scales with the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # Ids are of a page, and several pictures stand on one: those that nothing refers to go.
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([\w-]+)"', lambda match: match[0] if match[1] in used else "", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{title}"><title>{title}</title>{rest}'
