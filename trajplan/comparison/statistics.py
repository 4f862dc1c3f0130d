"""From the scores of a few training runs to what can be said of their methods, after Agarwal et al. 2021.

A run is one training, with its own seed; its score is the mean over its evaluation episodes. What varies from one
repetition to the next is the run, so everything here is of runs' scores, and every interval is a stratified bootstrap
over runs: each method is a stratum, from which as many runs are drawn, with replacement, as there are. Episodes of one
run are no independent evidence about its method. Resampling, percentiles and the trimmed mean are scipy's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 5000
CONFIDENCE = 0.95
# Of each end of the sorted scores, what the interquartile mean leaves out.
TRIMMED = 0.25
# Of fewer runs the 95 % interval of the interquartile mean is the range of the runs, whatever they are: of 4, one
# resample in 20 has the least run three times or more, which is more than the 2.5 % beyond an interval's end.
MIN_RUNS = 5
# How often, of 100 times, such an interval of the mean of that many normally distributed runs holds the true mean:
# a percentile bootstrap of a few values is narrower than it should be.
COVERAGE = {5: 83, 10: 90, 20: 93}

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A number, and its 95 % interval where there are `MIN_RUNS` runs or more."""

    value: float
    interval: Interval | None


def mean(runs: np.ndarray) -> Estimate:
    """Mean of the scores (R,) of R runs."""
    return _estimate(lambda drawn: drawn.mean(-1), runs)


def iqm(runs: np.ndarray) -> Estimate:
    """Interquartile mean of the scores (R,) of R runs: without the lowest and the highest quarter of them.

    A quarter is rounded down to whole runs, so that of fewer than 4 it is the mean.
    """
    return _estimate(lambda drawn: stats.trim_mean(drawn, TRIMMED, axis=-1), runs)


def improvement(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """Probability that a run of one method, with scores (R,), has a higher one than one of another, (Q,); ties half."""
    return _estimate(_wins, ours, theirs)


def _wins(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    ours, theirs = ours[..., :, None], theirs[..., None, :]
    return ((ours > theirs) + 0.5 * (ours == theirs)).mean((-2, -1))


def profile(runs: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Performance profile: the share of runs, with scores (R,), that are above each threshold (T,).

    Returns:
        The shares (T,), and their pointwise 95 % intervals (2, T), or None for fewer than `MIN_RUNS`.
    """
    above = (runs[:, None] > thresholds).astype(np.float64)
    if len(runs) < MIN_RUNS:
        return above.mean(0), None
    interval = _bootstrap((above,), np.mean, axis=0)
    return above.mean(0), np.stack([interval.low, interval.high])


def _estimate(statistic: Callable[..., np.ndarray], *strata: np.ndarray) -> Estimate:
    """A statistic of strata, each (..., R), vectorised over the leading dimensions."""
    value = float(statistic(*strata))
    if min(len(scores) for scores in strata) < MIN_RUNS:
        return Estimate(value, None)

    def of_drawn(*drawn: np.ndarray, axis: int) -> np.ndarray:
        return statistic(*drawn)

    interval = _bootstrap(strata, of_drawn, axis=-1)
    return Estimate(value, (float(interval.low), float(interval.high)))


def _bootstrap(data: tuple[np.ndarray, ...], statistic: Callable[..., Any], axis: int) -> Any:
    return stats.bootstrap(
        data,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        axis=axis,
        rng=np.random.default_rng(0),
    ).confidence_interval
