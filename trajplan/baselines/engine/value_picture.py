"""The picture of a run's predicted values and discounted returns."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PICTURE = "values.png"
_PREDICTED, _EARNED, _OVER, _UNDER = "#c2410c", "#1f2937", "#f2c6ae", "#b9cfe4"
# From here on the axis is logarithmic: the predictions of a method that diverges would flatten everything else.
_FAR = 20.0


def save_value_picture(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw predicted values and discounted returns by update, if there are any: a method without a Q has none.

    Args:
        lines: of metrics.jsonl, in order.
        path: the file to write.
    """
    lines = [line for line in lines if "evaluation/predicted_value" in line]
    if not lines:
        return
    update, predicted, earned, cut = (
        np.array([line[name] for line in lines], np.float64)
        for name in (
            "update",
            *(f"evaluation/{name}" for name in ("predicted_value", "discounted_return", "cut_weight")),
        )
    )
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7.0, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        style: dict[str, Any] = {"interpolate": True, "alpha": 0.5, "linewidth": 0}
        axes.fill_between(update, predicted, earned, predicted > earned, color=_OVER, label="over-estimated", **style)
        axes.fill_between(update, predicted, earned, predicted < earned, color=_UNDER, label="under-estimated", **style)
        marker = "o" if len(lines) < 30 else None
        axes.plot(update, predicted, color=_PREDICTED, marker=marker, markersize=3, label="predicted: Q of its action")
        axes.plot(update, earned, color=_EARNED, marker=marker, markersize=3, label="earned: discounted return")
        usual = max(float(np.abs(earned).max()), 1e-6)
        if np.abs(predicted).max() > _FAR * usual:
            axes.set_yscale("symlog", linthresh=10 ** math.ceil(math.log10(usual)))
        axes.set(xlabel="update", ylabel="value, in the rewards of training")
        axes.set_title("Start states: what Q predicts and what the policy earns", loc="left", fontsize=10)
        if cut.max() > 0.01:
            note = f"time limits cut off up to {100 * cut.max():.0f} % of the discounted horizon of the returns"
            axes.text(0.99, 0.01, note, transform=axes.transAxes, ha="right", va="bottom", fontsize=7, color="#6b7280")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="y", color="#dddddd", linewidth=0.5)
        axes.legend(frameon=False, fontsize=8)
        figure.savefig(path, dpi=130)
