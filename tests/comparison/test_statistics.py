import itertools

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from trajplan.comparison import statistics


def brute_force_interval(values):
    """Percentiles of all equally likely resamples' statistics, each a number: the bootstrap's exact limit."""
    return np.percentile(values, [2.5, 97.5])


def all_draws(runs):
    return [list(draw) for draw in itertools.product(range(runs), repeat=runs)]


@pytest.fixture
def scores():
    """4 runs of 5 episodes; runs differ more than episodes do."""
    rng = np.random.default_rng(0)
    return 10 * rng.normal(size=(4, 1)) + rng.normal(size=(4, 5))


def middle_half(values):
    values = sorted(np.ravel(values))
    cut = len(values) // 4
    return np.mean(values[cut : len(values) - cut])


def test_interquartile_mean_by_hand():
    assert statistics.iqm(np.array([[100.0, 2, 3, 1], [4, -50, 5, 6]])).value == (2 + 3 + 4 + 5) / 4
    # An end that is no quarter of the number leaves out whole values only.
    assert statistics.iqm(np.array([[0.0, 1, 2, 3, 100]])).value == 2.0
    assert statistics.iqm(np.array([[1.0, 2, 6]])).value == 3.0


def test_mean_and_interval_are_those_of_all_resamples_of_whole_runs(scores):
    estimate = statistics.mean(scores)
    assert estimate.value == pytest.approx(scores.mean())
    exact = brute_force_interval([scores[draw].mean() for draw in all_draws(4)])
    assert estimate.interval == pytest.approx(exact, abs=0.02 * np.ptp(scores))
    # Episodes drawn one by one would give an interval several times narrower.
    single = np.std([scores.ravel()[draw].mean() for draw in np.random.default_rng(0).integers(0, 20, (2000, 20))])
    assert np.diff(estimate.interval)[0] > 1.5 * 2 * 1.96 * single


def test_interquartile_mean_and_interval_are_those_of_all_resamples(scores):
    estimate = statistics.iqm(scores)
    assert estimate.value == pytest.approx(middle_half(scores))
    exact = brute_force_interval([middle_half(scores[draw]) for draw in all_draws(4)])
    assert estimate.interval == pytest.approx(exact, abs=0.02 * np.ptp(scores))


def test_improvement_is_the_share_of_pairs_won():
    ours, theirs = np.array([[1.0], [3.0], [5.0]]), np.array([[2.0], [3.0]])
    # 1 wins none, 3 wins one and draws one, 5 wins both.
    assert statistics.improvement(ours, theirs).value == pytest.approx((0 + 1.5 + 2) / 6)
    expected = mannwhitneyu(ours[:, 0], theirs[:, 0]).statistic / 6
    assert statistics.improvement(ours, theirs).value == pytest.approx(expected)
    there, back = statistics.improvement(ours, theirs), statistics.improvement(theirs, ours)
    assert there.value + back.value == pytest.approx(1.0)


def test_improvement_resamples_each_method_on_its_own():
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0.5, 1, (4, 3)), rng.normal(0, 1, (3, 3))
    a, b = ours.mean(1), theirs.mean(1)
    exact = brute_force_interval(
        [(a[i][:, None] > b[j]).mean() for i in map(np.array, all_draws(4)) for j in map(np.array, all_draws(3))]
    )
    assert statistics.improvement(ours, theirs).interval == pytest.approx(exact, abs=0.051)


def test_profile_by_brute_force(scores):
    thresholds = np.array([-30.0, 0.0, 3.0, 30.0])
    shares, band = statistics.profile(scores, thresholds)
    assert shares == pytest.approx([np.mean(scores > t) for t in thresholds])
    exact = np.array([brute_force_interval([np.mean(scores[d] > t) for d in all_draws(4)]) for t in thresholds]).T
    assert band == pytest.approx(exact, abs=0.051)
    assert shares[0] == 1
    assert shares[-1] == 0


def test_a_single_run_has_no_interval():
    one = np.array([[1.0, 2.0, 3.0]])
    assert statistics.mean(one).interval is None
    assert statistics.iqm(one).interval is None
    assert statistics.improvement(one, np.array([[0.0], [1.0]])).interval is None
    assert statistics.profile(one, np.array([1.5]))[1] is None


def test_equal_runs_have_an_interval_without_width():
    same = np.full((3, 2), 7.0)
    assert statistics.mean(same) == statistics.Estimate(7.0, (7.0, 7.0))
    assert statistics.improvement(same, same) == statistics.Estimate(0.5, (0.5, 0.5))


def test_numbers_repeat(scores):
    assert statistics.iqm(scores) == statistics.iqm(scores)


def test_how_often_an_interval_of_few_runs_holds_the_true_mean():
    rng = np.random.default_rng(3)
    intervals = [statistics.mean(rng.normal(size=(3, 1))).interval for _ in range(300)]
    held = np.mean([low <= 0 <= high for low, high in intervals])
    assert held == pytest.approx(statistics.COVERAGE[3] / 100, abs=0.08)
