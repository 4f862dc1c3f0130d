"""From the scores of a few training runs to what can be said of their methods, after Agarwal et al. 2021.

A method's score is that of all its episodes; what varies from one repetition to the next is the training run. So every
interval is a stratified bootstrap over training runs: each method is a stratum, its runs are drawn with replacement
whole, with all their episodes (episodes of one run are no independent evidence about the method). All methods ran the
same episodes, which are held fixed. Resampling, percentiles and the trimmed mean are scipy's.
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
# How often, of 100 times, such an interval of the mean of that many normally distributed runs holds the true mean:
# a percentile bootstrap of a few values is narrower than it should be.
COVERAGE = {2: 50, 3: 75, 4: 80, 5: 83, 10: 90, 20: 93}

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A number, and its 95 % interval where there are runs enough for one."""

    value: float
    interval: Interval | None


def mean(scores: np.ndarray) -> Estimate:
    """Mean of scores (R, E) of R runs in E episodes each."""
    return _estimate(lambda drawn: drawn.mean((-2, -1)), scores)


def iqm(scores: np.ndarray) -> Estimate:
    """Interquartile mean of scores (R, E) over all runs and episodes."""

    def statistic(drawn: np.ndarray) -> np.ndarray:
        return stats.trim_mean(drawn.reshape(*drawn.shape[:-2], -1), TRIMMED, axis=-1)

    return _estimate(statistic, scores)


def improvement(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """Probability that a run of one method has a higher mean score than one of another; ties count half.

    Args:
        ours, theirs: (R, E) and (Q, E) scores.
    """
    return _estimate(_wins, ours.mean(-1)[:, None], theirs.mean(-1)[:, None])


def _wins(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    theirs = theirs.swapaxes(-1, -2)
    return ((ours > theirs) + 0.5 * (ours == theirs)).mean((-2, -1))


def profile(scores: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Share of episodes (R, E) with a score above each threshold (T,).

    Returns:
        The shares (T,), and their pointwise 95 % intervals (2, T), or None for a single run.
    """
    above = (scores[:, :, None] > thresholds).mean(1)
    if len(above) < 2:
        return above.mean(0), None
    interval = _bootstrap((above,), np.mean, axis=0)
    return above.mean(0), np.stack([interval.low, interval.high])


def _estimate(statistic: Callable[..., np.ndarray], *strata: np.ndarray) -> Estimate:
    """A statistic of strata, each (..., R, E), vectorised over the leading dimensions."""
    value = float(statistic(*strata))
    if min(len(scores) for scores in strata) < 2:
        return Estimate(value, None)

    def of_runs(*runs: np.ndarray, axis: int) -> np.ndarray:
        return statistic(*(scores[drawn] for scores, drawn in zip(strata, runs, strict=True)))

    # scipy draws numbers of runs, from each stratum on its own.
    interval = _bootstrap(tuple(np.arange(len(scores)) for scores in strata), of_runs, axis=-1)
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
