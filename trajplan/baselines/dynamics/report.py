"""A run's model_report.json and its picture: what the model promises, and what came of it."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trajplan.files import read_json, write_json
from trajplan.runs.metrics import read_metrics

COLOURS = {"max-deviation": "#c2410c", "disagreement": "#0369a1"}
INK, FAINT = "#1f2937", "#9ca3af"


def write_report(path: Path) -> None:
    """Add the returns so far, from the metrics.jsonl beside it, to a report, and draw it all as a PNG of its name.

    `returns` is a list by evaluation of `update`, `real` (in the environment), `model`, and `penalised` (in the model
    with the method's penalty); `below` is the share of these evaluations where `penalised` is the least it should be,
    at most `real`.
    """
    report = read_json(path)
    names = {"real": "evaluation/return", "model": "model/return", "penalised": "model/penalised_return"}
    returns = [
        {"update": line["update"]} | {name: line[key] for name, key in names.items() if key in line}
        for line in read_metrics(path.parent)
        if "model/return" in line
    ]
    compared = [line for line in returns if "penalised" in line and "real" in line]
    below = float(np.mean([line["penalised"] <= line["real"] for line in compared])) if compared else None
    report |= {"returns": returns, "below": below}
    write_json(path, report)
    figure = report_figure(report)
    FigureCanvasAgg(figure)
    figure.savefig(path.with_suffix(".png"), dpi=110)


def report_figure(report: dict[str, Any]) -> Figure:
    """Four panels: error by uncertainty, coverage, error by step, returns."""
    figure = Figure(figsize=(11, 8.5))
    panels = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.07, right=0.97, bottom=0.06, top=0.95, wspace=0.28, hspace=0.26)
    held_out = report["held_out"]
    _reliability(panels[0, 0], held_out)
    _coverage(panels[0, 1], held_out["calibration"])
    _steps(panels[1, 0], held_out["k_step"])
    _returns(panels[1, 1], report["returns"])
    for axes in panels.flat:
        axes.title.set_fontsize(11)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return figure


def _reliability(axes: Axes, held_out: dict[str, Any]) -> None:
    correlations = held_out["k_step"][0]["rank_correlation"]
    values: list[float] = []
    for kind, line in held_out["reliability"].items():
        label = f"{kind.replace('-', ' ')}, rank correlation {_number(correlations[kind])}"
        axes.plot(line["uncertainty"], line["error"], "o-", color=COLOURS[kind], label=label)
        values += [*line["uncertainty"], *line["error"]]
    shown = [value for value in values if value > 0] or [1.0]
    ends = [min(shown), max(shown)]
    axes.plot(ends, ends, "--", color=FAINT, label="error as large as the uncertainty")
    axes.set(xscale="log", yscale="log", xlabel="mean uncertainty of a tenth of the held-out steps")
    axes.set(ylabel="root mean squared error", title="One step: does the uncertainty order and bound the error?")
    axes.legend(fontsize=8)


def _coverage(axes: Axes, calibration: dict[str, list[float]]) -> None:
    axes.plot([0, 1], [0, 1], "--", color=FAINT, label="calibrated")
    axes.plot(calibration["level"], calibration["coverage"], "o-", color=INK, label="the elites")
    axes.set(xlabel="probability of the central interval", ylabel="held-out values inside", xlim=(0, 1), ylim=(0, 1))
    axes.set(title="One step: calibration of the Gaussians (above: too wide)")
    axes.legend(fontsize=8)


def _steps(axes: Axes, lines: list[dict[str, Any]]) -> None:
    steps = [line["step"] for line in lines]
    axes.plot(steps, [line["error_mean"] for line in lines], "o-", color=INK, label="mean error")
    axes.plot(steps, [line["error_median"] for line in lines], "o--", color=INK, label="median error")
    axes.set(xlabel="steps along recorded actions", ylabel="norm of the error", ylim=(0, None))
    axes.set(title="More steps: error, and rank correlation with uncertainty")
    second = axes.twinx()
    for kind, colour in COLOURS.items():
        second.plot(steps, [line["rank_correlation"][kind] for line in lines], ".:", color=colour, label=kind)
    second.set(ylim=(-0.05, 1.05), ylabel="rank correlation")
    axes.legend(fontsize=8, loc="upper left")
    second.legend(fontsize=8, loc="lower right")


def _returns(axes: Axes, returns: list[dict[str, float]]) -> None:
    axes.set(title="Returns: the penalised one should be the lowest", xlabel="updates")
    labels = {"real": "in the environment", "model": "in the model", "penalised": "in the model, penalised"}
    colours = {"real": INK, "model": "#0369a1", "penalised": "#c2410c"}
    for name, label in labels.items():
        points = [(line["update"], line[name]) for line in returns if name in line]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", markersize=3, color=colours[name], label=label)
    if returns:
        axes.margins(y=0.35)  # room for the legend
        axes.legend(fontsize=8, loc="upper center", ncols=3, columnspacing=1, handlelength=1.2)
    else:
        axes.text(0.5, 0.5, "not evaluated yet", ha="center", transform=axes.transAxes, color=FAINT)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
