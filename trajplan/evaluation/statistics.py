"""From the returns of a few episodes to a mean and how far it can be trusted."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

INTERVAL_METHOD = "Student t"


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
    """The 95 % Student t confidence interval (low, high) of the mean of independent values; None for fewer than two."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return None
    quantile = float(stdtrit(len(values) - 1, 0.975))
    half = quantile * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def describe(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Mean, sample standard deviation, median, least, greatest and the mean's 95 % interval, JSON-able."""
    values = np.asarray(values, np.float64)
    interval = mean_interval(values)
    return {
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if len(values) > 1 else None,
        "median": float(np.median(values)),
        "min": float(values.min()),
        "max": float(values.max()),
        "interval_95": list(interval) if interval else None,
    }


def normalized(description: dict[str, Any], minimum: float, maximum: float) -> dict[str, Any]:
    """`describe` of scores 100 (x - minimum) / (maximum - minimum): places shift too, the std only scales."""
    scale = 100 / (maximum - minimum)

    def place(value: float) -> float:
        return (value - minimum) * scale

    places = {name: place(description[name]) for name in ("mean", "median", "min", "max")}
    interval, std = description["interval_95"], description["std"]
    return {
        **places,
        "std": None if std is None else std * scale,
        "interval_95": interval and [place(end) for end in interval],
    }
