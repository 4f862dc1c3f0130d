import itertools
import json
from pathlib import Path

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
    """Of 5 runs, one of them far off."""
    return np.array([3.0, -40.0, 8.0, 5.0, 11.0])


def middle_half(values):
    values = sorted(values)
    cut = len(values) // 4
    return np.mean(values[cut : len(values) - cut])


RLIABLE = json.loads((Path(__file__).parent / "rliable.json").read_text())


@pytest.mark.parametrize("name", RLIABLE["scores"])
def test_numbers_of_one_method_are_rliables(name):
    runs, spread = np.array(RLIABLE["scores"][name]), np.ptp(RLIABLE["scores"][name])
    for statistic, key in ((statistics.mean, "mean"), (statistics.iqm, "iqm")):
        found, theirs = statistic(runs), RLIABLE[key][name]
        assert found.value == pytest.approx(theirs["value"])
        if len(runs) >= statistics.MIN_RUNS:
            assert found.interval == pytest.approx(theirs["interval"], abs=0.02 * spread)
    shares, band = statistics.profile(runs, np.array(RLIABLE["taus"]))
    assert shares == pytest.approx(RLIABLE["profile"][name]["shares"])
    if band is None:
        assert len(runs) < statistics.MIN_RUNS
        return
    # A share is a whole number of runs: of two bootstraps an end can be one run apart.
    assert np.abs(band - RLIABLE["profile"][name]["band"]).max() <= 1.01 / len(runs)


@pytest.mark.parametrize("pair", RLIABLE["improvement"])
def test_numbers_of_two_methods_are_rliables(pair):
    ours, theirs = (np.array(RLIABLE["scores"][name]) for name in pair.split(","))
    found = statistics.improvement(ours, theirs)
    assert found.value == pytest.approx(RLIABLE["improvement"][pair]["value"])
    if "few" not in pair:
        assert found.interval == pytest.approx(RLIABLE["improvement"][pair]["interval"], abs=0.06)


def test_interquartile_mean_by_hand():
    assert statistics.iqm(np.array([100.0, 2, 3, 1, 4, -50, 5, 6])).value == (2 + 3 + 4 + 5) / 4
    # A quarter that is no whole number of runs leaves out whole runs only.
    assert statistics.iqm(np.array([0.0, 1, 2, 3, 100])).value == 2.0
    assert statistics.iqm(np.array([1.0, 2, 6])).value == 3.0


def test_mean_and_interquartile_mean_have_the_intervals_of_all_resamples(scores):
    draws = [scores[draw] for draw in all_draws(5)]
    for statistic, by_hand in ((statistics.mean, np.mean), (statistics.iqm, middle_half)):
        estimate = statistic(scores)
        assert estimate.value == pytest.approx(by_hand(scores))
        exact = brute_force_interval([by_hand(drawn) for drawn in draws])
        assert estimate.interval == pytest.approx(exact, abs=0.04 * np.ptp(scores))


def test_improvement_is_the_share_of_pairs_won():
    ours, theirs = np.array([1.0, 3.0, 5.0]), np.array([2.0, 3.0])
    # 1 wins none, 3 wins one and draws one, 5 wins both.
    assert statistics.improvement(ours, theirs).value == pytest.approx((0 + 1.5 + 2) / 6)
    expected = mannwhitneyu(ours, theirs).statistic / 6
    assert statistics.improvement(ours, theirs).value == pytest.approx(expected)
    there, back = statistics.improvement(ours, theirs), statistics.improvement(theirs, ours)
    assert there.value + back.value == pytest.approx(1.0)


def test_improvement_resamples_each_method_on_its_own():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.5, 1, 5), rng.normal(0, 1, 5)
    exact = brute_force_interval(
        [(a[i][:, None] > b[j]).mean() for i, j in itertools.product(all_draws(5)[::7], all_draws(5)[::11])]
    )
    assert statistics.improvement(a, b).interval == pytest.approx(exact, abs=0.051)


def test_profile_is_the_share_of_runs_above(scores):
    thresholds = np.array([-50.0, 0.0, 5.0, 30.0])
    shares, band = statistics.profile(scores, thresholds)
    assert shares.tolist() == [1.0, 0.8, 0.4, 0.0]
    exact = np.array([brute_force_interval([np.mean(scores[d] > t) for d in all_draws(5)]) for t in thresholds]).T
    assert band == pytest.approx(exact, abs=0.001)


def test_fewer_runs_than_an_interval_needs_have_none():
    few, enough = np.arange(4.0), np.arange(5.0)
    for statistic in (statistics.mean, statistics.iqm):
        assert statistic(few).interval is None
        assert statistic(enough).interval is not None
    assert statistics.improvement(few, enough).interval is None
    assert statistics.profile(few, np.array([1.5]))[1] is None
    assert statistics.profile(enough, np.array([1.5]))[1] is not None


@pytest.mark.parametrize(("runs", "is_range"), [(2, True), (3, True), (4, True), (5, False)])
def test_an_interval_of_fewer_runs_would_be_their_range(runs, is_range):
    scores = np.arange(float(runs))
    of_all = [middle_half(scores[draw]) for draw in all_draws(runs)]
    low, high = np.percentile(of_all, [2.5, 97.5], method="inverted_cdf")
    assert (low == 0 and high == runs - 1) == is_range
    assert is_range == (runs < statistics.MIN_RUNS)


def test_equal_runs_have_an_interval_without_width():
    same = np.full(5, 7.0)
    assert statistics.mean(same) == statistics.Estimate(7.0, (7.0, 7.0))
    assert statistics.improvement(same, same) == statistics.Estimate(0.5, (0.5, 0.5))


def test_numbers_repeat(scores):
    assert statistics.iqm(scores) == statistics.iqm(scores)


def test_how_often_an_interval_of_few_runs_holds_the_true_mean():
    rng = np.random.default_rng(3)
    intervals = [statistics.mean(rng.normal(size=5)).interval for _ in range(300)]
    held = np.mean([low <= 0 <= high for low, high in intervals])
    assert held == pytest.approx(statistics.COVERAGE[5] / 100, abs=0.08)
