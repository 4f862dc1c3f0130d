"""The picture of open-loop errors: how they grow with the horizon."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from trajplan.evaluation.pictures.plan_picture import save_figure

# By what was measured: what the legend calls it, its colour and line.
_CURVES = {
    "transformer": ("Trajectory Transformer", "#c2410c", "-"),
    "ensemble": ("dynamics ensemble", "#0369a1", "-"),
    "still": ("nothing moves", "#6b7280", "--"),
    "tokenised": ("tokenised recording", "#6b7280", ":"),
}
_PANELS = {"rms": "root mean square of all starts", "median": "the median start"}


def save_open_loop_picture(report: dict[str, Any], path: Path) -> None:
    """Draw what `trajplan.evaluation.open_loop.evaluate_open_loop` gives, two panels side by side."""
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    steps = np.arange(1, report["horizon"] + 1)
    for axes, (kind, title) in zip(figure.subplots(1, 2, sharey=True), _PANELS.items(), strict=True):
        for name, (label, colour, line) in _CURVES.items():
            if name in report["errors"]:
                axes.plot(steps, np.array(report["errors"][name][kind], float), line, color=colour, label=label)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("steps ahead")
        axes.set_xlim(0, steps[-1])
        axes.grid(alpha=0.25, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    first = figure.axes[0]
    first.set_ylabel("error, in standard deviations of the data")
    first.set_ylim(bottom=0)
    figure.suptitle(f"{report['dataset']}: recorded actions, {report['starts']} held-out starts", fontsize=10)
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9, frameon=False)
    save_figure(figure, path)
