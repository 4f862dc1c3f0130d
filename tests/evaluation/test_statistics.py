import numpy as np
import pytest

from trajplan.evaluation.statistics import describe, mean_interval, normalized


def test_interval_by_hand():
    # mean 3, sample deviation sqrt(2.5), four degrees of freedom
    half = 2.776445 * np.sqrt(2.5 / 5)
    assert mean_interval([1, 2, 3, 4, 5]) == pytest.approx((3 - half, 3 + half), rel=1e-6)
    assert mean_interval([7.0]) is None


def test_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = [low <= 1.0 <= high for low, high in (mean_interval(rng.normal(1.0, 3.0, size=6)) for _ in range(2000))]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_normalised_deviation_is_scaled_not_shifted():
    values, low, high = np.array([100.0, 300.0, 800.0]), -20.0, 3000.0
    found = normalized(describe(values), low, high)
    direct = describe(100 * (values - low) / (high - low))
    assert found.keys() == direct.keys()
    for name, value in direct.items():
        assert found[name] == pytest.approx(value), name


def test_single_value_has_no_spread():
    assert describe([4.0]) == {"mean": 4.0, "std": None, "median": 4.0, "min": 4.0, "max": 4.0, "interval_95": None}
    assert normalized(describe([4.0]), 0.0, 8.0)["std"] is None
