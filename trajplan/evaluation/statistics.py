"""From the returns of a few episodes to a mean and how far it can be trusted."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

INTERVAL_METHOD = "Student t"


@functools.cache
def student_t_quantile(degrees: int, confidence: float = 0.95) -> float:
    """The t with P(|T| < t) = `confidence` for `degrees` degrees of freedom.

    With t = sqrt(degrees) tan(x) the density of |T| becomes proportional to cos(x)^(degrees - 1) on [0, pi/2], which
    Gauss-Legendre integrates to full precision; x is then found by bisection.
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)
    log_total = 0.5 * math.log(math.pi) + math.lgamma(degrees / 2) - math.lgamma((degrees + 1) / 2) - math.log(2)

    def probability(angle: float) -> float:
        integral = angle / 2 * np.sum(weights * np.cos(angle * (nodes + 1) / 2) ** (degrees - 1))
        return float(integral / math.exp(log_total))

    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) < confidence else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> tuple[float, float] | None:
    """The Student t confidence interval (low, high) of the mean of independent values; None for fewer than two."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return None
    half = student_t_quantile(len(values) - 1, confidence) * values.std(ddof=1) / math.sqrt(len(values))
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
    """`describe` of scores 100 (x - minimum) / (maximum - minimum): places shift too, the deviation only scales."""
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
